//! What may be done about a failed stage, whoever proposes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Action;
use crate::names::StageName;

/// Times that one stage is run again in a build.
pub const PER_STAGE: usize = 3;
/// Times that stages are run again in a build.
pub const PER_BUILD: usize = 8;
/// The pause before the first retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Who decides whether a stage is run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recover {
    /// The policy.
    #[default]
    Auto,
    /// The policy, and a person who is asked each time.
    Ask,
    /// Nobody: a failed stage ends the build.
    Off,
}

/// A cure that was tried in this build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// For which stage.
    pub stage: StageName,
    /// Against what.
    pub signature: String,
    /// The cure.
    pub action: Action,
}

/// What a review proposes to do about a failed stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal<'p> {
    /// The stage.
    pub stage: &'p StageName,
    /// What failures of this kind have in common.
    pub signature: &'p str,
    /// What the review has agreed on.
    pub action: Action,
    /// What the rules allow, the best first, as earlier runs have taught.
    pub allowed: &'p [Action],
    /// What can be done at all here and now: there is another mirror, an optional package, a stage before.
    pub possible: &'p [Action],
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The stage is run again, after a pause.
    Act {
        /// How.
        action: Action,
        /// Wait for so long first.
        pause: Duration,
    },
    /// The build ends.
    Stop {
        /// Why nothing is done, in one line.
        reason: String,
    },
}

/// Decides what is done about a failed stage: what the review has agreed on, or else the next that is allowed; never
/// the same cure twice against the same, and never more than the bounds.
pub fn decide(proposal: &Proposal<'_>, tried: &[Attempt]) -> Decision {
    let stop = |reason: String| Decision::Stop { reason };
    let of_stage: Vec<_> = tried.iter().filter(|attempt| attempt.stage == *proposal.stage).collect();
    if !proposal.action.runs_again() {
        return stop("nothing that isokiln may do would help".to_owned());
    }
    if of_stage.len() >= PER_STAGE {
        return stop(format!("the stage was run again {PER_STAGE} times already"));
    }
    if tried.len() >= PER_BUILD {
        return stop(format!("stages were run again {PER_BUILD} times in this build already"));
    }
    let was_tried = |action: &Action| {
        of_stage.iter().any(|attempt| attempt.signature == proposal.signature && attempt.action == *action)
    };
    let next = [proposal.action]
        .into_iter()
        .chain(proposal.allowed.iter().copied())
        .filter(|action| action.runs_again() && proposal.allowed.contains(action))
        .find(|action| proposal.possible.contains(action) && !was_tried(action));
    match next {
        Some(action) => {
            let doubled = 1 << of_stage.len().min(16);
            Decision::Act { action, pause: (FIRST_PAUSE * doubled).min(LONGEST_PAUSE) }
        }
        None => {
            let mut names: Vec<_> =
                proposal.allowed.iter().filter(|action| was_tried(action)).map(|a| a.name()).collect();
            names.dedup();
            stop(if names.is_empty() {
                format!("{} would help, but is not possible here", proposal.action)
            } else {
                format!("what may be done about it was tried: {}", names.join(", "))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(stage: &str, signature: &str, action: Action) -> Attempt {
        Attempt { stage: stage.parse().unwrap(), signature: signature.into(), action }
    }

    fn decided(
        action: Action,
        allowed: &[Action],
        possible: &[Action],
        tried: &[Attempt],
    ) -> Result<Action, String> {
        let stage = "base".parse().unwrap();
        let proposal = Proposal { stage: &stage, signature: "apt-404", action, allowed, possible };
        match decide(&proposal, tried) {
            Decision::Act { action, .. } => Ok(action),
            Decision::Stop { reason } => Err(reason),
        }
    }

    #[test]
    fn the_next_allowed_cure_follows_one_that_did_not_help() {
        let allowed = [Action::CleanCache, Action::Retry, Action::RefreshMirror];
        let mut tried = Vec::new();
        for expected in allowed {
            assert_eq!(decided(Action::CleanCache, &allowed, &allowed, &tried), Ok(expected));
            tried.push(attempt("base", "apt-404", expected));
        }
        assert!(
            decided(Action::CleanCache, &allowed, &allowed, &tried).unwrap_err().contains("3 times already")
        );
        let two = [Action::CleanCache, Action::Retry];
        let reason = decided(Action::Retry, &two, &two, &tried[..2]).unwrap_err();
        assert_eq!(reason, "what may be done about it was tried: clean-cache, retry");
    }

    #[test]
    fn what_is_not_allowed_or_not_possible_is_not_done() {
        let allowed = [Action::RefreshMirror, Action::Retry];
        assert_eq!(decided(Action::Rollback, &allowed, &Action::ALL, &[]), Ok(Action::RefreshMirror));
        assert_eq!(decided(Action::RefreshMirror, &allowed, &[Action::Retry], &[]), Ok(Action::Retry));
        assert!(decided(Action::RefreshMirror, &allowed[..1], &[Action::Retry], &[]).is_err());
        assert!(decided(Action::Stop, &allowed, &Action::ALL, &[]).is_err());
    }

    #[test]
    fn bounds_hold_and_pauses_grow() {
        let elsewhere: Vec<_> =
            (0..PER_BUILD).map(|n| attempt(&format!("s{n}"), "x", Action::Retry)).collect();
        assert!(decided(Action::Retry, &[Action::Retry], &Action::ALL, &elsewhere).is_err());
        assert_eq!(
            decided(Action::Retry, &[Action::Retry], &Action::ALL, &elsewhere[1..]),
            Ok(Action::Retry)
        );
        let stage = "base".parse().unwrap();
        let tried = [attempt("base", "x", Action::Retry), attempt("base", "y", Action::Retry)];
        let allowed = [Action::Retry];
        let proposal = Proposal {
            stage: &stage,
            signature: "z",
            action: Action::Retry,
            allowed: &allowed,
            possible: &allowed,
        };
        let pause = |tried| match decide(&proposal, tried) {
            Decision::Act { pause, .. } => pause.as_secs(),
            Decision::Stop { reason } => panic!("{reason}"),
        };
        assert_eq!((pause(&tried[..0]), pause(&tried[..1]), pause(&tried)), (2, 4, 8));
    }
}
