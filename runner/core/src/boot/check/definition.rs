//! Checks that are data: `qemu/checks/NAME.toml`.
//!
//! A definition is a script for the probe. Its exit status says how the check stands, its last line why, and all its
//! lines are the evidence.

use std::time::Duration;

use super::{Answer, Finding, Judgement, lines};
use crate::boot::verdict::Verdict;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, integer, parse};

/// What a script exits with, besides 0 where the check holds.
const DOES_NOT_HOLD: i32 = 1;
const NOT_YET: i32 = 2;
const CANNOT_BE_TESTED: i32 = 3;
/// What `timeout` exits with when it has to stop a script.
const TIMED_OUT: i32 = 124;

/// A kind of check that is data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDefinition {
    /// File name without `.toml`.
    pub name: String,
    /// One line.
    pub summary: String,
    /// What the check is given, for help texts; `None` where it is given nothing.
    pub argument: Option<String>,
    /// How long to keep asking while the script says that it does not hold yet, on the reference machine.
    pub patience: Duration,
    /// Shell script (`sh`) with the argument as `$1`.
    pub script: String,
    /// Whether it is about the graphical session: the script begins with `qemu/probe/graphical.sh`, and what the screen
    /// shows at its end is kept.
    pub graphical: bool,
    /// Whether only a machine with Secure Boot can be asked.
    pub secure_boot: bool,
}

/// What scripts about the graphical session begin with.
const GRAPHICAL: &str = include_str!("../../../../../qemu/probe/graphical.sh");

impl CheckDefinition {
    /// Reads a definition's file.
    pub fn parse(name: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
        let mut table = Table::new(format!("check {name}"), document.get_ref(), 0..text.len().min(1));
        let summary = table.string("summary", &mut out);
        let argument = table.string("argument", &mut out).map(|argument| argument.value);
        let script = table.string("script", &mut out);
        let patience = table.any("patience").and_then(|value| {
            let seconds = integer(value.get_ref()).and_then(|seconds| u64::try_from(seconds).ok());
            if seconds.is_none() {
                out.push(Diagnostic::new("patience must be a whole number of seconds", value.span()));
            }
            seconds
        });
        for (key, example) in [
            ("summary", "summary = \"A service is active\""),
            ("patience", "patience = 60"),
            ("script", "script = 'test -e \"$1\"'"),
        ] {
            if table.key_span(key).is_none() {
                table.missing(key, example, &mut out);
            }
        }
        let graphical = table.boolean("graphical", &mut out).is_some_and(|wanted| wanted.value);
        let secure_boot = table.boolean("secure-boot", &mut out).is_some_and(|wanted| wanted.value);
        table.finish(&mut out);
        out.or(|| {
            Some(Self {
                name: name.to_owned(),
                summary: summary?.value,
                argument,
                patience: Duration::from_secs(patience?),
                script: script?.value,
                graphical,
                secure_boot,
            })
        })
    }

    /// The script for the probe, with its argument.
    pub(super) fn script_for(&self, argument: Option<&str>) -> String {
        let given = argument.map(|argument| format!("set -- '{}'\n", argument.replace('\'', "'\\''")));
        let before = if self.graphical { GRAPHICAL } else { "" };
        format!("{}{before}{}", given.unwrap_or_default(), self.script)
    }
}

/// What the answer to a definition's script proves.
pub(super) fn judge(answer: &Answer) -> Judgement {
    let evidence = lines(answer);
    let last = evidence.iter().rev().find(|line| !line.trim().is_empty()).cloned();
    let summary = |otherwise: &str| last.clone().unwrap_or_else(|| otherwise.to_owned());
    match answer.status {
        0 => Judgement::Settled(Finding::pass(summary("it holds"), evidence)),
        DOES_NOT_HOLD => Judgement::Settled(Finding::fail(summary("it does not hold"), evidence)),
        NOT_YET => Judgement::NotYet(Finding::fail(summary("it does not hold"), evidence)),
        CANNOT_BE_TESTED => Judgement::Settled(Finding {
            verdict: Verdict::Inconclusive,
            summary: summary("it cannot be tested on this system"),
            evidence,
            cause: None,
        }),
        TIMED_OUT => Judgement::Settled(Finding::fail("the check's script did not end in time", evidence)),
        status => Judgement::Settled(Finding {
            verdict: Verdict::Inconclusive,
            summary: format!("the check's script broke: exit status {status}"),
            evidence,
            cause: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides_and_the_last_line_says_why() {
        let judged = |status| judge(&Answer { status, output: "details\nwhy\n\n".into() });
        for (status, verdict) in [(0, Verdict::Pass), (1, Verdict::Fail), (3, Verdict::Inconclusive)] {
            let Judgement::Settled(finding) = judged(status) else { panic!("{status}") };
            assert_eq!((finding.verdict, finding.summary.as_str()), (verdict, "why"), "{status}");
            assert_eq!(finding.evidence.len(), 3);
        }
        assert!(matches!(judged(2), Judgement::NotYet(finding) if finding.verdict == Verdict::Fail));
        assert!(matches!(judged(127), Judgement::Settled(f) if f.verdict == Verdict::Inconclusive));
        assert!(matches!(judged(124), Judgement::Settled(f) if f.verdict == Verdict::Fail));
    }

    #[test]
    fn reads_a_definition_and_names_what_it_lacks() {
        let text = "summary = \"x\"\nargument = \"PATH\"\npatience = 5\nscript = 'test -e \"$1\"'\n";
        let definition = CheckDefinition::parse("file", text).unwrap();
        assert_eq!(definition.patience, Duration::from_secs(5));
        assert_eq!(definition.script_for(Some("it's")), "set -- 'it'\\''s'\ntest -e \"$1\"");
        let errors = CheckDefinition::parse("x", "patience = -1\nscrpt = \"\"\n").unwrap_err().to_string();
        assert!(errors.contains("whole number of seconds") && errors.contains("has no summary"), "{errors}");
    }
}
