//! What agents may use in one build: tokens and money.

use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Money, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cost(pub u64);

impl Cost {
    /// From dollars; what is less than a millionth counts as one.
    pub fn from_dollars(dollars: f64) -> Self {
        // A cast of a float stops at the bounds of the integer.
        Self((dollars * 1e6 - 1e-9).ceil().max(0.0) as u64)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04} USD", self.0 / 1_000_000, self.0 % 1_000_000 / 100)
    }
}

/// Dollars for a million tokens read and a million written, by the beginning of the model's name. Lists of 2026;
/// a price that changed makes the figure wrong, not the limit on tokens. The longest beginning counts.
const PRICES: &[(&str, f64, f64)] = &[
    ("claude-haiku-4-5", 1.0, 5.0),
    ("claude-opus", 5.0, 25.0),
    ("claude-sonnet", 3.0, 15.0),
    ("gemini-2.5-flash", 0.3, 2.5),
    ("gemini-2.5-flash-lite", 0.1, 0.4),
    ("gemini-2.5-pro", 1.25, 10.0),
    ("gemini-3-flash", 0.5, 3.0),
    ("gemini-3.5-flash", 1.5, 9.0),
    ("gemini-flash", 1.5, 9.0),
    ("grok-3-mini", 0.3, 0.5),
    ("grok-4", 3.0, 15.0),
    ("grok-4-1-fast", 0.2, 0.5),
    ("llama-3.1-8b", 0.05, 0.08),
    ("llama-3.3-70b", 0.59, 0.79),
    ("mistral-large", 2.0, 6.0),
    ("mistral-medium", 0.4, 2.0),
    ("mistral-small", 0.15, 0.6),
    ("openai/gpt-oss-120b", 0.15, 0.6),
    ("openai/gpt-oss-20b", 0.075, 0.3),
];

/// What so many tokens of a model cost; `None` for a model whose price is not known.
pub fn cost_of(model: &str, tokens_in: u64, tokens_out: u64) -> Option<Cost> {
    let known = PRICES.iter().filter(|(prefix, _, _)| model.starts_with(prefix));
    let (_, read, written) = known.max_by_key(|(prefix, _, _)| prefix.len())?;
    // Millionths for a token are dollars for a million of them.
    Some(Cost((tokens_in as f64 * read + tokens_out as f64 * written).ceil() as u64))
}

/// The most that one build may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Tokens, read and written.
    pub tokens: u64,
    /// Money.
    pub cost: Cost,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tokens: 200_000, cost: Cost(1_000_000) }
    }
}

/// What is left for a build. A call reserves what it may need and settles for what it did: a call that is given up
/// stays reserved, because the provider counts it too.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    limits: Limits,
    tokens: u64,
    cost: Cost,
}

/// What a call may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "settle it, or it stays spent"]
pub struct Reservation {
    tokens: u64,
    cost: Cost,
}

impl Budget {
    /// A budget that nothing was taken from.
    pub fn new(limits: Limits) -> Self {
        Self { limits, tokens: 0, cost: Cost(0) }
    }

    /// Sets aside what a call may use; `None` if that is more than there is.
    pub fn reserve(&mut self, model: &str, tokens_in: u64, tokens_out: u64) -> Option<Reservation> {
        let tokens = tokens_in.saturating_add(tokens_out);
        let cost = cost_of(model, tokens_in, tokens_out).unwrap_or_default();
        let fits =
            self.tokens.saturating_add(tokens) <= self.limits.tokens && self.cost + cost <= self.limits.cost;
        if !fits {
            return None;
        }
        self.tokens += tokens;
        self.cost += cost;
        Some(Reservation { tokens, cost })
    }

    /// Puts what a call really used in place of what it had reserved.
    pub fn settle(
        &mut self,
        reserved: Reservation,
        model: &str,
        tokens_in: u64,
        tokens_out: u64,
    ) -> Option<Cost> {
        let cost = cost_of(model, tokens_in, tokens_out);
        self.tokens = self.tokens.saturating_sub(reserved.tokens).saturating_add(tokens_in + tokens_out);
        self.cost = Cost(self.cost.0.saturating_sub(reserved.cost.0)) + cost.unwrap_or_default();
        cost
    }

    /// Tokens used and reserved.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Money used and reserved, as far as prices are known.
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_per_million_and_the_longest_name_counts() {
        assert_eq!(cost_of("claude-haiku-4-5-20251001", 1_000_000, 1_000_000), Some(Cost(6_000_000)));
        assert_eq!(cost_of("gemini-2.5-flash-lite", 1_000_000, 0), Some(Cost(100_000)));
        assert_eq!(cost_of("mistral-small-latest", 1, 0), Some(Cost(1)), "rounded up");
        assert_eq!(cost_of("qwen3:8b", 5, 5), None);
        assert_eq!(Cost(1_234_567).to_string(), "1.2345 USD");
        assert_eq!(Cost::from_dollars(0.25), Cost(250_000));
    }

    #[test]
    fn a_build_stops_asking_when_either_is_used_up() {
        let mut budget = Budget::new(Limits { tokens: 10_000, cost: Cost::from_dollars(0.01) });
        let first = budget.reserve("claude-haiku-4-5", 4_000, 1_000).unwrap();
        assert!(budget.reserve("claude-haiku-4-5", 4_000, 1_000).is_none(), "too dear");
        let second = budget.reserve("qwen3:8b", 4_000, 1_000).unwrap();
        assert!(budget.reserve("qwen3:8b", 1, 0).is_none(), "too many");
        assert_eq!(budget.settle(first, "claude-haiku-4-5", 3_000, 100), Some(Cost(3_500)));
        assert_eq!(budget.settle(second, "qwen3:8b", 3_000, 100), None);
        assert_eq!((budget.tokens(), budget.cost()), (6_200, Cost(3_500)));
    }

    #[test]
    fn a_call_given_up_stays_spent() {
        let mut budget = Budget::new(Limits::default());
        let reserved = budget.reserve("x", 100, 50);
        assert!(reserved.is_some());
        assert_eq!(budget.tokens(), 150);
    }
}
