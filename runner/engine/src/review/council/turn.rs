//! One seat's turn: its provider, then others, until somebody votes.

use std::time::Duration;

use isokiln_core::review::{Permit, Question, Seat, Vote};
use tokio::time::{Instant, sleep};

use super::super::Provider;
use super::Council;
use super::chance::jittered;
use super::record::{Attempt, Outcome};
use super::table::Table;

/// Answers that do not count before the rules take the seat.
const VOID_ANSWERS: u32 = 2;
/// The part of the time left that may be waited for somebody.
const LONGEST_WAIT: f64 = 0.75;

/// One seat's turn.
pub(super) struct Turn<'a> {
    pub(super) council: &'a Council,
    /// Already redacted.
    pub(super) question: &'a Question,
    pub(super) table: &'a Table,
    pub(super) seat: Seat,
    pub(super) own: Option<usize>,
    pub(super) end: Instant,
}

/// What a provider gave.
pub(super) enum Heard {
    /// A vote.
    Vote(Box<Vote>),
    /// An answer that does not count.
    Void,
    /// No answer, but perhaps one after the time that it asks for.
    Later,
    /// No answer.
    Nothing,
}

impl Turn<'_> {
    /// Asks until somebody votes; `None` leaves the seat to the rules.
    pub(super) async fn take(self) -> Option<Vote> {
        let mut tried = Vec::new();
        let mut late = Vec::new();
        let mut void = 0;
        while void < VOID_ANSWERS
            && let Some(index) = self.pick(&mut tried).await
        {
            match self.hear(index, &tried).await {
                Heard::Vote(vote) => {
                    self.table.taken().voted.push(index);
                    return Some(*vote);
                }
                Heard::Void => void += 1,
                Heard::Later if !late.contains(&index) => {
                    late.push(index);
                    tried.retain(|other| *other != index);
                }
                Heard::Later => {}
                Heard::Nothing => {}
            }
        }
        None
    }

    /// Who is asked next: the seat's own provider, then those that nobody asks, then those whose voice is not heard
    /// yet. One that wants to be left alone for a moment is waited for only if there is nobody else.
    async fn pick(&self, tried: &mut Vec<usize>) -> Option<usize> {
        let mut waits: Vec<(Duration, usize)> = Vec::new();
        for index in self.order(tried) {
            match self.permit(index) {
                Permit::Go => return Some(self.claim(index, tried)),
                Permit::Wait(wait) => waits.push((wait, index)),
                Permit::Never => {
                    tried.push(index);
                    self.note(index, Outcome::Skipped, "it is of no use in this build");
                }
            }
        }
        waits.sort();
        for (wait, index) in waits {
            let left = self.left();
            if wait <= left.mul_f64(LONGEST_WAIT) {
                // There is nobody else, so it may take most of what is left.
                sleep(jittered(wait).min(left.mul_f64(LONGEST_WAIT).max(wait))).await;
                if self.permit(index) == Permit::Go {
                    return Some(self.claim(index, tried));
                }
            }
            tried.push(index);
            self.note(index, Outcome::Skipped, "it is left alone for now");
        }
        None
    }

    fn order(&self, tried: &[usize]) -> Vec<usize> {
        if self.left().is_zero() {
            return Vec::new();
        }
        let taken = self.table.taken();
        let others = (0..self.council.seats.providers.len()).filter(|index| Some(*index) != self.own);
        let (asked, free): (Vec<_>, Vec<_>) = others.partition(|index| taken.asked.contains(index));
        let all = self.own.into_iter().chain(free).chain(asked);
        all.filter(|index| !tried.contains(index) && !taken.voted.contains(index)).collect()
    }

    fn claim(&self, index: usize, tried: &mut Vec<usize>) -> usize {
        tried.push(index);
        self.table.taken().asked.push(index);
        index
    }

    /// Until when a call may take: half of what is left while somebody else could still be asked.
    pub(super) fn limit(&self, tried: &[usize]) -> Instant {
        let left = self.left();
        let now = self.council.now();
        let may_help = |index: &usize| match self.council.state().breakers[*index].peek(now) {
            Permit::Go => true,
            Permit::Wait(wait) => wait <= left / 4,
            Permit::Never => false,
        };
        Instant::now() + if self.order(tried).iter().any(may_help) { left / 2 } else { left }
    }

    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    pub(super) fn permit(&self, index: usize) -> Permit {
        let now = self.council.now();
        self.council.state().breakers[index].permit(now)
    }

    pub(super) fn provider(&self, index: usize) -> &Provider {
        &self.council.seats.providers[index]
    }

    /// Begins the record of a call; returns where it is.
    pub(super) fn note(&self, index: usize, outcome: Outcome, why: &str) -> usize {
        let provider = self.provider(index);
        self.table.begin(Attempt {
            seat: self.seat,
            provider: provider.name.clone(),
            model: provider.endpoint.model.clone(),
            outcome,
            why: why.to_owned(),
            millis: 0,
            tokens: 0,
            cost: None,
            cached: false,
        })
    }
}
