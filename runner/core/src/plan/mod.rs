//! Plans: what a build will do, and why.
//!
//! A stage's key is a digest of everything that its result depends on ([`StageInputs`]). Its parent
//! enters by its layers, not by its key: a parent that is rebuilt with the same result changes nothing
//! downstream.

mod estimate;
mod inputs;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::digest::{DiffId, Digest};
use crate::image::Checkpoint;
use crate::names::StageName;
use crate::pipeline::{Pipeline, Stage};

pub use estimate::{Estimate, History, Taken};
pub use inputs::{BuildContext, Change, StageInputs, stage_inputs, stage_variables};

/// What a build will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the pipeline's order.
    pub stages: Vec<PlannedStage>,
}

/// What a build will do about one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStage {
    /// Its name.
    pub name: StageName,
    /// Whether its checkpoint is there.
    pub step: Step,
}

/// What a build will do about a stage, and why.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: its checkpoint is in the store.
    Hit(Box<Checkpoint>),
    /// Run it.
    Miss {
        /// What it depends on.
        inputs: StageInputs,
        /// What changed since the newest checkpoint of this stage; `None` where there is none.
        changes: Option<Vec<Change>>,
    },
    /// An ancestor runs first. If its result is as before, this stage's checkpoint may still do.
    AfterParent(StageName),
}

/// State of a planned stage in machine-readable output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// [`Step::Hit`].
    Hit,
    /// [`Step::Miss`] and [`Step::AfterParent`].
    Miss,
}

impl Step {
    /// Hit or miss.
    pub fn state(&self) -> StepState {
        match self {
            Self::Hit(_) => StepState::Hit,
            Self::Miss { .. } | Self::AfterParent(_) => StepState::Miss,
        }
    }
}

/// The checkpoints that a plan can build on.
pub trait Checkpoints {
    /// The checkpoint that the user rolled this stage back to, which counts whatever its key.
    fn pinned(&self, pipeline: &Pipeline, stage: &StageName) -> Option<Checkpoint>;
    /// The checkpoint with that key.
    fn by_key(&self, key: Digest) -> Option<Checkpoint>;
    /// The newest checkpoint of the stage, whatever its key.
    fn newest(&self, pipeline: &Pipeline, stage: &StageName) -> Option<Checkpoint>;
}

/// Decides about every stage.
pub fn plan(pipeline: &Pipeline, context: &BuildContext, checkpoints: &impl Checkpoints) -> Plan {
    let mut stages: Vec<PlannedStage> = Vec::new();
    for stage in &pipeline.stages {
        let parent = stage.parent.as_ref().and_then(|parent| stages.iter().find(|s| s.name == *parent));
        let step = match parent.map(|parent| &parent.step) {
            None => decide(pipeline, stage, &[], context, checkpoints),
            Some(Step::Hit(checkpoint)) => {
                decide(pipeline, stage, &checkpoint.diff_ids(), context, checkpoints)
            }
            Some(Step::Miss { .. }) => {
                Step::AfterParent(parent.map_or(stage.name.clone(), |p| p.name.clone()))
            }
            Some(Step::AfterParent(ancestor)) => Step::AfterParent(ancestor.clone()),
        };
        stages.push(PlannedStage { name: stage.name.clone(), step });
    }
    Plan { stages }
}

/// Decides about one stage, its parent's layers being known.
pub fn decide(
    pipeline: &Pipeline,
    stage: &Stage,
    parent: &[DiffId],
    context: &BuildContext,
    checkpoints: &impl Checkpoints,
) -> Step {
    if let Some(pinned) = checkpoints.pinned(pipeline, &stage.name) {
        return Step::Hit(Box::new(pinned));
    }
    let inputs = stage_inputs(pipeline, stage, parent, context);
    match checkpoints.by_key(inputs.key()) {
        Some(checkpoint) => Step::Hit(Box::new(checkpoint)),
        None => {
            let changes =
                checkpoints.newest(pipeline, &stage.name).map(|newest| inputs.changes_since(&newest.inputs));
            Step::Miss { inputs, changes }
        }
    }
}
