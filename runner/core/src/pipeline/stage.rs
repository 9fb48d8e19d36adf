//! `[[stage]]`.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::limits::Limits;
use super::order;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::kind::{KindCatalog, RootfsUse, StageOptions, read_options};
use crate::names::{KindName, StageName};
use crate::table::{Located, Table, unknown, wrong_type};

/// One stage, with the kind's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Unique in the pipeline.
    pub name: StageName,
    /// What it does.
    pub kind: KindName,
    /// How.
    pub options: StageOptions,
    /// The stage whose root file system it starts from; `None` where it makes a new one.
    pub parent: Option<StageName>,
    /// What its container may use.
    pub limits: Limits,
    /// Whether its container has a network.
    pub network: bool,
    /// Whether the package archive's state is part of its key.
    pub archive: bool,
    /// Variables of the caller's environment that it sees, sorted.
    pub environment: Vec<String>,
    /// Whether it leaves artifacts instead of a changed root file system.
    pub makes_artifacts: bool,
}

/// The kind behind `run = "…"`.
const SCRIPT: &str = "script";

/// A stage whose parent is not yet checked.
pub(super) struct Draft {
    pub(super) stage: Stage,
    pub(super) name_span: Range<usize>,
    pub(super) from: Option<Located<String>>,
    pub(super) is_root: bool,
}

pub(super) fn read_stages(
    value: &Spanned<DeValue<'_>>,
    limits: Limits,
    kinds: &KindCatalog,
    out: &mut Diagnostics,
) -> Option<Vec<Stage>> {
    let Some(items) = value.get_ref().as_array() else {
        out.push(wrong_type(value, "a list of tables", "stage").help("write [[stage]], with two brackets"));
        return None;
    };
    if items.is_empty() {
        out.push(Diagnostic::new("the pipeline has no stages", value.span()));
        return None;
    }
    let drafts: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| match item.get_ref().as_table() {
            Some(entries) => read_stage(
                Table::new(format!("stage {}", index + 1), entries, item.span()),
                limits,
                kinds,
                out,
            ),
            None => {
                out.push(wrong_type(item, "a table", "each stage"));
                None
            }
        })
        .collect();
    // Parents of stages that could not be read would only be misreported.
    if drafts.len() < items.len() {
        return None;
    }
    find_equals(&drafts, kinds, out);
    order::resolve(drafts, out)
}

/// Stages of one kind must differ in the options that the kind declares unique.
fn find_equals(drafts: &[Draft], kinds: &KindCatalog, out: &mut Diagnostics) {
    for (index, draft) in drafts.iter().enumerate() {
        let Some(kind) = kinds.get(draft.stage.kind.as_str()) else { continue };
        for option in kind.options.iter().filter(|option| option.unique) {
            let value = |draft: &Draft| draft.stage.options.values.get(&option.name).cloned();
            let same = |other: &&Draft| other.stage.kind == kind.name && value(other) == value(draft);
            if let Some(first) = drafts[..index].iter().find(same) {
                let (first, second) = (first.stage.name.as_str(), draft.stage.name.as_str());
                let message = format!(
                    "stages {first:?} and {second:?} of kind {} need different values of the option {:?}",
                    kind.name, option.name
                );
                out.push(
                    Diagnostic::new(message, draft.name_span.clone())
                        .help(format!("add for example: with = {{ {} = {second:?} }}", option.name)),
                );
            }
        }
    }
}

fn read_stage(
    mut table: Table<'_>,
    limits: Limits,
    kinds: &KindCatalog,
    out: &mut Diagnostics,
) -> Option<Draft> {
    let name: Option<Located<StageName>> = table.parsed("name", out);
    match &name {
        Some(name) => table.what = format!("stage {:?}", name.value.as_str()),
        None if table.key_span("name").is_none() => table.missing("name", "name = \"base\"", out),
        None => {}
    }
    let uses = table.string("uses", out);
    let run = table.string("run", out);
    let with = table.table("with", out).map(|mut with| {
        with.what = format!("with of {}", table.what);
        with
    });
    let from = table.string("from", out);
    let network = table.boolean("network", out).map(|value| value.value);
    let archive = table.boolean("archive", out).map(|value| value.value);
    let limits = match table.table("limits", out) {
        Some(own) => limits.read(own, out),
        None => limits,
    };
    let environment = read_environment(table.strings("environment", out).unwrap_or_default(), out);

    let kind = match (&uses, &run) {
        (Some(uses), Some(run)) => {
            out.push(
                Diagnostic::new(format!("{} has both uses and run", table.what), run.span.clone())
                    .help(format!("keep one; run = \"…\" is short for uses = {SCRIPT:?}")),
            );
            kinds.get(&uses.value)
        }
        (Some(uses), None) => {
            let kind = kinds.get(&uses.value);
            if kind.is_none() {
                let what = format!("stage kind {:?}", uses.value);
                out.push(unknown(&what, &uses.value, uses.span.clone(), &kinds.names()));
            }
            kind
        }
        (None, Some(run)) => {
            if run.value.trim().is_empty() {
                out.push(Diagnostic::new(format!("{} runs nothing", table.what), run.span.clone()));
            }
            kinds.get(SCRIPT)
        }
        (None, None) => {
            out.push(
                Diagnostic::new(format!("{} does nothing", table.what), table.span.clone())
                    .help("add uses = \"a kind\", or run = \"a shell script\""),
            );
            None
        }
    };
    let span = table.span.clone();
    let options = kind.map(|kind| match &run {
        Some(run) => {
            if let Some(with) = &with {
                let help = "move the options to the script's text";
                out.push(Diagnostic::new("run takes no options", with.span.clone()).help(help));
            }
            let mut options = StageOptions::defaults(kind);
            options.values.insert("run".to_owned(), run.value.clone().into());
            options
        }
        None => read_options(kind, with, &span, out),
    });
    table.finish(out);

    let (name, kind) = (name?, kind?);
    Some(Draft {
        stage: Stage {
            name: name.value,
            kind: kind.name.clone(),
            options: options?,
            parent: None,
            limits,
            network: network.unwrap_or(kind.network),
            archive: archive.unwrap_or(kind.archive),
            environment,
            makes_artifacts: kind.rootfs == RootfsUse::Read,
        },
        name_span: name.span,
        from,
        is_root: kind.rootfs == RootfsUse::New,
    })
}

fn read_environment(names: Vec<Located<String>>, out: &mut Diagnostics) -> Vec<String> {
    let mut environment = Vec::new();
    for name in names {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.value.is_empty() || !name.value.chars().all(valid) {
            let message = format!("{:?} is not the name of an environment variable", name.value);
            out.push(Diagnostic::new(message, name.span));
        } else {
            environment.push(name.value);
        }
    }
    environment.sort();
    environment.dedup();
    environment
}
