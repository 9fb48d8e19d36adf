//! Stages whose script was begun and that have no checkpoint of it: `stages/NAME/unfinished.json` in the run folder.
//!
//! It goes when the checkpoint is made. What is left of a run that has ended tells what its trees in the engine are.

use std::collections::BTreeSet;
use std::fs;

use isokiln_core::image::Setting;
use isokiln_core::names::{PipelineName, RunId, StageName};
use isokiln_core::record::RunRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::home::{Home, RunFolder, replace_file};
use crate::sandbox::Tree;

/// A stage that was begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Unfinished {
    /// When its script was begun, in seconds since 1970.
    pub(super) begun: i64,
    /// What it works on, bottom to top.
    pub(super) trees: Vec<Tree>,
    /// What its script was given.
    pub(super) setting: Setting,
    /// Why it failed; absent where it did not, or was broken off.
    pub(super) failed: Option<String>,
}

/// A stage that a run left unfinished.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) run: RunId,
    pub(super) pipeline: PipelineName,
    pub(super) stage: StageName,
    pub(super) record: Unfinished,
}

impl Unfinished {
    pub(super) fn begun(begun: i64, trees: &[Tree], setting: &Setting) -> Self {
        Self { begun, trees: trees.to_vec(), setting: setting.clone(), failed: None }
    }
}

/// Only for people who look: a build does not hang on it.
impl RunFolder {
    /// A stage's script begins.
    pub(super) fn keep_unfinished(&self, stage: &StageName, record: &Unfinished) {
        let path = self.unfinished_path(stage);
        let json = serde_json::to_vec_pretty(record).unwrap_or_default();
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = folder.and_then(|()| replace_file(&path, &json)) {
            tracing::warn!("no shell can be had in stage {stage} if it fails: {error}");
        }
    }

    /// A stage has failed for good.
    pub(super) fn note_failure(&self, stage: &StageName, cause: &str) {
        if let Some(record) = read::<Unfinished>(&self.unfinished_path(stage)) {
            self.keep_unfinished(stage, &Unfinished { failed: Some(cause.to_owned()), ..record });
        }
    }

    /// A stage's checkpoint is made.
    pub(super) fn forget_unfinished(&self, stage: &StageName) {
        drop(fs::remove_file(self.unfinished_path(stage)));
    }
}

/// What the newest run of each pipeline left unfinished, the newest first.
pub(super) fn left(home: &Home) -> Vec<Left> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for folder in home.run_folders().into_iter().rev() {
        let record: Option<RunRecord> = read(&folder.join("run.json"));
        // Boot tests have no pipeline.
        let Some(RunRecord { run: Some(run), pipeline: Some(pipeline), .. }) = record else {
            continue;
        };
        if !seen.insert(pipeline.clone()) {
            continue;
        }
        for entry in fs::read_dir(folder.join("stages")).into_iter().flatten().flatten() {
            let stage = entry.file_name().to_string_lossy().parse::<StageName>();
            let record = read::<Unfinished>(&entry.path().join(FILE));
            if let (Ok(stage), Some(record)) = (stage, record) {
                all.push(Left { run: run.clone(), pipeline: pipeline.clone(), stage, record });
            }
        }
    }
    all
}

const FILE: &str = "unfinished.json";

impl RunFolder {
    fn unfinished_path(&self, stage: &StageName) -> std::path::PathBuf {
        self.path().join("stages").join(stage.as_str()).join(FILE)
    }
}

fn read<T: DeserializeOwned>(path: &std::path::Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
