//! Proving rules on their own examples, and against all the others.

use serde::Serialize;

use super::diagnosis::{Judgement, diagnose};
use super::facts::Facts;
use super::line::clean;
use super::reduce::Reducer;
use super::rule::{Class, Rule};
use super::rules::{Before, Meaning, RuleSet};

/// A rule that does not do what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The rule's id.
    pub rule: String,
    /// The text that it is about.
    pub text: String,
    /// What is wrong.
    pub problem: String,
}

/// Checks every rule: each of its examples must be read as its own and nobody else's, and none of its counterexamples.
pub fn prove(rules: &RuleSet) -> Vec<Fault> {
    rules.rules().iter().flat_map(|rule| faults_of(rules, rule)).collect()
}

fn faults_of(rules: &RuleSet, rule: &Rule) -> Vec<Fault> {
    let fault = |text: &str, problem| Fault { rule: rule.id.clone(), text: text.to_owned(), problem };
    let mut faults = Vec::new();
    for example in &rule.examples {
        let (cause, known) = read(rules, example);
        let own = match rule.class {
            Class::Cause => cause.as_deref() == Some(rule.id.as_str()),
            Class::Wrapper | Class::Benign | Class::Overcome => cause.is_none() && known.contains(&rule.id),
        };
        if !own {
            let problem = match (cause, known.as_slice()) {
                (Some(cause), _) => format!("is taken for {cause}"),
                (None, []) => "is not known to any rule".to_owned(),
                (None, known) => format!("is only known as {}", known.join(", ")),
            };
            faults.push(fault(example, problem));
        }
    }
    for text in &rule.counterexamples {
        if read(rules, text).1.contains(&rule.id) {
            faults.push(fault(text, "is read as its own, and must not".to_owned()));
        }
    }
    faults
}

/// The rule that names a text's cause, and all rules that know one of its lines.
fn read(rules: &RuleSet, text: &str) -> (Option<String>, Vec<String>) {
    let mut reducer = Reducer::new(rules, None);
    reducer.feed(text.as_bytes());
    let diagnosis = diagnose(rules, &reducer.finish(), &Facts::default());
    let cause = diagnosis.cause.filter(|_| diagnosis.judgement == Judgement::Known).map(|cause| cause.rule);
    let mut before = Before::default();
    let mut known = Vec::new();
    for line in text.lines() {
        let line = clean(line.as_bytes());
        if let Meaning::Known(rule) = rules.read(&line, &before) {
            known.push(rule.id.clone());
        }
        before.push(&line);
    }
    (cause, known)
}

#[cfg(test)]
mod tests {
    use super::super::parse_rules;
    use super::*;

    fn rule(id: &str, class: &str, pattern: &str, example: &str, not: &str) -> String {
        format!(
            "[[rule]]\nid = {id:?}\nclass = {class:?}\npattern = '{pattern}'\nexplanation = \"x\"\nsource = [\"x\"]\nexample = {example:?}\nnot = [{not:?}]\n"
        )
    }

    #[test]
    fn rules_that_take_one_anothers_lines_are_found() {
        let text = rule("a", "cause", "no room", "there is no room", "room service")
            + &rule("b", "cause", "no room at all", "no room at all", "no room")
            + &rule("c", "cause", "room", "no room", "room")
            + &rule("d", "wrapper", "^ended", "ended badly", "x")
            + &rule("e", "benign", "^nothing", "everything", "x");
        let faults = prove(&RuleSet::new(parse_rules(&text).unwrap()).unwrap());
        let told: Vec<_> = faults
            .iter()
            .map(|fault| format!("{}: {:?} {}", fault.rule, fault.text, fault.problem))
            .collect();
        assert_eq!(
            told,
            [
                "c: \"no room\" is taken for a",
                "c: \"room\" is read as its own, and must not",
                "e: \"everything\" is not known to any rule",
            ]
        );
    }
}
