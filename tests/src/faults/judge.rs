//! What came of a fault, and whether that is as it must be.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::table::{Expected, Fault};
use super::witness::is_forbidden;
use crate::{Finished, Project, repository};

/// Times that a stage, and all stages of a build, may be run again.
const PER_STAGE: usize = 3;
const PER_BUILD: usize = 8;
/// Characters of what is wrong that fit into a table.
const SHOWN: usize = 400;
/// Everything that isokiln may do, by its own rules.
const ACTIONS: [&str; 5] = ["clean-cache", "refresh-mirror", "retry", "rollback", "skip-optional"];

/// A fault and what came of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub fault: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// `green`, or how the build ended.
    pub outcome: String,
    /// What was done, in turn.
    pub actions: Vec<String>,
    /// The rule that each review found, in turn.
    pub rules: Vec<String>,
    /// How often the stage's script was begun.
    pub attempts: usize,
    /// Of the build.
    pub seconds: f64,
    /// Ways in which that is not as it must be.
    pub differences: Vec<String>,
    /// What must never be done and was.
    pub unsafe_actions: Vec<String>,
    /// What isokiln said, and all logs.
    pub log: String,
}

impl Row {
    /// A fault that could not be tried.
    pub fn broken(fault: &Fault, seconds: f64, reason: String) -> Self {
        Self {
            fault: fault.name,
            expected: fault.expected,
            outcome: "not tried".to_owned(),
            actions: Vec::new(),
            rules: Vec::new(),
            attempts: 0,
            seconds,
            differences: vec![reason.clone()],
            unsafe_actions: Vec::new(),
            log: reason,
        }
    }

    /// Whether everything is as it must be.
    pub fn is_good(&self) -> bool {
        self.differences.is_empty() && self.unsafe_actions.is_empty()
    }
}

/// What the newest run's events tell of one stage.
#[derive(Default)]
struct Told {
    actions: Vec<String>,
    pauses: Vec<f64>,
    rules: Vec<String>,
    /// Rule and action of each recovery.
    pairs: Vec<(String, String)>,
    starts: usize,
}

/// Compares what a build came to with what must come of its fault. `spoilt` is how many answers were.
pub(super) fn judge(fault: &Fault, project: &Project, finished: &Finished, spoilt: usize) -> Row {
    let events = events(project);
    let mut stages: BTreeMap<String, Told> = BTreeMap::new();
    for event in &events {
        let Some(stage) = event["stage"].as_str() else { continue };
        let told = stages.entry(stage.to_owned()).or_default();
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        match event["event"].as_str() {
            Some("stage-started") => told.starts += 1,
            Some("stage-reviewed") if event["review"]["verdict"] != "clean" => {
                let rule = event["review"]["cause"]["rule"].as_str().unwrap_or("unknown");
                told.rules.push(rule.to_owned());
            }
            Some("stage-recovering") => {
                told.actions.push(text(&event["action"]));
                told.pauses.push(event["pause_seconds"].as_f64().unwrap_or(-1.0));
                told.pairs.push((told.rules.last().cloned().unwrap_or_default(), text(&event["action"])));
            }
            _ => {}
        }
    }
    let unsafe_actions = unsafe_actions(&stages, &events, project);
    let told = stages.remove(fault.at).unwrap_or_default();
    let outcome = match finished.code {
        Some(0) => "green".to_owned(),
        Some(1) => "stopped".to_owned(),
        code => format!("code {code:?}"),
    };
    let mut row = Row {
        fault: fault.name,
        expected: fault.expected,
        outcome,
        actions: told.actions,
        rules: told.rules,
        attempts: told.starts,
        seconds: finished.time.as_secs_f64(),
        differences: Vec::new(),
        unsafe_actions,
        log: format!("{finished}{}", logs(project)),
    };
    let mut differ = |text: String| row.differences.push(text);
    match fault.expected {
        Expected::Green | Expected::GreenWithout if finished.code != Some(0) => {
            differ(format!("it must be got over: {}", last_words(finished)));
        }
        Expected::Green | Expected::GreenWithout => {}
        Expected::Stops(_) if finished.code != Some(1) => {
            differ(format!("the stage must fail: {}", last_words(finished)));
        }
        Expected::Stops(rules) => {
            let last = row.rules.last().map_or("none", String::as_str);
            if !rules.contains(&last) {
                differ(format!("the cause is {}", rules.join(" or ")));
            }
        }
        Expected::Ends(code, words) => {
            if finished.code != Some(code) || !finished.stderr.contains(words) {
                differ(format!("it must end with {code} and {words:?}: {}", last_words(finished)));
            }
        }
    }
    // A fault that nobody noticed proves nothing.
    let tampers = fault.first.len() + fault.second.len();
    if tampers > 0 && spoilt == 0 {
        differ("the mirrors' wrong answers were not asked for".to_owned());
    }
    let log = logs(project);
    let got_over = log.contains("got over: ") || finished.stderr.contains("is back; going on");
    if tampers == 0
        && row.attempts < 2
        && fault.expected.is_recoverable()
        && !got_over
        && events.iter().all(|event| event["event"] != "stage-recovering")
    {
        differ("nothing went wrong".to_owned());
    }
    row
}

/// Everything that was done and may not be, whatever came of it.
fn unsafe_actions(stages: &BTreeMap<String, Told>, events: &[Value], project: &Project) -> Vec<String> {
    let mut found = Vec::new();
    let rules = Rules::of_repository();
    for (stage, told) in stages {
        for (rule, action) in &told.pairs {
            if !ACTIONS.contains(&action.as_str()) || !rules.allow(rule, action) {
                found.push(format!("{stage}: {action} is not allowed by {rule}"));
            }
        }
        for (number, (rule, action)) in told.pairs.iter().enumerate() {
            let is_again =
                told.pairs[..number].iter().any(|before| *before == (rule.clone(), action.clone()));
            // What nobody knows may be something else each time.
            if is_again && rule != "unknown" {
                found.push(format!("{stage}: {action} was done twice against {rule}"));
            }
        }
        if told.actions.len() > PER_STAGE {
            found.push(format!("{stage} was run again {} times", told.actions.len()));
        }
        let pauses: Vec<_> = (1..=told.pauses.len()).map(|n| f64::from(1 << n)).collect();
        if told.pauses != pauses {
            found.push(format!("{stage} waited for {:?} s", told.pauses));
        }
    }
    let recoveries = events.iter().filter(|event| event["event"] == "stage-recovering").count();
    if recoveries > PER_BUILD {
        found.push(format!("stages were run again {recoveries} times"));
    }
    let log = logs(project);
    found.extend(
        log.lines().filter(|line| line.starts_with("UNSAFE") || is_forbidden(line)).map(str::to_owned),
    );
    found
}

/// What the repository's rules allow.
struct Rules {
    /// Rules and what each allows.
    allowed: BTreeMap<String, Vec<String>>,
    /// What any of the rules allow that only say that something failed.
    of_wrappers: Vec<String>,
}

impl Rules {
    fn of_repository() -> Self {
        let mut rules = Self { allowed: BTreeMap::new(), of_wrappers: Vec::new() };
        let folder = repository().join("review/rules");
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let table: toml::Table = text.parse().unwrap_or_default();
            for rule in table.get("rule").and_then(toml::Value::as_array).into_iter().flatten() {
                let word =
                    |key: &str| rule.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
                let actions = rule.get("actions").and_then(toml::Value::as_array).into_iter().flatten();
                let actions: Vec<_> = actions.filter_map(toml::Value::as_str).map(str::to_owned).collect();
                if word("class") == "wrapper" {
                    rules.of_wrappers.extend(actions.clone());
                }
                rules.allowed.insert(word("id"), actions);
            }
        }
        rules
    }

    fn allow(&self, rule: &str, action: &str) -> bool {
        let allowed = if rule == "unknown" { Some(&self.of_wrappers) } else { self.allowed.get(rule) };
        allowed.is_some_and(|actions| actions.iter().any(|other| other == action))
    }
}

fn events(project: &Project) -> Vec<Value> {
    let text = fs::read_to_string(project.home().join("latest/events.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// All logs of the newest run, those of earlier attempts among them.
fn logs(project: &Project) -> String {
    let mut text = String::new();
    let stages = fs::read_dir(project.home().join("latest/stages")).into_iter().flatten().flatten();
    for log in stages.flat_map(|stage| fs::read_dir(stage.path()).into_iter().flatten().flatten()) {
        text.push_str(&format!("--- {}\n", log.path().display()));
        text.push_str(&String::from_utf8_lossy(&fs::read(log.path()).unwrap_or_default()));
    }
    text
}

fn last_words(finished: &Finished) -> String {
    let lines: Vec<_> = finished.stderr.lines().collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}

/// How well a number of faults were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Faults that must be got over, and those of them that were.
    pub recoverable: usize,
    /// Of those.
    pub green: usize,
    /// Faults that must stop a build, and those of them that did, for the right reason.
    pub unrecoverable: usize,
    /// Of those.
    pub right: usize,
    /// Things done that must never be.
    pub unsafe_actions: usize,
}

impl Score {
    /// Least share of what must be got over.
    pub const SHARE: f64 = 0.95;

    /// Counts a fault.
    pub fn add(&mut self, row: &Row) {
        let is_as_expected = usize::from(row.differences.is_empty());
        if row.expected.is_recoverable() {
            self.recoverable += 1;
            self.green += is_as_expected;
        } else {
            self.unrecoverable += 1;
            self.right += is_as_expected;
        }
        self.unsafe_actions += row.unsafe_actions.len();
    }

    /// Whether that is good enough.
    pub fn is_good(&self) -> bool {
        self.share() >= Self::SHARE && self.right == self.unrecoverable && self.unsafe_actions == 0
    }

    /// Share of what must be got over and was, from 0 to 1.
    pub fn share(&self) -> f64 {
        if self.recoverable == 0 { 1.0 } else { self.green as f64 / self.recoverable as f64 }
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { recoverable, green, unrecoverable, right, unsafe_actions } = self;
        write!(f, "recoverable: {green} of {recoverable} green ({:.1} %), ", self.share() * 100.0)?;
        write!(
            f,
            "unrecoverable: {right} of {unrecoverable} with the right cause, unsafe actions: {unsafe_actions}"
        )
    }
}

/// The rows as a table in Markdown, and the score under it.
pub fn markdown(rows: &[Row], score: &Score) -> String {
    let mut text = String::from(
        "| Fault | Expected | Outcome | Done | Cause | Attempts | Seconds | As expected |\n\
         | --- | --- | --- | --- | --- | ---: | ---: | --- |\n",
    );
    for row in rows {
        text.push_str(&format!("{row}\n"));
    }
    text.push_str(&format!("\n{score}\n"));
    text
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fault, expected, outcome, attempts, seconds, .. } = self;
        let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
        let (actions, rules) = (list(&self.actions), list(&self.rules));
        let wrong: Vec<_> = self
            .differences
            .iter()
            .cloned()
            .chain(self.unsafe_actions.iter().map(|what| format!("UNSAFE: {what}")))
            .collect();
        // A whole error message must not break the table.
        let wrong = if wrong.is_empty() { "yes".to_owned() } else { wrong.join("; ") };
        let wrong: String = wrong.replace('\n', " ").replace('|', "\\|").chars().take(SHOWN).collect();
        write!(
            f,
            "| {fault} | {expected} | {outcome} | {actions} | {rules} | {attempts} | {seconds:.0} | {wrong} |"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::World;

    fn row(expected: Expected, differences: &[&str], unsafe_actions: &[&str]) -> Row {
        let fault = Fault::new("a", "b", World::Tiny, expected);
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Row {
            differences: owned(differences),
            unsafe_actions: owned(unsafe_actions),
            ..Row::broken(&fault, 0.0, String::new())
        }
    }

    #[test]
    fn the_score_forgives_one_of_twenty_and_nothing_unsafe() {
        let mut score = Score::default();
        for _ in 0..19 {
            score.add(&row(Expected::Green, &[], &[]));
        }
        score.add(&row(Expected::GreenWithout, &["it must be got over"], &[]));
        assert!(score.is_good(), "{score}");
        let mut wrong = score;
        wrong.add(&row(Expected::Stops(&["x"]), &["another cause"], &[]));
        assert!(!wrong.is_good(), "{wrong}");
        let mut dangerous = score;
        dangerous.add(&row(Expected::Green, &[], &["a lock was removed"]));
        assert!(!dangerous.is_good(), "{dangerous}");
        score.add(&row(Expected::Green, &["it must be got over"], &[]));
        assert!(!score.is_good(), "{score}");
    }

    #[test]
    fn what_rules_allow_is_known() {
        let rules = Rules::of_repository();
        assert!(rules.allow("apt-hash-sum-mismatch", "clean-cache"));
        assert!(!rules.allow("apt-proxy-authentication", "retry"));
        assert!(!rules.allow("no-such-rule", "retry"));
    }
}
