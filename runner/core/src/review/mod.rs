//! Reviewing what a stage printed: from a log to a cause, from a cause to what may be done about it.

mod action;
mod breaker;
mod budget;
mod consensus;
mod excerpt;
mod prompt;
mod redact;
mod seat;
mod secret;
mod vote;
pub mod wire;

pub use action::{Action, UnknownAction};
pub use breaker::{Breaker, Permit};
pub use budget::{Budget, Cost, Limits, Reservation, cost_of};
pub use consensus::{Consensus, How, RulesVote, agree, is_decided};
pub use excerpt::{Excerpt, ExcerptLine, MOST_BYTES};
pub use prompt::{MarkerUnfit, Prompt, Question, prompt};
pub use redact::redact;
pub use seat::{Seat, UnknownSeat};
pub use secret::Secret;
pub use vote::{InvalidVote, Reading, Vote, read_vote};
