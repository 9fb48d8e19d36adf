//! What a boot test ends with.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::channel::Channel;
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

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Faithful => "faithful",
            Self::Probe => "probe",
        })
    }
}

/// What one way of knowing came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// The way of knowing.
    pub lane: Lane,
    /// How the probe got in; absent in the faithful lane, and where it did not get in.
    pub channel: Option<Channel>,
    /// Whether the lane's boot got to a system for people.
    pub verdict: Verdict,
    /// One line for people.
    pub summary: String,
    /// Seconds from the start of the lane's machine until that was known.
    pub seconds: f64,
}

/// What the probe found in the running system, for comparing one ISO with another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Release of the running kernel.
    pub kernel: String,
    /// Units that have failed.
    pub failed_units: Vec<String>,
    /// Modules that were loaded.
    pub modules: Vec<String>,
}

/// One check's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Name of the check.
    pub check: String,
    /// How it was tested.
    pub lane: Lane,
    /// How the probe got in, where it says so.
    pub channel: Option<Channel>,
    /// How it ended.
    pub verdict: Verdict,
    /// One line for people.
    pub summary: String,
    /// Why it does not hold, where that is more than a check that fails.
    pub cause: Option<Cause>,
    /// What the verdict rests on: serial lines, probe answers.
    pub evidence: Vec<String>,
    /// What the screen showed then, where that belongs to it: a file of the boot test's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
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
    /// What each way of knowing came to.
    pub lanes: Vec<LaneReport>,
    /// The ISO's own way through the boot, in the order of entering.
    pub phases: Vec<PhaseTime>,
    /// How far it got.
    pub reached: Option<Phase>,
    /// Why it did not pass; absent where it did, and where the tester broke.
    pub cause: Option<Cause>,
    /// The boot menu's entries, where they could be read.
    pub menu: Vec<String>,
    /// What was done at the machine that a person would have had to do, and other things worth knowing.
    pub notes: Vec<String>,
    /// What the probe found in the running system.
    pub inventory: Option<Inventory>,
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

    /// How the probe got in: the last way that it did.
    pub fn channel(&self) -> Option<Channel> {
        let lanes = self.lanes.iter().filter(|lane| lane.lane == Lane::Probe);
        lanes.filter_map(|lane| lane.channel).next_back()
    }
}

/// Reports for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn check(name: &str, verdict: Verdict) -> CheckResult {
        CheckResult {
            check: name.to_owned(),
            lane: Lane::Probe,
            channel: None,
            verdict,
            summary: String::new(),
            cause: None,
            evidence: vec![],
            picture: None,
            seconds: 0.0,
        }
    }

    pub(crate) fn report(iso: &str, profile: &str, checks: Vec<CheckResult>) -> BootReport {
        BootReport {
            iso: iso.to_owned(),
            digest: Digest::of(iso),
            size: 7,
            profile: profile.parse().unwrap(),
            accelerator: "tcg".to_owned(),
            accelerator_reason: "there is no /dev/kvm".to_owned(),
            lanes: vec![],
            phases: vec![],
            reached: None,
            cause: None,
            menu: vec![],
            notes: vec![],
            inventory: None,
            verdict: BootReport::overall(&checks),
            checks,
            seconds: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_check_decides() {
        let check = |verdict| testing::check("x", verdict);
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
