//! Mirrors and a person who answer as a test says.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use isokiln_core::archive::ArchiveState;

use crate::run::{Consent, Mirrors};

/// Mirrors that take one another's place in order.
#[derive(Default)]
pub(super) struct FakeMirrors {
    next: Mutex<Vec<ArchiveState>>,
    pub(super) offset: Mutex<Option<i64>>,
}

impl FakeMirrors {
    /// These come after the one that the build begins with.
    pub(super) fn have(&self, mut states: Vec<ArchiveState>) {
        states.reverse();
        *locked(&self.next) = states;
    }
}

#[async_trait]
impl Mirrors for FakeMirrors {
    fn has_next(&self, _: &ArchiveState, _: &str) -> bool {
        !locked(&self.next).is_empty()
    }

    async fn next(&self, _: &ArchiveState, _: &str) -> Option<ArchiveState> {
        locked(&self.next).pop()
    }

    async fn clock_offset(&self, _: &ArchiveState) -> Option<i64> {
        *locked(&self.offset)
    }
}

/// A person who gives the same answer to every question.
#[derive(Default)]
pub(super) struct FakeConsent {
    pub(super) answer: Mutex<Option<bool>>,
    pub(super) questions: Mutex<Vec<String>>,
}

#[async_trait]
impl Consent for FakeConsent {
    async fn ask(&self, question: &str) -> Option<bool> {
        locked(&self.questions).push(question.to_owned());
        *locked(&self.answer)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
