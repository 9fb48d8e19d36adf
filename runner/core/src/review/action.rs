//! What may be done about a failed stage: a closed set.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is done about a stage, the safest first: of two that are proposed, the smaller one is the safer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// End the build, with everything kept for a person.
    Stop,
    /// Nothing: there is nothing to do.
    None,
    /// Run the stage again, after a pause.
    Retry,
    /// Run it again without what was fetched before.
    CleanCache,
    /// Run it again with the next archive mirror.
    RefreshMirror,
    /// Run the stage before it again too: what it left cannot be trusted.
    Rollback,
    /// Run it again without the optional package that failed.
    SkipOptional,
}

impl Action {
    /// All of them, the safest first.
    pub const ALL: [Self; 7] = [
        Self::Stop,
        Self::None,
        Self::Retry,
        Self::CleanCache,
        Self::RefreshMirror,
        Self::Rollback,
        Self::SkipOptional,
    ];

    /// Its name in rules, replies and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::None => "none",
            Self::Retry => "retry",
            Self::CleanCache => "clean-cache",
            Self::RefreshMirror => "refresh-mirror",
            Self::Rollback => "rollback",
            Self::SkipOptional => "skip-optional",
        }
    }

    /// Whether it runs the stage again.
    pub fn runs_again(self) -> bool {
        self > Self::None
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an action; there are stop, none, retry, clean-cache, refresh-mirror, rollback and skip-optional"
)]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL
            .into_iter()
            .find(|action| action.name() == text)
            .ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_ordered_by_safety_and_read_back() {
        assert!(Action::ALL.is_sorted());
        for action in Action::ALL {
            assert_eq!(action.name().parse(), Ok(action));
            assert_eq!(serde_json::to_value(action).unwrap(), action.name());
        }
        assert!("delete-lock".parse::<Action>().is_err());
        let again: Vec<_> = Action::ALL.into_iter().filter(|action| action.runs_again()).collect();
        assert_eq!(again.len(), 5);
    }
}
