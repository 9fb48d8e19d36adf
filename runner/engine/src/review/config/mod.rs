//! Who holds which seat, from the environment and `.env`.

mod environment;
mod provider;
mod seats;

pub use environment::{Environment, VARIABLES};
pub use provider::Provider;
pub use seats::{SeatSetting, Seats};

use std::path::PathBuf;

/// What is wrong with the configuration of agents. No value of a key is ever in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the file is no assignment. What it says is not shown: it may be a key.
    #[error("{path}:{number}: this does not read; lines are NAME=value, values with blanks are quoted")]
    NoAssignment {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        number: usize,
    },
    /// A variable has a value that means nothing.
    #[error("{name}: {reason}")]
    Value {
        /// The variable.
        name: String,
        /// What it should be.
        reason: String,
    },
}

impl ConfigError {
    fn value(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value { name: name.into(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
