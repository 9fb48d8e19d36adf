//! What is kept of a question to the seats.

use std::time::Duration;

use isokiln_core::review::{Consensus, Cost, RulesVote, Seat, Vote, agree};
use serde::{Deserialize, Serialize};

use super::super::SeatSetting;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With a vote that counts.
    Voted,
    /// With an answer that does not.
    Invalid,
    /// Without one.
    Failed,
    /// It was not made: the circuit is open, or the budget used up.
    Skipped,
    /// Others had agreed before it ended.
    NotAwaited,
}

/// One call, or why it was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// For which seat.
    pub seat: Seat,
    /// Who was asked.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in words; empty for a vote.
    pub why: String,
    /// How long it took.
    pub millis: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// Money, if the price is known.
    pub cost: Option<Cost>,
    /// The answer was given to the same question before.
    pub cached: bool,
}

/// Who spoke for a seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// The provider that was meant to.
    Own(String),
    /// Another provider, because that one is missing or did not answer.
    Other(String),
    /// Nobody answered with something that counts: the rules.
    Rules,
    /// Nobody was waited for, because others had agreed.
    NotAwaited,
    /// The seat takes no part.
    Closed,
}

/// A seat and who spoke for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The seat.
    pub seat: Seat,
    /// Who spoke for it.
    pub held: Held,
}

/// What came of a question to the seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliberation {
    /// Votes that count, by seat.
    pub votes: Vec<Vote>,
    /// Every call, in the order in which they were made.
    pub attempts: Vec<Attempt>,
    /// Who spoke for which seat.
    pub holders: Vec<Holder>,
    /// How long it took.
    pub millis: u64,
}

impl Deliberation {
    /// What is done, with the rules as a voice and as the bounds.
    pub fn consensus(&self, rules: &RulesVote) -> Consensus {
        agree(&self.votes, rules)
    }

    /// Tokens of all calls.
    pub fn tokens(&self) -> u64 {
        self.attempts.iter().map(|attempt| attempt.tokens).sum()
    }

    /// Money of all calls, as far as prices are known.
    pub fn cost(&self) -> Cost {
        self.attempts.iter().filter_map(|attempt| attempt.cost).fold(Cost(0), |sum, cost| sum + cost)
    }
}

pub(super) fn holder(setting: &SeatSetting, own: Option<&str>, votes: &[Vote], not_awaited: bool) -> Holder {
    let seat = setting.seat;
    let vote = votes.iter().find(|vote| vote.seat == seat);
    let held = match vote {
        Some(vote) if own == Some(vote.provider.as_str()) => Held::Own(vote.provider.clone()),
        Some(vote) => Held::Other(vote.provider.clone()),
        None if !setting.open => Held::Closed,
        None if not_awaited => Held::NotAwaited,
        None => Held::Rules,
    };
    Holder { seat, held }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
