//! The seats of a review: who holds them, how they are asked, what that costs. It knows the core only.

mod cache;
mod config;
mod council;
mod http;
mod ledger;

pub use cache::Cache;
pub use config::{ConfigError, Environment, Provider, SeatSetting, Seats, VARIABLES};
pub use council::{Attempt, Council, Deliberation, Held, Holder, Outcome, SeatReport};
pub use http::{Ask, HttpAsk};
pub use ledger::{Ledger, Spent};

#[cfg(test)]
mod tests;
