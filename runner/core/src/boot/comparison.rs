//! Two boot tests on the same machine compared: that of an ISO, and that of the one which is to take its place.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::console::Phase;
use super::verdict::{BootReport, Inventory, Verdict};
use crate::names::ProfileName;

/// A time that differs by less than this share of the old one is noise.
const SHARE: f64 = 0.2;
/// So is one that differs by fewer seconds.
const SECONDS: f64 = 3.0;

/// What has changed from one ISO to another on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The machine.
    pub profile: ProfileName,
    /// File name of the ISO that is compared against.
    pub old: String,
    /// File name of the ISO that was asked about.
    pub new: String,
    /// What has become worse, a line for people each: checks that passed before, units that did not fail before.
    pub regressions: Vec<String>,
    /// Checks with another verdict than before.
    pub checks: Vec<CheckChange>,
    /// Every phase that one of the two reached.
    pub phases: Vec<PhaseChange>,
    /// Releases of the running kernels, old and new, where both are known and differ.
    pub kernels: Option<[String; 2]>,
    /// Units that have failed; absent where one of the two could not be asked.
    pub failed_units: Option<SetChange>,
    /// Modules that were loaded; absent where one of the two could not be asked.
    pub modules: Option<SetChange>,
    /// Entries of the boot menu; absent where one of the two could not be read.
    pub menu: Option<SetChange>,
    /// How alike the last screens are, from 0 to 1; absent where one of the two has none. Told, never judged.
    pub similarity: Option<f64>,
}

/// A check with another verdict than before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckChange {
    /// Name of the check.
    pub check: String,
    /// Its verdict on the old ISO; absent where it was not made.
    pub old: Option<Verdict>,
    /// Its verdict on the new one; absent where it was not made.
    pub new: Option<Verdict>,
}

/// When a phase was entered, seconds from the start of the machine; absent where it was not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseChange {
    /// The phase.
    pub phase: Phase,
    /// On the old ISO.
    pub old: Option<f64>,
    /// On the new one.
    pub new: Option<f64>,
    /// New time divided by old one, where both are there and the old one is not 0.
    pub ratio: Option<f64>,
    /// What is to be called a difference.
    pub pace: Pace,
}

/// Whether a time differs by more than noise: more than 20 % of the old one and more than 3 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// It does not, or cannot be compared.
    Same,
    /// The new ISO takes longer.
    Slower,
    /// The new ISO takes less time.
    Faster,
}

/// Names that are there now and were not before, and the other way round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChange {
    /// Only with the new ISO.
    pub new: Vec<String>,
    /// Only with the old one.
    pub gone: Vec<String>,
}

impl Comparison {
    /// Compares two reports from the same machine; `similarity` is that of their last screens, from 0 to 1.
    pub fn of(old: &BootReport, new: &BootReport, similarity: Option<f64>) -> Self {
        let inventories = old.inventory.as_ref().zip(new.inventory.as_ref());
        let names = |names: fn(&Inventory) -> &[String]| {
            inventories.map(|(old, new)| SetChange::of(names(old), names(new)))
        };
        let checks = changed_checks(old, new);
        let failed_units = names(|inventory| &inventory.failed_units);
        let worse = checks.iter().filter(|change| change.old == Some(Verdict::Pass));
        let units = failed_units.iter().flat_map(|units| &units.new);
        let regressions = worse
            .map(|change| now_worse(change, new))
            .chain(units.map(|unit| format!("unit {unit} has failed, which it had not before")))
            .collect();
        let menus_known = !old.menu.is_empty() && !new.menu.is_empty();
        Self {
            profile: new.profile.clone(),
            old: old.iso.clone(),
            new: new.iso.clone(),
            regressions,
            checks,
            phases: phases(old, new),
            kernels: inventories
                .filter(|(old, new)| old.kernel != new.kernel)
                .map(|(old, new)| [old.kernel.clone(), new.kernel.clone()]),
            failed_units,
            modules: names(|inventory| &inventory.modules),
            menu: menus_known.then(|| SetChange::of(&old.menu, &new.menu)),
            similarity,
        }
    }
}

impl PhaseChange {
    fn of(phase: Phase, old: Option<f64>, new: Option<f64>) -> Self {
        let pace = match old.zip(new) {
            Some((old, new)) if (new - old).abs() > SECONDS.max(old * SHARE) => {
                if new > old {
                    Pace::Slower
                } else {
                    Pace::Faster
                }
            }
            _ => Pace::Same,
        };
        let ratio = old.zip(new).filter(|(old, _)| *old > 0.0).map(|(old, new)| new / old);
        Self { phase, old, new, ratio, pace }
    }
}

impl SetChange {
    fn of(old: &[String], new: &[String]) -> Self {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
        let without = |all: &BTreeSet<&String>, others: &BTreeSet<&String>| {
            all.difference(others).map(|name| (*name).clone()).collect()
        };
        Self { new: without(&new, &old), gone: without(&old, &new) }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }
}

fn verdict_of(report: &BootReport, check: &str) -> Option<Verdict> {
    report.checks.iter().find(|result| result.check == check).map(|result| result.verdict)
}

/// In the order of the new report, then what only the old one has.
fn changed_checks(old: &BootReport, new: &BootReport) -> Vec<CheckChange> {
    let only_old = old.checks.iter().filter(|result| verdict_of(new, &result.check).is_none());
    let all = new.checks.iter().chain(only_old);
    all.map(|result| CheckChange {
        check: result.check.clone(),
        old: verdict_of(old, &result.check),
        new: verdict_of(new, &result.check),
    })
    .filter(|change| change.old != change.new)
    .collect()
}

fn now_worse(change: &CheckChange, new: &BootReport) -> String {
    let CheckChange { check, new: verdict, .. } = change;
    let verdict = verdict.map_or("not made".to_owned(), |verdict| verdict.to_string());
    let summary = new.checks.iter().find(|result| result.check == *check).map(|result| &*result.summary);
    format!("{check} passed before and is now {verdict}: {}", summary.unwrap_or("nobody asked"))
}

fn phases(old: &BootReport, new: &BootReport) -> Vec<PhaseChange> {
    // A machine that restarts enters a phase again.
    let first = |report: &BootReport, phase| {
        report.phases.iter().find(|time| time.phase == phase).map(|time| time.seconds)
    };
    let reached: BTreeSet<_> = old.phases.iter().chain(&new.phases).map(|time| time.phase).collect();
    reached.into_iter().map(|phase| PhaseChange::of(phase, first(old, phase), first(new, phase))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::{check, report};
    use crate::boot::{PhaseTime, Verdict::*};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn inventory(kernel: &str, failed: &[&str], modules: &[&str]) -> Option<Inventory> {
        Some(Inventory { kernel: kernel.to_owned(), failed_units: names(failed), modules: names(modules) })
    }

    #[test]
    fn an_iso_compared_with_itself_has_not_changed() {
        let mut one = report("a.iso", "bios-cd", vec![check("boot", Pass), check("wlan", Fail)]);
        one.phases = vec![PhaseTime { phase: Phase::Kernel, seconds: 9.0 }];
        one.menu = names(&["Live"]);
        one.inventory = inventory("6.12", &["old.service"], &["loop"]);
        let same = Comparison::of(&one, &one, Some(1.0));
        assert!(same.regressions.is_empty() && same.checks.is_empty() && same.kernels.is_none(), "{same:?}");
        assert_eq!(same.phases[0].pace, Pace::Same);
        assert_eq!(same.phases[0].ratio, Some(1.0));
        for set in [same.failed_units, same.modules, same.menu] {
            assert!(set.unwrap().is_empty());
        }
    }

    #[test]
    fn a_check_that_passed_before_and_a_unit_that_did_not_fail_before_are_regressions() {
        let mut old = report(
            "a.iso",
            "bios-cd",
            vec![check("boot", Pass), check("wlan", Fail), check("network-manager", Pass), check("x", Fail)],
        );
        let mut new = report(
            "b.iso",
            "bios-cd",
            vec![check("boot", Fail), check("wlan", Pass), check("network-manager", Inconclusive)],
        );
        new.checks[0].summary = "failed units: new.service".to_owned();
        old.inventory = inventory("6.1", &["old.service", "gone.service"], &[]);
        new.inventory = inventory("6.12", &["new.service", "old.service"], &[]);
        let found = Comparison::of(&old, &new, None);
        assert_eq!(
            found.regressions,
            [
                "boot passed before and is now FAIL: failed units: new.service",
                "network-manager passed before and is now INCONCLUSIVE: ",
                "unit new.service has failed, which it had not before",
            ]
        );
        let checks: Vec<_> =
            found.checks.iter().map(|change| (&*change.check, change.old, change.new)).collect();
        assert_eq!(
            checks,
            [
                ("boot", Some(Pass), Some(Fail)),
                ("wlan", Some(Fail), Some(Pass)),
                ("network-manager", Some(Pass), Some(Inconclusive)),
                ("x", Some(Fail), None),
            ]
        );
        assert_eq!(found.kernels, Some(["6.1".to_owned(), "6.12".to_owned()]));
        assert_eq!(found.failed_units.unwrap().gone, ["gone.service"]);
    }

    #[test]
    fn another_screen_is_told_but_no_regression() {
        let one = report("a.iso", "bios-cd", vec![check("boot", Pass)]);
        let found = Comparison::of(&one, &one, Some(0.1));
        assert_eq!((found.similarity, found.regressions.len()), (Some(0.1), 0));
    }

    #[test]
    fn only_differences_beyond_noise_count() {
        let pace = |old, new| PhaseChange::of(Phase::Kernel, Some(old), Some(new)).pace;
        // More than a fifth, but less than three seconds; more than three seconds, but less than a fifth.
        assert_eq!([pace(5.0, 7.9), pace(100.0, 119.0), pace(100.0, 81.0)], [Pace::Same; 3]);
        assert_eq!([pace(5.0, 8.1), pace(100.0, 121.0), pace(0.0, 3.1)], [Pace::Slower; 3]);
        assert_eq!([pace(8.1, 5.0), pace(100.0, 79.0)], [Pace::Faster; 2]);
    }

    #[test]
    fn a_phase_that_only_one_of_them_reached_is_listed() {
        let mut old = report("a.iso", "bios-cd", vec![]);
        let mut new = old.clone();
        old.phases = vec![
            PhaseTime { phase: Phase::Firmware, seconds: 1.0 },
            PhaseTime { phase: Phase::Kernel, seconds: 4.0 },
            PhaseTime { phase: Phase::Firmware, seconds: 50.0 },
        ];
        new.phases = vec![PhaseTime { phase: Phase::Firmware, seconds: 1.5 }];
        let found = Comparison::of(&old, &new, None).phases;
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].old, found[0].new, found[0].ratio), (Some(1.0), Some(1.5), Some(1.5)));
        assert_eq!((found[1].phase, found[1].old, found[1].new), (Phase::Kernel, Some(4.0), None));
        assert_eq!((found[1].ratio, found[1].pace), (None, Pace::Same));
    }

    #[test]
    fn what_only_one_of_them_told_is_not_compared() {
        let mut old = report("a.iso", "bios-cd", vec![]);
        let new = old.clone();
        old.menu = names(&["Live"]);
        old.inventory = inventory("6.1", &["x.service"], &["loop"]);
        for (one, other) in [(&old, &new), (&new, &old)] {
            let found = Comparison::of(one, other, None);
            assert_eq!((found.menu, found.modules, found.failed_units), (None, None, None));
            assert!(found.regressions.is_empty() && found.kernels.is_none());
        }
    }
}
