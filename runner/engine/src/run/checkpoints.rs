//! Checkpoints as plans see them, and going back to an earlier one.

use std::collections::BTreeSet;

use isokiln_core::digest::Digest;
use isokiln_core::image::{Checkpoint, Circumstances, Entry, EntryNote, Role};
use isokiln_core::names::{PipelineName, StageName};
use isokiln_core::pipeline::{Pipeline, Stage};
use isokiln_core::plan::{Checkpoints, StageInputs};
use serde::Serialize;

use super::error::RunError;
use crate::store::{Store, StoreError};

/// The checkpoints of a store that a build can use, read once.
pub(super) struct Shelf {
    checkpoints: Vec<(Digest, Checkpoint)>,
}

impl Shelf {
    pub(super) fn load(store: &Store) -> Result<Self, RunError> {
        let read = || -> Result<_, StoreError> {
            let (usable, _) = store.sorted_out()?;
            let with_files: BTreeSet<Digest> = usable
                .iter()
                .filter(|entry| entry.note.role == Role::Artifacts)
                .map(|entry| entry.note.key)
                .collect();
            usable
                .iter()
                .filter(|entry| entry.note.role == Role::Checkpoint && with_files.contains(&entry.note.key))
                .map(|entry| Ok((entry.note.key, store.checkpoint(entry)?)))
                .collect()
        };
        read().map(|checkpoints| Self { checkpoints }).map_err(RunError::store("the store cannot be read"))
    }

    /// Whether there is a checkpoint of the stage that differs in nothing but its parent.
    pub(super) fn could_hit(&self, pipeline: &Pipeline, stage: &Stage, inputs: &StageInputs) -> bool {
        self.pinned(pipeline, &stage.name).is_some()
            || self
                .checkpoints
                .iter()
                .any(|(_, checkpoint)| inputs.differs_at_most_in_parent(&checkpoint.inputs))
    }
}

impl Checkpoints for Shelf {
    fn pinned(&self, pipeline: &Pipeline, stage: &StageName) -> Option<Checkpoint> {
        let mut newest_first = self.checkpoints.iter().rev().map(|(_, checkpoint)| checkpoint);
        newest_first.find(|c| c.pinned && c.pipeline == pipeline.name && c.stage == *stage).cloned()
    }

    fn by_key(&self, key: Digest) -> Option<Checkpoint> {
        self.checkpoints.iter().rev().find(|(k, _)| *k == key).map(|(_, checkpoint)| checkpoint.clone())
    }

    fn newest(&self, pipeline: &Pipeline, stage: &StageName) -> Option<Checkpoint> {
        let mut newest_first = self.checkpoints.iter().rev().map(|(_, checkpoint)| checkpoint);
        newest_first.find(|c| c.pipeline == pipeline.name && c.stage == *stage).cloned()
    }
}

/// How the user names a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Which {
    /// The stage.
    pub stage: StageName,
    /// The pipeline; may be left out where no other has such a stage.
    pub pipeline: Option<PipelineName>,
    /// How the digest of the manifest begins, in hexadecimal digits; the newest checkpoint where it is left out.
    pub digest: Option<String>,
}

impl Which {
    /// Whether a pipeline may be meant.
    pub(super) fn is_in(&self, pipeline: &PipelineName) -> bool {
        self.pipeline.as_ref().is_none_or(|meant| meant == pipeline)
    }

    fn means(&self, entry: &Entry) -> bool {
        entry.note.stage == self.stage
            && self.is_in(&entry.note.pipeline)
            && self.digest.as_ref().is_none_or(|digest| entry.manifest.hex().starts_with(digest))
    }
}

/// The entry of the checkpoint that the user means, which there is even where the checkpoint is damaged. `others` are
/// stages that would do besides those that have a checkpoint.
pub(super) fn find_among(store: &Store, which: &Which, others: &[StageName]) -> Result<Entry, RunError> {
    let entries = store.entries().map_err(RunError::store("the checkpoint cannot be looked for"))?;
    let checkpoints: Vec<_> =
        entries.into_iter().filter(|entry| entry.note.role == Role::Checkpoint).collect();
    let found: Vec<_> = checkpoints.iter().filter(|entry| which.means(entry)).collect();
    let pipelines: BTreeSet<_> = found.iter().map(|entry| &entry.note.pipeline).collect();
    let manifests: BTreeSet<_> = found.iter().map(|entry| entry.manifest).collect();
    if pipelines.len() > 1 || (which.digest.is_some() && manifests.len() > 1) {
        let pipelines = pipelines.into_iter().map(ToString::to_string).collect();
        return Err(RunError::ManyCheckpoints { stage: which.stage.clone(), pipelines });
    }
    found.into_iter().next_back().cloned().ok_or_else(|| {
        let in_reach = checkpoints.iter().filter(|entry| which.is_in(&entry.note.pipeline));
        let mut known: Vec<String> = Vec::new();
        for stage in in_reach.map(|entry| &entry.note.stage).chain(others) {
            if !known.iter().any(|other| other == stage.as_str()) {
                known.push(stage.to_string());
            }
        }
        RunError::NoSuchCheckpoint { which: which.clone(), known }
    })
}

/// The entry of the checkpoint that the user means, which there is even where the checkpoint is damaged.
pub fn find_checkpoint(store: &Store, which: &Which) -> Result<Entry, RunError> {
    find_among(store, which, &[])
}

/// The record of a checkpoint's making; absent where none was kept, or none that can be read.
pub fn circumstances(store: &Store, checkpoint: &EntryNote) -> Option<Circumstances> {
    let is_it = |note: &EntryNote| {
        note.role == Role::Circumstances
            && (&note.pipeline, &note.stage, note.key)
                == (&checkpoint.pipeline, &checkpoint.stage, checkpoint.key)
    };
    let entry = store.entries().ok()?.into_iter().rev().find(|entry| is_it(&entry.note))?;
    let files = store.files(&entry).ok()?;
    let file = files.into_iter().find(|file| file.name == Circumstances::FILE)?;
    serde_json::from_slice(&store.get(file.digest).ok()?).ok()
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollbackReport {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The stage whose checkpoint the next build starts from.
    pub stage: StageName,
    /// Digest of that checkpoint's manifest.
    pub manifest: Digest,
    /// Stages whose checkpoints were forgotten.
    pub forgotten: Vec<StageName>,
}

/// Makes a checkpoint the one that the next build goes on from: it is pinned, so that it counts whatever
/// has changed since, and everything that was built on top of the stage is forgotten.
pub fn rollback(store: &Store, target: &Checkpoint) -> Result<RollbackReport, StoreError> {
    let above: BTreeSet<(StageName, Digest)> = store
        .checkpoints()?
        .into_iter()
        .filter(|checkpoint| checkpoint.pipeline == target.pipeline && checkpoint.stage != target.stage)
        .filter(|checkpoint| checkpoint.chain.contains(&target.stage))
        .map(|checkpoint| (checkpoint.stage, checkpoint.inputs.key()))
        .collect();
    let gone = store.retain(|entry| {
        entry.note.pipeline != target.pipeline
            || entry.note.role == Role::BootReport
            || !above.contains(&(entry.note.stage.clone(), entry.note.key))
    })?;
    store.edit(|entry| {
        if entry.note.pipeline == target.pipeline && entry.note.stage == target.stage {
            entry.note.pinned = entry.note.role == Role::Checkpoint && entry.manifest == target.manifest;
        }
    })?;
    let mut forgotten: Vec<StageName> = Vec::new();
    for entry in gone {
        if !forgotten.contains(&entry.note.stage) {
            forgotten.push(entry.note.stage);
        }
    }
    Ok(RollbackReport {
        pipeline: target.pipeline.clone(),
        stage: target.stage.clone(),
        manifest: target.manifest,
        forgotten,
    })
}

/// Ends a rollback: the stage's checkpoints count by their keys again. Tells whether it was rolled back.
pub fn unpin(store: &Store, pipeline: &PipelineName, stage: &StageName) -> Result<bool, StoreError> {
    let mut was_pinned = false;
    store.edit(|entry| {
        if entry.note.pipeline == *pipeline && entry.note.stage == *stage {
            was_pinned |= std::mem::take(&mut entry.note.pinned);
        }
    })?;
    Ok(was_pinned)
}
