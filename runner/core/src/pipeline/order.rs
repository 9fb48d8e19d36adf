//! Which stage is whose parent, and an order in which each comes after its own.

use super::stage::{Draft, Stage};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::unknown;

/// Finds every parent; sorts the stages so that parents come first, otherwise as in the file.
pub(super) fn resolve(drafts: Vec<Draft>, out: &mut Diagnostics) -> Option<Vec<Stage>> {
    let names: Vec<String> = drafts.iter().map(|draft| draft.stage.name.to_string()).collect();
    let mut parents = Vec::with_capacity(drafts.len());
    let before = out.0.len();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(first) = names[..index].iter().position(|name| *name == names[index]) {
            out.push(
                Diagnostic::new(format!("two stages are named {:?}", names[index]), draft.name_span.clone())
                    .help(format!("stage {} has the name already; give this one another", first + 1)),
            );
        }
        parents.push(parent(index, draft, &names, out));
    }
    // A stage waits until its parent is placed; what still waits in the end goes in a circle.
    let mut placed = vec![false; drafts.len()];
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(next) =
        (0..drafts.len()).find(|stage| !placed[*stage] && parents[*stage].is_none_or(|parent| placed[parent]))
    {
        placed[next] = true;
        order.push(next);
    }
    if let Some(stuck) = (0..drafts.len()).find(|stage| !placed[*stage]) {
        out.push(circle(stuck, &parents, &drafts, &names));
    }
    if out.0.len() > before {
        return None;
    }
    let mut stages: Vec<Option<Stage>> = drafts.into_iter().map(|draft| Some(draft.stage)).collect();
    order
        .into_iter()
        .map(|index| {
            let mut stage = stages[index].take()?;
            stage.parent = parents[index].and_then(|parent| names[parent].parse().ok());
            Some(stage)
        })
        .collect()
}

fn parent(index: usize, draft: &Draft, names: &[String], out: &mut Diagnostics) -> Option<usize> {
    let name = &names[index];
    match &draft.from {
        Some(from) if draft.is_root => {
            let message =
                format!("stage {name:?} makes a new root file system, so it cannot start from another");
            out.push(Diagnostic::new(message, from.span.clone()).help("remove from"));
            None
        }
        None if draft.is_root => None,
        Some(from) => {
            let parent = names.iter().position(|name| *name == from.value);
            if parent.is_none() {
                let valid: Vec<_> = names.iter().filter(|other| *other != name).map(String::as_str).collect();
                out.push(unknown(&format!("stage {:?}", from.value), &from.value, from.span.clone(), &valid));
            }
            parent
        }
        None if index == 0 => {
            let message = format!("the first stage {name:?} has no root file system to start from");
            out.push(
                Diagnostic::new(message, draft.name_span.clone())
                    .help("begin with a stage that makes one: uses = \"bootstrap\""),
            );
            None
        }
        None => Some(index - 1),
    }
}

fn circle(stuck: usize, parents: &[Option<usize>], drafts: &[Draft], names: &[String]) -> Diagnostic {
    // Walking up often enough ends inside the circle, whatever hangs off it.
    let up = |stage: usize| parents[stage].unwrap_or(stage);
    let inside = (0..drafts.len()).fold(stuck, |stage, _| up(stage));
    let mut path = vec![names[inside].as_str()];
    let mut stage = up(inside);
    while stage != inside {
        path.push(&names[stage]);
        stage = up(stage);
    }
    path.push(&names[inside]);
    let span =
        drafts[inside].from.as_ref().map_or(drafts[inside].name_span.clone(), |from| from.span.clone());
    Diagnostic::new(format!("stages start from each other in a circle: {}", path.join(" from ")), span)
        .help("one of them must start from a stage outside the circle")
}
