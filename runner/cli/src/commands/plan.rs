//! `isokiln plan`.

use isokiln_core::plan::{Change, PlannedStage, Step};
use isokiln_engine::run::RunError;
use serde_json::{Value, json};

use crate::args::{Format, Global, Plan};
use crate::{output, words};

pub(super) async fn run(global: &Global, args: &Plan) -> Result<u8, RunError> {
    let session = super::session(Format::Text, None)?;
    let planned = session.plan(&global.dir, &args.file).await?;
    let stages: Vec<Value> = planned.plan.stages.iter().map(|stage| as_json(stage, args.explain)).collect();
    let document = json!({
        "pipeline": planned.project.pipeline.name,
        "builder_image": planned.image.as_ref().map(|image| &image.name),
        "stages": stages,
    });
    output::result(global.format, &document, |_| {
        let rows: Vec<_> =
            planned.plan.stages.iter().flat_map(|stage| as_rows(stage, args.explain)).collect();
        words::table(&rows)
    });
    Ok(isokiln_core::exit::OK)
}

fn as_json(stage: &PlannedStage, explain: bool) -> Value {
    let mut value = json!({"stage": stage.name, "state": stage.step.state()});
    match &stage.step {
        Step::Hit(checkpoint) => {
            value["manifest"] = json!(checkpoint.manifest);
            value["pinned"] = json!(checkpoint.pinned);
        }
        Step::Miss { inputs, changes } => {
            value["key"] = json!(inputs.key());
            if explain {
                value["changes"] = json!(changes);
                value["inputs"] = json!(inputs);
            }
        }
        Step::AfterParent(parent) => value["after"] = json!(parent),
    }
    value
}

fn as_rows(stage: &PlannedStage, explain: bool) -> Vec<Vec<String>> {
    let state = |word: &str| vec![word.to_owned(), stage.name.to_string()];
    match &stage.step {
        Step::Hit(checkpoint) => {
            let mut row = state("hit");
            row.push(checkpoint.manifest.short());
            if checkpoint.pinned {
                row.push("rolled back to".to_owned());
            }
            vec![row]
        }
        Step::AfterParent(parent) => {
            let mut row = state("miss");
            row.push(String::new());
            row.push(format!("{parent} runs first; if its result is as before, this is a hit"));
            vec![row]
        }
        Step::Miss { changes, .. } => {
            let mut row = state("miss");
            row.push(String::new());
            row.push(match changes {
                None => "never built before".to_owned(),
                Some(changes) if changes.is_empty() => "its checkpoint is gone".to_owned(),
                Some(changes) => {
                    let names: Vec<_> = changes.iter().map(|change| change.input.as_str()).collect();
                    format!("changed: {}", names.join(", "))
                }
            });
            let mut rows = vec![row];
            if explain {
                for change in changes.iter().flatten() {
                    rows.extend(explain_change(change));
                }
            }
            rows
        }
    }
}

fn explain_change(change: &Change) -> Vec<Vec<String>> {
    let part = |sign: &str, value: &Option<String>| {
        let text = value.as_deref().unwrap_or("(nothing)");
        vec![String::new(), String::new(), String::new(), format!("  {sign} {text}")]
    };
    vec![
        vec![String::new(), String::new(), String::new(), change.input.clone()],
        part("-", &change.before),
        part("+", &change.now),
    ]
}
