//! What recovery has done in a build so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use isokiln_core::names::StageName;
use isokiln_core::review::{Action, Attempt};

use super::recover::Again;

/// What recovery has done in a build so far.
#[derive(Debug, Default)]
pub(super) struct Recovery(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Cures that were tried, the oldest first.
    tried: Vec<Attempt>,
    /// Stages whose checkpoints are not trusted any more.
    distrusted: BTreeSet<StageName>,
    stages: BTreeMap<StageName, History>,
}

/// A stage in this build, through all its rounds.
#[derive(Debug, Default)]
struct History {
    /// How often its script was begun.
    attempts: usize,
    /// Whether its checkpoint was made.
    made: bool,
    /// What it has to do without from now on.
    again: Again,
    /// The cure that is being tried, and against what.
    cure: Option<(String, Action)>,
}

impl Recovery {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cures that were tried, the oldest first.
    pub(super) fn tried(&self) -> Vec<Attempt> {
        self.state().tried.clone()
    }

    /// A cure is tried.
    pub(super) fn begin_cure(&self, attempt: Attempt) {
        let mut state = self.state();
        let cure = Some((attempt.signature.clone(), attempt.action));
        state.stages.entry(attempt.stage.clone()).or_default().cure = cure;
        state.tried.push(attempt);
    }

    /// The outcome of the cure that is being tried is known.
    pub(super) fn end_cure(&self, stage: &StageName) -> Option<(String, Action)> {
        self.state().stages.get_mut(stage)?.cure.take()
    }

    /// A stage's checkpoint is not trusted any more.
    pub(super) fn distrust(&self, stage: &StageName) {
        self.state().distrusted.insert(stage.clone());
    }

    /// Stages that run though their checkpoints are there, with those on top of them.
    pub(super) fn distrusted(&self) -> BTreeSet<StageName> {
        self.state().distrusted.clone()
    }

    /// A stage's checkpoint was made, and is trusted.
    pub(super) fn made(&self, stage: &StageName) {
        let mut state = self.state();
        state.distrusted.remove(stage);
        state.stages.entry(stage.clone()).or_default().made = true;
    }

    /// Whether this build has made a stage's checkpoint.
    pub(super) fn was_made(&self, stage: &StageName) -> bool {
        self.state().stages.get(stage).is_some_and(|history| history.made)
    }

    /// How a stage is run from now on, also in a later round.
    pub(super) fn again(&self, stage: &StageName) -> Again {
        self.state().stages.get(stage).map(|history| history.again.clone()).unwrap_or_default()
    }

    /// What a stage does without, it does without in later rounds too.
    pub(super) fn keep(&self, stage: &StageName, again: &Again) {
        let again = Again { fresh_cache: false, without: again.without.clone() };
        self.state().stages.entry(stage.clone()).or_default().again = again;
    }

    /// A stage's script begins; gives the how manyeth time in this build that is, from 1.
    pub(super) fn begin(&self, stage: &StageName) -> usize {
        let mut state = self.state();
        let history = state.stages.entry(stage.clone()).or_default();
        history.attempts += 1;
        history.attempts
    }
}
