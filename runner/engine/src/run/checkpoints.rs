//! Checkpoints as plans see them, and going back to an earlier one.

use std::collections::BTreeSet;

use isokiln_core::digest::Digest;
use isokiln_core::image::{Checkpoint, Role};
use isokiln_core::names::{PipelineName, StageName};
use isokiln_core::pipeline::{Pipeline, Stage};
use isokiln_core::plan::{Checkpoints, StageInputs};
use serde::Serialize;

use super::error::RunError;
use crate::store::{Store, StoreError};

/// All checkpoints of a store, read once.
pub(super) struct Shelf {
    checkpoints: Vec<(Digest, Checkpoint)>,
    /// Blobs that checkpoints need and that are damaged or missing.
    pub(super) broken: BTreeSet<Digest>,
}

impl Shelf {
    pub(super) fn load(store: &Store) -> Result<Self, RunError> {
        let failed = "the store cannot be read";
        let mut shelf = Self { checkpoints: Vec::new(), broken: BTreeSet::new() };
        for entry in store.entries().map_err(RunError::store(failed))? {
            if entry.note.role != Role::Checkpoint {
                continue;
            }
            match store.checkpoint(&entry) {
                Ok(checkpoint) => match checkpoint.layers.iter().find(|layer| !store.has(layer.digest)) {
                    Some(layer) => drop(shelf.broken.insert(layer.digest)),
                    None => shelf.checkpoints.push((entry.note.key, checkpoint)),
                },
                Err(error) => match error.broken_blob() {
                    Some(blob) => drop(shelf.broken.insert(blob)),
                    None => return Err(RunError::store(failed)(error)),
                },
            }
        }
        Ok(shelf)
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
    let before = target.layers.len();
    let siblings: Vec<Checkpoint> = store
        .checkpoints()?
        .into_iter()
        .filter(|checkpoint| checkpoint.pipeline == target.pipeline)
        .collect();
    let tops: Vec<_> = siblings
        .iter()
        .filter(|checkpoint| checkpoint.stage == target.stage)
        .filter_map(|checkpoint| checkpoint.layers.last().map(|layer| layer.diff_id))
        .collect();
    // Built on top: any checkpoint of another stage that contains one of this stage's layers.
    let above: Vec<(Digest, StageName)> = siblings
        .iter()
        .filter(|checkpoint| checkpoint.stage != target.stage && checkpoint.layers.len() >= before)
        .filter(|checkpoint| {
            checkpoint.layers[before - 1..].iter().any(|layer| tops.contains(&layer.diff_id))
        })
        .map(|checkpoint| (checkpoint.manifest, checkpoint.stage.clone()))
        .collect();
    let stages: Vec<StageName> = above.iter().map(|(_, stage)| stage.clone()).collect();
    store.retain(|entry| {
        let of_pipeline = entry.note.pipeline == target.pipeline;
        !(of_pipeline && stages.contains(&entry.note.stage) && entry.note.role != Role::BootReport)
    })?;
    store.edit(|entry| {
        if entry.note.pipeline == target.pipeline && entry.note.stage == target.stage {
            entry.note.pinned = entry.note.role == Role::Checkpoint && entry.manifest == target.manifest;
        }
    })?;
    let mut forgotten = stages;
    forgotten.dedup();
    Ok(RollbackReport {
        pipeline: target.pipeline.clone(),
        stage: target.stage.clone(),
        manifest: target.manifest,
        forgotten,
    })
}
