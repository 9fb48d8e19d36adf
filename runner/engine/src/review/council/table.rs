//! What the seats share while one question is asked: the record, and who is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::{Attempt, Outcome};

/// What the seats share while one question is asked.
pub(super) struct Table {
    attempts: Mutex<Vec<Attempt>>,
    taken: Mutex<Taken>,
}

/// Which providers are taken, by their index.
#[derive(Default)]
pub(super) struct Taken {
    /// Some seat is asking or has asked them.
    pub(super) asked: Vec<usize>,
    /// They have voted: another vote of theirs would not be another voice.
    pub(super) voted: Vec<usize>,
}

impl Table {
    /// A table at which these providers have their own seats.
    pub(super) fn new(asked: Vec<usize>) -> Self {
        Self { attempts: Mutex::default(), taken: Mutex::new(Taken { asked, voted: Vec::new() }) }
    }

    /// The record.
    pub(super) fn into_attempts(self) -> Vec<Attempt> {
        self.attempts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the record of a call; returns where it is.
    pub(super) fn begin(&self, attempt: Attempt) -> usize {
        let mut attempts = self.attempts();
        attempts.push(attempt);
        attempts.len() - 1
    }

    /// Adds to the record of a call.
    pub(super) fn change(&self, slot: usize, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts().get_mut(slot) {
            change(attempt);
        }
    }

    /// Ends the record of a call.
    pub(super) fn end(&self, slot: usize, outcome: Outcome, why: String) {
        self.change(slot, |attempt| (attempt.outcome, attempt.why) = (outcome, why));
    }

    /// Poison means that a panic is already on its way; what is here is still good.
    fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is taken.
    pub(super) fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
