//! From votes to one action.

use serde::{Deserialize, Serialize};

use super::{Action, Vote};

/// What the rules say about a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesVote {
    /// What they would do.
    pub action: Action,
    /// Whether they know the cause.
    pub knows_cause: bool,
    /// What may be done at all.
    pub allowed: Vec<Action>,
}

/// How an action was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Two voices said the same.
    Agreed,
    /// They did not, and the safest was taken.
    Safer,
    /// No seat gave a valid vote.
    RulesAlone,
}

/// What is done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consensus {
    /// What is done; always one of what was allowed, or `stop`.
    pub action: Action,
    /// How it was found.
    pub how: How,
    /// Whether it runs the stage again because agents say so: the rules neither know the cause nor say the same.
    pub on_agents_word: bool,
    /// The votes that counted.
    pub votes: Vec<Vote>,
}

/// Finds what is done. Two voices that say the same decide; otherwise the safest of what was said is taken. A lone
/// voice is held against the rules. Votes of one model of one provider are one voice, its safest: a model that
/// agrees with itself proves nothing.
pub fn agree(votes: &[Vote], rules: &RulesVote) -> Consensus {
    let counted: Vec<Vote> =
        votes.iter().filter(|vote| rules.allowed.contains(&vote.reading.action)).cloned().collect();
    let own = bounded(rules);
    let mut said = voices(&counted);
    let how_many = said.len();
    if how_many == 1 {
        said.push(own);
    }
    let (action, how) = match (twice(&said), said.iter().min()) {
        (Some(action), _) => (action, How::Agreed),
        (None, Some(safest)) => (*safest, How::Safer),
        (None, None) => (own, How::RulesAlone),
    };
    let on_agents_word = action.runs_again() && !rules.knows_cause && action != own;
    Consensus { action, how, on_agents_word, votes: counted }
}

/// Whether two voices already say the same, so that nobody else need be waited for.
pub fn is_decided(votes: &[Vote]) -> bool {
    twice(&voices(votes)).is_some()
}

/// What each voice says: a provider's model, with its safest vote.
fn voices(votes: &[Vote]) -> Vec<Action> {
    let mut voices: Vec<(&Vote, Action)> = Vec::new();
    for vote in votes {
        let same = |other: &Vote| other.provider == vote.provider && other.model == vote.model;
        match voices.iter_mut().find(|(other, _)| same(other)) {
            Some((_, action)) => *action = (*action).min(vote.reading.action),
            None => voices.push((vote, vote.reading.action)),
        }
    }
    voices.into_iter().map(|(_, action)| action).collect()
}

/// The safest action that was said twice.
fn twice(said: &[Action]) -> Option<Action> {
    let count = |action: &Action| said.iter().filter(|other| *other == action).count();
    said.iter().filter(|action| count(action) >= 2).min().copied()
}

/// The rules' action; if they may not do it, the riskiest one that is safer and may be done.
fn bounded(rules: &RulesVote) -> Action {
    let safer = rules.allowed.iter().filter(|action| **action <= rules.action).max();
    safer.or(rules.allowed.iter().min()).copied().unwrap_or(Action::Stop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Reading, Seat};
    use super::*;

    fn vote(provider: &str, action: Action) -> Vote {
        let reading = Reading {
            action,
            quote: "x".into(),
            line: Some(1),
            cause: "c".into(),
            cure: String::new(),
            confidence: None,
        };
        Vote { seat: Seat::C1, provider: provider.into(), model: "m".into(), reading }
    }

    fn rules(action: Action) -> RulesVote {
        RulesVote {
            action,
            knows_cause: false,
            allowed: vec![Action::Stop, Action::Retry, Action::CleanCache],
        }
    }

    fn decide(votes: &[(&str, Action)], own: Action) -> (Action, How) {
        let votes: Vec<_> = votes.iter().map(|(provider, action)| vote(provider, *action)).collect();
        let consensus = agree(&votes, &rules(own));
        (consensus.action, consensus.how)
    }

    #[test]
    fn two_voices_decide_and_without_them_the_safest_is_taken() {
        use Action::{CleanCache, Retry, Stop};
        assert_eq!(decide(&[("a", Retry), ("b", Stop), ("c", Retry)], Stop), (Retry, How::Agreed));
        assert_eq!(decide(&[("a", Retry), ("b", CleanCache)], Stop), (Retry, How::Safer));
        assert_eq!(decide(&[("a", Retry), ("b", CleanCache), ("c", Stop)], Retry), (Stop, How::Safer));
        assert_eq!(decide(&[("a", Retry)], Retry), (Retry, How::Agreed), "the rules are the second voice");
        assert_eq!(decide(&[("a", CleanCache)], Retry), (Retry, How::Safer));
        assert_eq!(decide(&[], Retry), (Retry, How::RulesAlone));
    }

    #[test]
    fn a_model_does_not_agree_with_itself() {
        use Action::{CleanCache, Retry, Stop};
        assert_eq!(
            decide(&[("a", CleanCache), ("a", CleanCache), ("a", CleanCache)], Stop),
            (Stop, How::Safer)
        );
        assert_eq!(decide(&[("a", CleanCache), ("a", Retry), ("b", Retry)], Stop), (Retry, How::Agreed));
    }

    #[test]
    fn what_is_not_allowed_does_not_come_out() {
        use Action::{Rollback, SkipOptional, Stop};
        assert_eq!(decide(&[("a", Rollback), ("b", Rollback)], SkipOptional).0, Action::CleanCache);
        let nothing = RulesVote { action: Action::Retry, knows_cause: true, allowed: vec![] };
        assert_eq!(agree(&[vote("a", Action::Retry)], &nothing).action, Stop);
    }

    #[test]
    fn agents_alone_are_told_apart() {
        let votes = [vote("a", Action::Retry), vote("b", Action::Retry)];
        let mut own = rules(Action::Stop);
        assert!(agree(&votes, &own).on_agents_word);
        own.knows_cause = true;
        assert!(!agree(&votes, &own).on_agents_word);
        assert!(!agree(&votes, &rules(Action::Retry)).on_agents_word);
        let stop = [vote("a", Action::Stop), vote("b", Action::Stop)];
        assert!(!agree(&stop, &rules(Action::Retry)).on_agents_word);
    }

    fn action() -> impl Strategy<Value = Action> {
        (0..Action::ALL.len()).prop_map(|index| Action::ALL[index])
    }

    proptest! {
        #[test]
        fn the_outcome_is_allowed_and_one_voice_never_makes_it_riskier(
            said in proptest::collection::vec((0..4_u8, action()), 0..6),
            own in action(), allowed in proptest::collection::vec(action(), 0..5), more in action(),
        ) {
            let votes: Vec<_> = said.iter().map(|(who, action)| vote(&who.to_string(), *action)).collect();
            let rules = RulesVote { action: own, knows_cause: false, allowed: allowed.clone() };
            let outcome = agree(&votes, &rules).action;
            prop_assert!(allowed.contains(&outcome) || (allowed.is_empty() && outcome == Action::Stop));
            let lone = agree(&[vote("a", more)], &rules).action;
            prop_assert!(lone <= agree(&[], &rules).action);
        }
    }
}
