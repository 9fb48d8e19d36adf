//! All rules together: what each line of a log means.

use std::collections::VecDeque;
use std::sync::OnceLock;

use regex::{Regex, RegexSet, RegexSetBuilder};

use super::facts::Fact;
use super::rule::{Class, Rule};

/// Lines before a matching one that a rule's `after` may look at.
const BEFORE: usize = 3;
/// Bytes that the rules' automaton may take; as it grows it is begun anew.
const AUTOMATON: usize = 32 << 20;
/// What many programs say when something fails, for lines that no rule knows.
const SUSPICIOUS: &str = r"(?i-u)\b(?:error|errors|fail|failed|failure|fatal|cannot|can't|could not|unable|denied|invalid|missing|not found|no such|refused|aborted|killed|segfault|traceback|panic)\b";

/// Rules that cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleSetError {
    /// Two rules have one id.
    #[error("two rules are called {id:?}")]
    SameId {
        /// The id.
        id: String,
    },
    /// The rules are too large together.
    #[error("the rules cannot be used together: {reason}")]
    Automaton {
        /// What the library said.
        reason: String,
    },
}

/// Rules, ready to read lines.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    set: RegexSet,
    /// Index into `rules` of each pattern of the set; the last pattern is that of suspicious lines.
    of_pattern: Vec<usize>,
    /// Of every rule.
    patterns: Vec<Patterns>,
}

/// A rule's patterns by themselves, made when they are needed.
#[derive(Debug, Default)]
struct Patterns {
    own: OnceLock<Option<Regex>>,
    after: OnceLock<Option<Regex>>,
}

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning<'r> {
    /// Nothing that anybody knows.
    Nothing,
    /// No rule knows it, and it has words of failure.
    Suspicious,
    /// A rule knows it.
    Known(&'r Rule),
}

impl RuleSet {
    /// Puts rules together. Their patterns have been read by [`super::parse_rules`].
    pub fn new(rules: Vec<Rule>) -> Result<Self, RuleSetError> {
        let mut ids: Vec<_> = rules.iter().map(|rule| rule.id.as_str()).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RuleSetError::SameId { id: twice[0].to_owned() });
        }
        let with_pattern =
            || rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.pattern.as_deref()?)));
        let patterns = with_pattern().map(|(_, pattern)| pattern).chain([SUSPICIOUS]);
        let set = RegexSetBuilder::new(patterns)
            .size_limit(AUTOMATON)
            .dfa_size_limit(AUTOMATON)
            .build()
            .map_err(|error| RuleSetError::Automaton { reason: error.to_string() })?;
        let of_pattern = with_pattern().map(|(index, _)| index).collect();
        let patterns = rules.iter().map(|_| Patterns::default()).collect();
        Ok(Self { rules, set, of_pattern, patterns })
    }

    /// Every rule.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of that id.
    pub fn get(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// The rule that rests on a fact alone.
    pub fn of_fact(&self, fact: Fact) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fact == Some(fact) && rule.pattern.is_none())
    }

    /// What a line means after those before it. What is benign is nothing else; a cause is more than a wrapper; of
    /// several causes the most particular one is meant: one that also looks at the lines before, then the longer pattern.
    pub fn read(&self, line: &str, before: &Before) -> Meaning<'_> {
        let matches = self.set.matches(line);
        if !matches.matched_any() {
            return Meaning::Nothing;
        }
        let known = matches.iter().filter_map(|pattern| self.of_pattern.get(pattern).copied());
        let rank = |index: &usize| {
            let rule = &self.rules[*index];
            let class = match rule.class {
                Class::Benign => 3,
                Class::Overcome => 2,
                Class::Cause => 1,
                Class::Wrapper => 0,
            };
            (class, rule.after.is_some(), rule.pattern.as_ref().map_or(0, String::len))
        };
        let best = known.filter(|index| self.follows(*index, before)).max_by_key(rank);
        best.map_or(Meaning::Suspicious, |index| Meaning::Known(&self.rules[index]))
    }

    /// The package that a line names as the culprit, by the rule that matches it.
    pub fn package<'l>(&self, rule: &Rule, line: &'l str) -> Option<&'l str> {
        let index = self.rules.iter().position(|other| other.id == rule.id)?;
        let pattern = rule.pattern.as_deref()?;
        let pattern = self.patterns[index].own.get_or_init(|| Regex::new(pattern).ok()).as_ref()?;
        pattern.captures(line)?.name("package").map(|package| package.as_str())
    }

    fn follows(&self, index: usize, before: &Before) -> bool {
        let Some(after) = &self.rules[index].after else { return true };
        let after = self.patterns[index].after.get_or_init(|| Regex::new(after).ok()).as_ref();
        after.is_some_and(|after| before.0.iter().any(|line| after.is_match(line)))
    }
}

/// The lines before the one being read.
#[derive(Debug, Default)]
pub struct Before(VecDeque<String>);

impl Before {
    /// A line has been read.
    pub fn push(&mut self, line: &str) {
        // What is let go of is used again: logs have millions of lines.
        let mut text =
            if self.0.len() == BEFORE { self.0.pop_front().unwrap_or_default() } else { String::new() };
        text.clear();
        text.push_str(line);
        self.0.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::parse_rules;
    use super::*;

    fn rule(id: &str, class: &str, pattern: &str, more: &str) -> String {
        format!(
            "[[rule]]\nid = {id:?}\nclass = {class:?}\npattern = '{pattern}'\nexplanation = \"x\"\nsource = [\"x\"]\nexample = \"x\"\n{more}\n"
        )
    }

    fn id<'r>(rules: &'r RuleSet, line: &str, before: &[&str]) -> &'r str {
        let mut lines = Before::default();
        before.iter().for_each(|line| lines.push(line));
        match rules.read(line, &lines) {
            Meaning::Nothing => "nothing",
            Meaning::Suspicious => "suspicious",
            Meaning::Known(rule) => &rule.id,
        }
    }

    #[test]
    fn the_most_particular_rule_reads_a_line() {
        let text = rule("apt-404", "cause", "404", "")
            + &rule("apt-404-old", "cause", "404", "after = 'dists/precise'")
            + &rule("apt-404-pool", "cause", "404 +Not Found", "")
            + &rule("apt-err", "wrapper", "^Err", "")
            + &rule("noise", "benign", "harmless", "");
        let rules = RuleSet::new(parse_rules(&text).unwrap()).unwrap();
        for (line, before, expected) in [
            ("404", &[][..], "apt-404"),
            ("404", &["dists/precise/Release:", "a", "b"], "apt-404-old"),
            ("404", &["dists/precise/Release:", "a", "b", "c"], "apt-404"),
            ("Err 404  Not Found", &[], "apt-404-pool"),
            ("Err 1", &[], "apt-err"),
            ("harmless 404 error", &[], "noise"),
            ("an error", &[], "suspicious"),
            ("terrorists unfailing", &[], "nothing"),
        ] {
            assert_eq!(id(&rules, line, before), expected, "{line}");
        }
    }

    #[test]
    fn a_rule_names_the_package_and_ids_are_unique() {
        let text = rule("apt-none", "cause", "Package .(?P<package>[a-z0-9]+). has no", "");
        let rules = RuleSet::new(parse_rules(&text).unwrap()).unwrap();
        let line = "E: Package 'falkon' has no installation candidate";
        assert_eq!(rules.package(&rules.rules()[0], line), Some("falkon"));
        let twice = parse_rules(&(text.clone() + &text)).unwrap();
        assert_eq!(RuleSet::new(twice).unwrap_err(), RuleSetError::SameId { id: "apt-none".into() });
    }
}
