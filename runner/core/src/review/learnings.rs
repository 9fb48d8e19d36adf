//! What earlier runs have taught: which action has helped against what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::Action;

/// Outcomes of actions, by what they were taken against. They order the actions that are allowed, and never add any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Learnings(BTreeMap<String, BTreeMap<Action, Outcomes>>);

/// How often an action has helped, and how often it has not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The stage then ended well, or failed for another reason.
    pub helped: u32,
    /// The stage failed for the same reason again.
    pub failed: u32,
}

impl Learnings {
    /// An action's outcome is known.
    pub fn note(&mut self, signature: &str, action: Action, helped: bool) {
        let outcomes = self.0.entry(signature.to_owned()).or_default().entry(action).or_default();
        let count = if helped { &mut outcomes.helped } else { &mut outcomes.failed };
        *count = count.saturating_add(1);
    }

    /// How many kinds of failure it is about.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was learnt.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same actions, those first that have helped more often than not; otherwise as they are given.
    pub fn order(&self, signature: &str, actions: &[Action]) -> Vec<Action> {
        let score = |action: &Action| {
            let outcomes = self.0.get(signature).and_then(|of| of.get(action)).copied().unwrap_or_default();
            i64::from(outcomes.failed) - i64::from(outcomes.helped)
        };
        let mut ordered = actions.to_vec();
        ordered.sort_by_key(score);
        ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_helped_comes_first_and_nothing_is_added() {
        let mut learnings = Learnings::default();
        let allowed = [Action::CleanCache, Action::Retry, Action::RefreshMirror];
        assert_eq!(learnings.order("apt", &allowed), allowed);
        learnings.note("apt", Action::CleanCache, false);
        learnings.note("apt", Action::RefreshMirror, true);
        learnings.note("apt", Action::Rollback, true);
        assert_eq!(
            learnings.order("apt", &allowed),
            [Action::RefreshMirror, Action::Retry, Action::CleanCache]
        );
        assert_eq!(learnings.order("dpkg", &allowed), allowed);
        let json = serde_json::to_string(&learnings).unwrap();
        assert_eq!(serde_json::from_str::<Learnings>(&json).unwrap(), learnings);
        assert!(json.contains(r#""clean-cache":{"helped":0,"failed":1}"#), "{json}");
    }
}
