//! Asking the seats, with one deadline for all of them.

mod call;
mod chance;
mod probe;
mod record;
mod table;
mod turn;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use isokiln_core::review::{Breaker, Budget, Cost, Question, Vote, is_decided};
use tokio::time::Instant;

pub use probe::SeatReport;
pub use record::{Attempt, Deliberation, Held, Holder, Outcome};
use table::Table;
use turn::Turn;

use super::{Ask, Cache, Ledger, SeatSetting, Seats};

/// The seats of one build: who is asked, how they have fared, what is left to spend.
pub struct Council {
    seats: Seats,
    ask: Arc<dyn Ask>,
    cache: Option<Cache>,
    ledger: Option<Ledger>,
    since: Instant,
    state: Mutex<State>,
}

/// What changes while a build goes on.
struct State {
    /// One for each provider.
    breakers: Vec<Breaker>,
    budget: Budget,
}

impl Council {
    /// The seats of a build that begins now.
    pub fn new(seats: Seats, ask: Arc<dyn Ask>, cache: Option<Cache>, ledger: Option<Ledger>) -> Self {
        let state = State {
            breakers: vec![Breaker::default(); seats.providers.len()],
            budget: Budget::new(seats.limits),
        };
        Self { seats, ask, cache, ledger, since: Instant::now(), state: Mutex::new(state) }
    }

    /// How it is configured.
    pub fn seats(&self) -> &Seats {
        &self.seats
    }

    /// Whether anybody can be asked at all.
    pub fn can_ask(&self) -> bool {
        self.seats.can_ask()
    }

    /// Tokens and money that this build has used, reserved ones included.
    pub fn used(&self) -> (u64, Cost) {
        let state = self.state();
        (state.budget.tokens(), state.budget.cost())
    }

    /// Puts a question to all seats and returns by the deadline with what they said: as soon as two voices agree,
    /// or when nobody is left to wait for.
    pub async fn ask(&self, question: &Question, deadline: Duration) -> Deliberation {
        let begin = Instant::now();
        let end = begin + deadline;
        let question = question.redacted();
        // Without a choice or without a line to quote, no vote could count.
        let can_vote = !question.allowed.is_empty() && !question.excerpt.lines.is_empty();
        let open: Vec<&SeatSetting> = self.seats.seats.iter().filter(|seat| seat.open && can_vote).collect();
        let table = Table::new(open.iter().filter_map(|seat| seat.own).collect());
        let turn = |setting: &SeatSetting, end| Turn {
            council: self,
            question: &question,
            table: &table,
            seat: setting.seat,
            own: setting.own,
            end,
        };
        let mut votes: Vec<Vote> = Vec::new();
        let mut done = Vec::new();
        if self.seats.parallel {
            let mut turns: FuturesUnordered<_> = open
                .iter()
                .map(|setting| async { (setting.seat, turn(setting, end).take().await) })
                .collect();
            while let Some((seat, vote)) = turns.next().await {
                done.push(seat);
                votes.extend(vote);
                if is_decided(&votes) {
                    break;
                }
            }
        } else {
            for (index, setting) in open.iter().enumerate() {
                let left = end.saturating_duration_since(Instant::now());
                let share = left / u32::try_from(open.len() - index).unwrap_or(1);
                votes.extend(turn(setting, Instant::now() + share).take().await);
                done.push(setting.seat);
                if is_decided(&votes) {
                    break;
                }
            }
        }
        votes.sort_by_key(|vote| vote.seat);
        let attempts = table.into_attempts();
        let holder = |setting: &SeatSetting| {
            let own = setting.own.map(|index| self.seats.providers[index].name.as_str());
            record::holder(setting, own, &votes, can_vote && !done.contains(&setting.seat))
        };
        let holders = self.seats.seats.iter().map(holder).collect();
        Deliberation { votes, attempts, holders, millis: record::millis(begin.elapsed()) }
    }

    /// Poison means that a panic is already on its way; the figures are still good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the build began.
    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}
