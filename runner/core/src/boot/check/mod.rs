//! Checks: what must hold in the booted system. Each is a script for the probe and a judgement of its
//! answer; asking again until it holds or time is up is the engine's part.

mod boot;
mod command;
mod network_manager;
mod wlan;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::verdict::Verdict;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, integer, unknown, wrong_type};

/// A check and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckSpec {
    /// Multi-user target reached, no failed unit.
    Boot,
    /// NetworkManager runs and has connected a device.
    NetworkManager,
    /// Every WLAN module of the ISO loads; simulated radios appear as Wi-Fi devices.
    Wlan,
    /// A command ends with a given status.
    Command {
        /// Shell command, run by root.
        run: String,
        /// Exit status expected.
        status: i32,
        /// Name for the report.
        name: String,
    },
}

/// What the probe said after running a check's script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit status of the script; 124 where its time ran out.
    pub status: i32,
    /// What it printed, errors included; at most 1 MB.
    pub output: String,
}

/// What an answer proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing more will change.
    Settled(Finding),
    /// Not yet; this is what the check ends with if time runs out.
    NotYet(Finding),
}

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How the check ends.
    pub verdict: Verdict,
    /// One line for people.
    pub summary: String,
    /// Lines of the answer that the verdict rests on.
    pub evidence: Vec<String>,
}

impl Finding {
    pub(super) fn pass(summary: impl Into<String>, evidence: Vec<String>) -> Self {
        Self { verdict: Verdict::Pass, summary: summary.into(), evidence }
    }

    pub(super) fn fail(summary: impl Into<String>, evidence: Vec<String>) -> Self {
        Self { verdict: Verdict::Fail, summary: summary.into(), evidence }
    }
}

/// Names and one-line summaries of the checks that need no parameters.
const PLAIN: [(&str, CheckSpec); 3] =
    [("boot", CheckSpec::Boot), ("network-manager", CheckSpec::NetworkManager), ("wlan", CheckSpec::Wlan)];

impl CheckSpec {
    /// Name in reports.
    pub fn name(&self) -> String {
        match self {
            Self::Command { name, .. } => format!("command: {name}"),
            plain => PLAIN.iter().find(|(_, check)| check == plain).map_or("", |(name, _)| name).to_owned(),
        }
    }

    /// Shell script for the probe; may be run again.
    pub fn script(&self) -> String {
        match self {
            Self::Boot => boot::SCRIPT.to_owned(),
            Self::NetworkManager => network_manager::SCRIPT.to_owned(),
            Self::Wlan => wlan::SCRIPT.to_owned(),
            Self::Command { run, .. } => run.clone(),
        }
    }

    /// What an answer proves.
    pub fn judge(&self, answer: &Answer) -> Judgement {
        match self {
            Self::Boot => boot::judge(answer),
            Self::NetworkManager => network_manager::judge(answer),
            Self::Wlan => wlan::judge(answer),
            Self::Command { status, .. } => command::judge(*status, answer),
        }
    }

    /// How long to keep asking on a machine of reference speed, from the first time of asking.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Boot => Duration::from_secs(240),
            Self::NetworkManager => Duration::from_secs(60),
            Self::Wlan => Duration::from_secs(120),
            Self::Command { .. } => Duration::from_secs(60),
        }
    }

    /// Reads an item of `checks = [ … ]`: a name, or `{ command = "…", status = 0, name = "…" }`.
    pub(crate) fn read(item: &Spanned<DeValue<'_>>, out: &mut Diagnostics) -> Option<Self> {
        if let Some(name) = item.get_ref().as_str() {
            let plain = PLAIN.iter().find(|(known, _)| *known == name).map(|(_, check)| check.clone());
            if plain.is_none() {
                let valid: Vec<_> = PLAIN.iter().map(|(name, _)| *name).collect();
                let diagnostic = unknown(&format!("check {name:?}"), name, item.span(), &valid);
                out.push(diagnostic);
            }
            return plain;
        }
        let Some(entries) = item.get_ref().as_table() else {
            out.push(wrong_type(item, "a name or a table", "each check"));
            return None;
        };
        let mut table = Table::new("the check", entries, item.span());
        let run = table.string("command", out);
        if run.is_none() && table.key_span("command").is_none() {
            table.missing("command", "{ command = \"systemctl is-active ssh\", status = 0 }", out);
        }
        let name = table.string("name", out).map(|name| name.value);
        let status = match table.any("status") {
            None => Some(0),
            Some(value) => {
                let status = integer(value.get_ref()).and_then(|n| u8::try_from(n).ok());
                if status.is_none() {
                    out.push(Diagnostic::new("status must be a whole number from 0 to 255", value.span()));
                }
                status.map(i32::from)
            }
        };
        table.finish(out);
        let run = run?.value;
        let name = name.unwrap_or_else(|| run.lines().next().unwrap_or_default().to_owned());
        Some(Self::Command { run, status: status?, name })
    }
}

/// A check on the command line: its name, or `command:SHELL COMMAND`.
impl FromStr for CheckSpec {
    type Err = UnknownCheck;

    fn from_str(text: &str) -> Result<Self, UnknownCheck> {
        match text.strip_prefix("command:") {
            Some(run) if !run.trim().is_empty() => {
                let name = run.lines().next().unwrap_or_default().to_owned();
                Ok(Self::Command { run: run.to_owned(), status: 0, name })
            }
            _ => PLAIN
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, check)| check.clone())
                .ok_or_else(|| UnknownCheck(text.to_owned())),
        }
    }
}

/// A check that does not exist.
#[derive(Debug, thiserror::Error)]
pub struct UnknownCheck(String);

impl fmt::Display for UnknownCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = PLAIN.iter().map(|(name, _)| *name).collect();
        write!(f, "unknown check {:?}; valid: {}, command:SHELL COMMAND", self.0, names.join(", "))
    }
}

/// The values of the answer's lines `KEY VALUE` for one key.
fn values<'a>(answer: &'a Answer, key: &str) -> Vec<&'a str> {
    answer
        .output
        .lines()
        .filter_map(|line| line.split_once(' ').filter(|(k, _)| *k == key).map(|(_, value)| value.trim()))
        .collect()
}

fn lines(answer: &Answer) -> Vec<String> {
    answer.output.lines().map(str::to_owned).collect()
}
