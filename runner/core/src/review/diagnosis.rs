//! What a log and the facts about a stage's end come to.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::facts::{End, Fact, Facts};
use super::reduce::{Finding, LogReading};
use super::rule::{RetryHelps, Rule};
use super::rules::RuleSet;
use super::template::template;
use crate::digest::Digest;

/// What a review comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The stage ended well, and nothing says that its result is damaged.
    Clean,
    /// The stage ended well, but a program says that its result is damaged.
    Suspect,
    /// It failed, and this is why.
    Known,
    /// It failed, or nobody knows how it ended, and no rule knows why.
    Unknown,
}

/// The line that says why a stage failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Id of the rule that knows it.
    pub rule: String,
    /// Number of the line in the log, from 1; absent where it is not the log that says so.
    pub line: Option<u64>,
    /// The line, or the fact in words.
    pub text: String,
}

/// What the rules make of a stage's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What it comes to.
    pub judgement: Judgement,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// What happened.
    pub explanation: String,
    /// What a person does next.
    pub cure: String,
    /// What isokiln may do, the best first; never empty.
    pub allowed: Vec<Action>,
    /// Whether running the same again can help; absent where nobody knows.
    pub retry: Option<RetryHelps>,
    /// The package that is to blame.
    pub package: Option<String>,
    /// What failures of this kind have in common.
    pub signature: String,
}

/// What the rules make of a log and the facts about its stage. Strong facts explain everything that the log says;
/// then comes the earliest line that names a cause; then other facts. What is left is not guessed at.
pub fn diagnose(rules: &RuleSet, reading: &LogReading, facts: &Facts) -> Diagnosis {
    if facts.ended_well() {
        return match reading.silent.first() {
            Some(finding) => of_finding(rules, finding, Judgement::Suspect),
            None => {
                plain(Judgement::Clean, "Nothing in the log says that anything went wrong.", Action::None)
            }
        };
    }
    let facts_held = facts.hold();
    let strong = facts_held.iter().filter(|fact| fact.is_strong());
    let told = strong.filter_map(|fact| of_fact(rules, reading, facts, *fact)).next();
    // A weak fact that holds and a line that says the same are the cause of what came before it, such as a file that
    // could not be fetched.
    let both = facts_held.iter().filter(|fact| !fact.is_strong()).find_map(|fact| {
        let says_so =
            |finding: &&Finding| rules.get(&finding.rule).is_some_and(|rule| rule.fact == Some(*fact));
        reading.causes.iter().find(says_so).map(|_| of_fact(rules, reading, facts, *fact))?
    });
    // A full disk that nobody has measured may be only spoken of, or be one of a program's own.
    let is_likely = |finding: &&Finding| {
        let is_full = rules.get(&finding.rule).is_some_and(|rule| rule.fact == Some(Fact::DiskFull));
        !(is_full && facts.has_ample_room())
    };
    let first = reading.causes.iter().find(is_likely).or(reading.causes.first());
    let by_line = || first.map(|finding| of_finding(rules, finding, Judgement::Known));
    let weak = || {
        // That a stage has no network only matters where it looked for one.
        let weak = facts_held.iter().filter(|fact| !fact.is_strong() && **fact != Fact::NoNetwork);
        weak.filter_map(|fact| of_fact(rules, reading, facts, *fact)).next()
    };
    let offline = facts_held.contains(&Fact::NoNetwork).then(|| offline(rules, reading)).flatten();
    told.or(offline).or(both).or_else(by_line).or_else(weak).unwrap_or_else(|| unknown(rules, reading, facts))
}

fn plain(judgement: Judgement, explanation: &str, action: Action) -> Diagnosis {
    Diagnosis {
        judgement,
        cause: None,
        explanation: explanation.to_owned(),
        cure: String::new(),
        allowed: vec![action],
        retry: None,
        package: None,
        signature: String::new(),
    }
}

fn of_finding(rules: &RuleSet, finding: &Finding, judgement: Judgement) -> Diagnosis {
    let (line, text) = (Some(finding.line), finding.text.clone());
    let diagnosis = match rules.get(&finding.rule) {
        Some(rule) => of_rule(rule, line, text),
        // A finding is always of one of the rules.
        None => plain(judgement, "", Action::Stop),
    };
    Diagnosis { judgement, package: finding.package.clone(), ..diagnosis }
}

/// The cause that a fact is, with the line that says the same where there is one.
fn of_fact(rules: &RuleSet, reading: &LogReading, facts: &Facts, fact: Fact) -> Option<Diagnosis> {
    let says_so = |finding: &&Finding| rules.get(&finding.rule).is_some_and(|rule| rule.fact == Some(fact));
    match (reading.causes.iter().find(says_so), rules.of_fact(fact)) {
        (Some(finding), Some(rule)) => Some(of_rule(rule, Some(finding.line), finding.text.clone())),
        (Some(finding), None) => Some(of_finding(rules, finding, Judgement::Known)),
        (None, Some(rule)) => Some(of_rule(rule, None, facts.words(fact))),
        (None, None) => None,
    }
}

fn of_rule(rule: &Rule, line: Option<u64>, text: String) -> Diagnosis {
    Diagnosis {
        cause: Some(Cause { rule: rule.id.clone(), line, text }),
        explanation: rule.explanation.clone(),
        cure: rule.cure.clone(),
        allowed: rule.actions.clone(),
        retry: Some(rule.retry),
        signature: rule.id.clone(),
        ..plain(Judgement::Known, "", Action::Stop)
    }
}

/// A name that could not be resolved by a stage that has no network.
fn offline(rules: &RuleSet, reading: &LogReading) -> Option<Diagnosis> {
    let rule = rules.of_fact(Fact::NoNetwork)?;
    let first = reading.causes.first()?;
    let is_name = rules.get(&first.rule)?.fact == Some(Fact::NoResolver);
    is_name.then(|| of_rule(rule, Some(first.line), first.text.clone()))
}

fn unknown(rules: &RuleSet, reading: &LogReading, facts: &Facts) -> Diagnosis {
    let wrapper = reading.wrapper.as_ref();
    let rule = wrapper.and_then(|wrapper| rules.get(&wrapper.rule));
    let end = match facts.end {
        End::Unknown => "No rule knows a line of this log.".to_owned(),
        _ => "No rule knows why it failed.".to_owned(),
    };
    let explanation = match (wrapper, rule) {
        (Some(wrapper), Some(rule)) => {
            format!("{end} Line {} only says that something failed: {}", wrapper.line, rule.explanation)
        }
        _ => end,
    };
    let last = reading.last_suspicious.as_deref().or(wrapper.map(|wrapper| wrapper.text.as_str()));
    Diagnosis {
        cure: "Read the last lines of the log.".to_owned(),
        allowed: match rule {
            // Of a log that nobody says is of a failure, nothing follows.
            _ if facts.end == End::Unknown => vec![Action::None],
            Some(rule) => rule.actions.clone(),
            None => vec![Action::Stop],
        },
        retry: rule.map(|rule| rule.retry),
        signature: format!("unknown-{}", Digest::of(template(last.unwrap_or_default())).short()),
        ..plain(Judgement::Unknown, &explanation, Action::Stop)
    }
}

impl Diagnosis {
    /// What isokiln does if nobody says otherwise.
    pub fn action(&self) -> Action {
        self.allowed.first().copied().unwrap_or(Action::Stop)
    }

    /// Whether running the stage again can help, be it after something else was done; absent where nobody knows.
    pub fn retry_helps(&self) -> Option<bool> {
        self.retry.map(|retry| retry != RetryHelps::No)
    }
}
