//! What recovery has done in a build so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use isokiln_core::names::StageName;
use isokiln_core::review::Attempt;

/// What recovery has done in a build so far.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    tried: Mutex<Vec<Attempt>>,
    /// Stages whose checkpoints are not trusted any more.
    distrusted: Mutex<BTreeSet<StageName>>,
    /// How often each stage's script was begun.
    attempts: Mutex<BTreeMap<StageName, usize>>,
}

impl Recovery {
    /// Cures that were tried, the oldest first.
    pub(super) fn tried(&self) -> Vec<Attempt> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A cure is tried.
    pub(super) fn note(&self, attempt: Attempt) {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }

    /// A stage's checkpoint is not trusted any more.
    pub(super) fn distrust(&self, stage: &StageName) {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).insert(stage.clone());
    }

    /// Stages that run though their checkpoints are there, with those on top of them.
    pub(super) fn distrusted(&self) -> BTreeSet<StageName> {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A stage was made anew and is trusted again.
    pub(super) fn trust(&self, stage: &StageName) {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).remove(stage);
    }

    /// Whether a stage has run in this build.
    pub(super) fn was_run(&self, stage: &StageName) -> bool {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(stage)
    }

    /// A stage's script begins; gives the how manyeth time in this build that is, from 1.
    pub(super) fn begin(&self, stage: &StageName) -> usize {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = attempts.entry(stage.clone()).or_default();
        *count += 1;
        *count
    }
}
