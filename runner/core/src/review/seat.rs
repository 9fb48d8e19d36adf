//! The three seats of a review.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who looks at a log, each from another side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Seat {
    /// Strategy, code review.
    C1,
    /// Technical analysis, quality assurance.
    C2,
    /// Performance, resources.
    C3,
}

impl Seat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::C1, Self::C2, Self::C3];

    /// Its name in variables and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::C3 => "C3",
        }
    }

    /// What it looks at, in a few words.
    pub fn role(self) -> &'static str {
        match self {
            Self::C1 => "strategy, code review",
            Self::C2 => "technical analysis, quality assurance",
            Self::C3 => "performance, resources",
        }
    }

    /// What it is told to look at.
    pub fn duty(self) -> &'static str {
        match self {
            Self::C1 => {
                "You look at the stage as a whole: whether its script, its packages and its order can be right \
                 at all, or whether somebody has to change the pipeline."
            }
            Self::C2 => {
                "You look at the technical cause: which program failed first, on what, and which lines are only \
                 what followed from it."
            }
            Self::C3 => {
                "You look at resources: disk, memory, time, network, load, and whether another try could find \
                 them in a better state."
            }
        }
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no seat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a seat; there are C1, C2 and C3")]
pub struct UnknownSeat(String);

impl FromStr for Seat {
    type Err = UnknownSeat;

    fn from_str(text: &str) -> Result<Self, UnknownSeat> {
        Self::ALL.into_iter().find(|seat| seat.name() == text).ok_or_else(|| UnknownSeat(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_read_back() {
        for seat in Seat::ALL {
            assert_eq!(seat.name().parse(), Ok(seat));
            assert_eq!(serde_json::to_value(seat).unwrap(), seat.name());
            assert!(!seat.role().is_empty() && !seat.duty().is_empty());
        }
        assert!("C4".parse::<Seat>().is_err());
    }
}
