//! Everything that a stage's result depends on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::ArchiveState;
use crate::digest::{DiffId, Digest};
use crate::kind::KindCatalog;
use crate::pipeline::{Pipeline, Stage};

/// Raised whenever stages would come out differently for a reason that no other input shows.
const KEY_FORMAT: u32 = 1;

/// Values longer than this are shown and kept as their digest.
const LONGEST_VALUE: usize = 400;

/// The input that stands for the layers a stage starts from.
const PARENT: &str = "parent";

/// What is the same for all stages of a build.
#[derive(Debug, Clone)]
pub struct BuildContext {
    /// Declarations and digests of the kinds.
    pub kinds: KindCatalog,
    /// Digest of the stage library.
    pub library: Digest,
    /// Identity of the builder image's contents.
    pub builder: String,
    /// State of the package archive.
    pub archive: ArchiveState,
    /// Time given to files that a build makes, in seconds since 1970.
    pub epoch: i64,
    /// Digests of the project's files, by path relative to the pipeline file.
    pub files: BTreeMap<String, Digest>,
    /// The caller's values of the variables that stages ask for.
    pub environment: BTreeMap<String, String>,
}

/// Named inputs of a stage; their digest is its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageInputs(pub BTreeMap<String, String>);

/// An input that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Name of the input.
    pub input: String,
    /// Value at the checkpoint.
    pub before: Option<String>,
    /// Value now.
    pub now: Option<String>,
}

impl StageInputs {
    /// The stage's key.
    pub fn key(&self) -> Digest {
        // A map of strings always serialises, and BTreeMap gives one order.
        Digest::of(serde_json::to_vec(&self.0).unwrap_or_default())
    }

    /// What differs from an earlier checkpoint's inputs.
    pub fn changes_since(&self, before: &StageInputs) -> Vec<Change> {
        let mut names: Vec<_> = self.0.keys().chain(before.0.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| Change {
                input: name.clone(),
                before: before.0.get(name).cloned(),
                now: self.0.get(name).cloned(),
            })
            .filter(|change| change.before != change.now)
            .collect()
    }

    /// Whether two stages could only come out differently because of what they start from.
    pub fn differs_at_most_in_parent(&self, other: &StageInputs) -> bool {
        self.changes_since(other).iter().all(|change| change.input == PARENT)
    }

    fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let value = value.into();
        let value = if value.len() > LONGEST_VALUE { Digest::of(&value).to_string() } else { value };
        self.0.insert(name.into(), value);
    }
}

/// What a stage's script is told about the pipeline, as variables. All of it is part of the stage's key. The
/// pipeline's name goes only to kinds that make artifacts, because pipelines share their first stages.
pub fn stage_variables(pipeline: &Pipeline, stage: &Stage) -> BTreeMap<&'static str, String> {
    let system = &pipeline.system;
    let mut variables = BTreeMap::from([
        ("STAGE", stage.name.to_string()),
        ("DISTRIBUTION", system.distribution.name().to_owned()),
        ("SUITE", system.suite.clone()),
        ("ARCHITECTURE", system.architecture.name().to_owned()),
        ("COMPONENTS", system.components.join(",")),
    ]);
    if stage.makes_artifacts {
        variables.insert("PIPELINE", pipeline.name.to_string());
    }
    variables
}

/// Collects the inputs of a stage whose parent has the layers `parent`.
pub fn stage_inputs(
    pipeline: &Pipeline,
    stage: &Stage,
    parent: &[DiffId],
    context: &BuildContext,
) -> StageInputs {
    let mut inputs = StageInputs::default();
    inputs.add("key format", KEY_FORMAT.to_string());
    inputs.add("stage library", context.library.to_string());
    inputs.add("builder image", &context.builder);
    let kind_digest = context.kinds.get(stage.kind.as_str()).map(|kind| kind.digest.to_string());
    inputs.add("kind", format!("{} {}", stage.kind, kind_digest.unwrap_or_default()));
    let chain: String = parent.iter().map(|layer| format!("{layer}\n")).collect();
    inputs.add(PARENT, if parent.is_empty() { "none".into() } else { Digest::of(chain).to_string() });
    inputs.add("network", stage.network.to_string());
    inputs.add("source date epoch", context.epoch.to_string());
    for (variable, value) in stage_variables(pipeline, stage) {
        inputs.add(variable.to_lowercase(), value);
    }
    for (name, value) in &stage.options.values {
        inputs.add(format!("option {name}"), value.to_string());
    }
    for input in &stage.options.inputs {
        let digest = context.files.get(&input.path).map_or_else(|| "missing".to_owned(), Digest::to_string);
        inputs.add(format!("file {}", input.path), digest);
    }
    for variable in &stage.environment {
        let value = context.environment.get(variable).map_or_else(
            || "not set".to_owned(),
            // The value may be a secret; checkpoints are exported and pushed.
            |value| Digest::of(value).to_string(),
        );
        inputs.add(format!("environment {variable}"), value);
    }
    if stage.archive {
        for suite in &context.archive.0 {
            let place = format!("archive {} {}", suite.uri, suite.suite);
            inputs.add(place, format!("{} {}", suite.components.join(" "), suite.digest));
        }
    }
    inputs
}
