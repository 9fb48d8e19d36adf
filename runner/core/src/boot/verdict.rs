//! What a boot test ends with.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::console::Phase;
use crate::digest::Digest;
use crate::names::ProfileName;

/// The end of a check or of a whole boot test. The order is that of gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The promise holds; there is evidence.
    Pass,
    /// It could not be tested; the summary says what would make it testable.
    Inconclusive,
    /// The tester broke, not the ISO.
    Infra,
    /// The promise does not hold; there is evidence.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Infra => "INFRA",
            Self::Fail => "FAIL",
        })
    }
}

/// How a fact about the guest was come by; the two are never mixed in one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Seen from outside, as a person at the machine would see it.
    Faithful,
    /// Said by the probe that runs inside.
    Probe,
}

/// One check's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Name of the check.
    pub check: String,
    /// How it was tested.
    pub lane: Lane,
    /// How it ended.
    pub verdict: Verdict,
    /// One line for people.
    pub summary: String,
    /// What the verdict rests on: serial lines, probe answers.
    pub evidence: Vec<String>,
    /// Seconds from the start of the machine until the verdict.
    pub seconds: f64,
}

/// When the guest got how far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase that was entered.
    pub phase: Phase,
    /// Seconds from the start of the machine.
    pub seconds: f64,
}

/// One ISO booted on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootReport {
    /// File name of the ISO.
    pub iso: String,
    /// Digest of the ISO's bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The machine.
    pub profile: ProfileName,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// In the order of entering.
    pub phases: Vec<PhaseTime>,
    /// In the order of asking.
    pub checks: Vec<CheckResult>,
    /// The gravest of the checks.
    pub verdict: Verdict,
    /// Seconds from the start of the machine until the last verdict.
    pub seconds: f64,
}

impl BootReport {
    /// The gravest of the checks; a boot test that checked nothing proved nothing.
    pub fn overall(checks: &[CheckResult]) -> Verdict {
        checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Inconclusive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_check_decides() {
        let check = |verdict| CheckResult {
            check: "x".into(),
            lane: Lane::Probe,
            verdict,
            summary: String::new(),
            evidence: vec![],
            seconds: 0.0,
        };
        use Verdict::*;
        assert_eq!(BootReport::overall(&[check(Pass), check(Pass)]), Pass);
        assert_eq!(BootReport::overall(&[check(Pass), check(Inconclusive)]), Inconclusive);
        assert_eq!(BootReport::overall(&[check(Infra), check(Inconclusive)]), Infra);
        assert_eq!(BootReport::overall(&[check(Infra), check(Fail), check(Pass)]), Fail);
        assert_eq!(BootReport::overall(&[]), Inconclusive);
    }

    #[test]
    fn verdicts_read_the_same_as_text_and_as_json() {
        for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::Infra] {
            assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{verdict}\""));
        }
    }
}
