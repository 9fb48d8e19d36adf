//! The time of day, as an edge: tests have their own.

use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970.
    fn nanoseconds(&self) -> u128;

    /// Seconds since 1970.
    fn seconds(&self) -> i64 {
        i64::try_from(self.nanoseconds() / 1_000_000_000).unwrap_or(i64::MAX)
    }
}

/// The real one.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn nanoseconds(&self) -> u128 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos())
    }
}
