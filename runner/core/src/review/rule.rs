//! Rules: what a line of a log means, as data.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::facts::Fact;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, parse, wrong_type};

/// What a line that a rule matches is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Why a stage failed.
    Cause,
    /// That something failed, not why.
    Wrapper,
    /// Nothing, however it looks.
    Benign,
    /// That what failed before it was got over.
    Overcome,
}

/// Whether running the same again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryHelps {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// The first time it can.
    Once,
    /// Once something else was done.
    AfterAction,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique among all rules; the tool comes first.
    pub id: String,
    /// What a matching line is.
    pub class: Class,
    /// A regular expression, searched for in the line. Absent where the rule rests on a fact alone.
    pub pattern: Option<String>,
    /// One that must also match one of the three lines before.
    pub after: Option<String>,
    /// The fact that says the same, or that the rule rests on.
    pub fact: Option<Fact>,
    /// What happened.
    pub explanation: String,
    /// What to do about it.
    pub cure: String,
    /// What isokiln may do about it, the best first.
    pub actions: Vec<Action>,
    /// Whether running the same again can help.
    pub retry: RetryHelps,
    /// Whether a program goes on after the line and may end well all the same.
    pub silent: bool,
    /// Of a rule about what was got over: beginnings of the ids of the causes that were; empty for all.
    pub clears: Vec<String>,
    /// Rows of the catalogue of failures that it answers.
    pub catalogue: Vec<String>,
    /// Where the message comes from.
    pub source: Vec<String>,
    /// Texts whose cause it is.
    pub examples: Vec<String>,
    /// Texts that it has nothing to do with.
    pub counterexamples: Vec<String>,
}

/// Reads a file of rules, or says everything that is wrong with it.
pub fn parse_rules(text: &str) -> Result<Vec<Rule>, Diagnostics> {
    let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
    let mut out = Diagnostics::default();
    let mut table = Table::new("the file of rules", document.get_ref(), 0..text.len().min(1));
    let mut rules = Vec::new();
    match table.any("rule") {
        None => table.missing("[[rule]]", "[[rule]] with id, class and pattern", &mut out),
        Some(value) => match value.get_ref().as_array() {
            None => out.push(
                wrong_type(value, "a list of tables", "rule").help("write [[rule]], with two brackets"),
            ),
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    match item.get_ref().as_table() {
                        Some(entries) => {
                            let table = Table::new(format!("rule {}", index + 1), entries, item.span());
                            rules.extend(read_rule(table, &mut out));
                        }
                        None => out.push(wrong_type(item, "a table", "each rule")),
                    }
                }
            }
        },
    }
    table.finish(&mut out);
    out.or(|| Some(rules))
}

const CLASSES: [(&str, Class); 4] = [
    ("cause", Class::Cause),
    ("wrapper", Class::Wrapper),
    ("benign", Class::Benign),
    ("overcome", Class::Overcome),
];

const RETRIES: [(&str, RetryHelps); 4] = [
    ("yes", RetryHelps::Yes),
    ("no", RetryHelps::No),
    ("once", RetryHelps::Once),
    ("after-action", RetryHelps::AfterAction),
];

fn read_rule(mut table: Table<'_>, out: &mut Diagnostics) -> Option<Rule> {
    let id = table.read("id", out, parse_id);
    if let Some(id) = &id {
        table.what = format!("rule {id:?}");
    }
    let mistakes = out.0.len();
    let class = table.choice("class", &CLASSES, out);
    let pattern = table.read("pattern", out, parse_pattern);
    let after = table.read("after", out, parse_pattern);
    let fact = table.choice("fact", &Fact::NAMES, out);
    let explanation = table.string("explanation", out).map(|text| text.value);
    let cure = table.string("cure", out).map(|text| text.value).unwrap_or_default();
    let mut actions = Vec::new();
    for action in table.strings("actions", out).unwrap_or_default() {
        match action.value.parse() {
            Ok(action) => actions.push(action),
            Err(error) => out.push(Diagnostic::new(format!("{error}"), action.span)),
        }
    }
    let retry = table.choice("retry", &RETRIES, out);
    let silent = table.boolean("silent", out).is_some_and(|value| value.value);
    let mut list = |table: &mut Table<'_>, key: &str| -> Vec<String> {
        table.strings(key, out).unwrap_or_default().into_iter().map(|text| text.value).collect()
    };
    let clears = list(&mut table, "clears");
    let catalogue = list(&mut table, "catalogue");
    let source = list(&mut table, "source");
    let more = list(&mut table, "more");
    let counterexamples = list(&mut table, "not");
    let example = table.string("example", out).map(|text| text.value);
    for (key, is_there) in [
        ("id", table.key_span("id").is_some()),
        ("class", table.key_span("class").is_some()),
        ("explanation", explanation.is_some()),
        ("pattern", table.key_span("pattern").is_some() || table.key_span("fact").is_some()),
        ("example", example.is_some() || table.key_span("pattern").is_none()),
        ("source", !source.is_empty()),
    ] {
        if !is_there {
            table.missing(key, &format!("{key} = \"…\""), out);
        }
    }
    let is_whole = out.0.len() == mistakes;
    table.finish(out);
    is_whole.then_some(())?;
    if actions.is_empty() {
        actions.push(if class? == Class::Benign { Action::None } else { Action::Stop });
    }
    Some(Rule {
        id: id?,
        class: class?,
        pattern,
        after,
        fact,
        explanation: explanation?,
        cure,
        actions,
        retry: retry.unwrap_or(RetryHelps::No),
        silent,
        clears,
        catalogue,
        source,
        examples: example.into_iter().chain(more).collect(),
        counterexamples,
    })
}

fn parse_id(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || !text.chars().all(valid) {
        return Err(format!("{text:?} is no id: write small letters, digits and hyphens"));
    }
    Ok(text.to_owned())
}

fn parse_pattern(text: &str) -> Result<String, String> {
    match regex::Regex::new(text) {
        Ok(pattern) if pattern.is_match("") => Err(format!("the pattern {text:?} matches every line")),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "the pattern {text:?} is not a regular expression: {}",
            last_line(&error.to_string())
        )),
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"
        [[rule]]
        id = "apt-hash-sum"
        class = "cause"
        pattern = 'Hash Sum mismatch'
        explanation = "What came is not what was announced."
        cure = "Try again."
        actions = ["clean-cache", "refresh-mirror"]
        retry = "after-action"
        source = ["apt-pkg/acquire-item.cc"]
        example = "E: Failed to fetch x  Hash Sum mismatch"
    "#;

    fn mistakes(text: &str) -> Vec<String> {
        parse_rules(text).unwrap_err().0.into_iter().map(|mistake| mistake.message).collect()
    }

    #[test]
    fn a_rule_is_read() {
        let rule = parse_rules(RULE).unwrap().remove(0);
        assert_eq!(
            (rule.id.as_str(), rule.class, rule.retry),
            ("apt-hash-sum", Class::Cause, RetryHelps::AfterAction)
        );
        assert_eq!(rule.actions, [Action::CleanCache, Action::RefreshMirror]);
        assert!(!rule.silent);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        assert_eq!(mistakes(&RULE.replace("'Hash Sum", "'(Hash Sum")).len(), 1);
        assert!(mistakes(&RULE.replace("Hash Sum mismatch'", "Hash|'"))[0].contains("matches every line"));
        assert!(mistakes(&RULE.replace("clean-cache", "delete-lock"))[0].contains("is not an action"));
        assert!(
            mistakes(&RULE.replace("pattern", "patern"))[0].contains("patern")
                || mistakes(&RULE.replace("pattern", "patern")).len() == 2
        );
        assert_eq!(mistakes(&RULE.replace("class = \"cause\"", "")).len(), 1);
    }
}
