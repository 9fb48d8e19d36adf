use isokiln_core::boot::{
    Cause, Channel, CheckResult, Inventory, Lane, LaneReport, Phase, PhaseTime, Verdict::*,
};
use isokiln_core::digest::Digest;

use super::*;

/// A report with these checks; the probe came in unless the first of them is undecided.
pub(crate) fn report(iso: &str, profile: &str, checks: &[(&str, Verdict)]) -> BootReport {
    let result = |(check, verdict): &(&str, Verdict)| CheckResult {
        check: (*check).to_owned(),
        lane: Lane::Probe,
        channel: None,
        verdict: *verdict,
        summary: String::new(),
        cause: None,
        evidence: Vec::new(),
        picture: None,
        seconds: 41.2,
    };
    let checks: Vec<_> = checks.iter().map(result).collect();
    let came_in = checks.first().is_some_and(|check| check.verdict != Inconclusive);
    let lane = LaneReport {
        lane: Lane::Probe,
        channel: Some(Channel::Credentials),
        verdict: Pass,
        summary: String::new(),
        seconds: 41.2,
    };
    BootReport {
        iso: iso.to_owned(),
        digest: Digest::of(iso),
        size: 1,
        profile: profile.parse().unwrap(),
        accelerator: "tcg".to_owned(),
        accelerator_reason: String::new(),
        lanes: if came_in { vec![lane] } else { Vec::new() },
        phases: Vec::new(),
        reached: Some(Phase::MultiUser),
        cause: None,
        menu: Vec::new(),
        notes: Vec::new(),
        inventory: None,
        verdict: BootReport::overall(&checks),
        checks,
        seconds: 41.2,
    }
}

fn table(iso: Option<&str>, reports: &[BootReport], width: usize) -> Vec<String> {
    of_iso(iso, &reports.iter().collect::<Vec<_>>(), width)
}

#[test]
fn one_machine_on_which_all_is_well_needs_one_line() {
    let lines = table(None, &[report("a.iso", "bios-cd", &[("boot", Pass), ("wlan", Pass)])], 80);
    assert_eq!(lines, ["        PASS bios-cd: reached multi-user, probe by credentials, 41.2s"]);
    let lines = table(Some("a.iso"), &[report("a.iso", "bios-cd", &[("boot", Pass)])], 80);
    assert!(lines[0].starts_with("        PASS a.iso bios-cd: "), "{lines:?}");
}

#[test]
fn a_row_for_each_check_and_a_column_for_each_machine() {
    let mut failed = report("a.iso", "uefi-cd", &[("boot", Fail), ("service: x", Inconclusive)]);
    failed.cause = Some(Cause::KernelPanic);
    failed.reached = None;
    let lines = table(Some("a.iso"), &[report("a.iso", "bios-cd", &[("boot", Pass)]), failed], 80);
    assert_eq!(
        lines,
        [
            "",
            "a.iso",
            "            bios-cd      uefi-cd",
            "boot        PASS         FAIL",
            "service: x  -            INCONCLUSIVE",
            "reached     multi-user   -",
            "cause       -            kernel-panic",
            "probe       credentials  credentials",
            "seconds     41.2         41.2",
            "",
        ]
    );
}

const PROFILES: [&str; 5] = ["bios-cd", "bios-usb", "uefi-cd", "uefi-secureboot", "uefi-usb"];

#[test]
fn all_five_machines_fit_beside_each_other_in_80_columns() {
    let checks = ["boot", "network-manager", "no-failed-units", "wlan"].map(|check| (check, Inconclusive));
    let reports = PROFILES.map(|profile| {
        let mut report = report("a.iso", profile, &checks);
        report.checks[1].verdict = Pass;
        report.cause = Some(Cause::SecureBootRefused);
        report
    });
    let lines = table(None, &reports, 80);
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    // One table: every verdict of a check in one line, whole.
    for (check, verdict) in [("boot", "INCONCLUSIVE"), ("wlan", "INCONCLUSIVE"), ("network-", "PASS")] {
        let line = lines.iter().find(|line| line.starts_with(check)).unwrap();
        assert_eq!(line.matches(verdict).count(), 5, "{lines:#?}");
    }
    assert!(lines.len() < 16, "{lines:#?}");
}

#[test]
fn a_comparison_names_what_has_become_worse_first() {
    let mut old = report("old.iso", "bios-cd", &[("boot", Pass), ("wlan", Fail)]);
    let mut new = report("new.iso", "bios-cd", &[("boot", Fail), ("wlan", Pass)]);
    new.checks[0].summary = "failed units: x.service".to_owned();
    let at = |phase, seconds| PhaseTime { phase, seconds };
    old.phases = vec![at(Phase::Firmware, 1.0), at(Phase::Kernel, 4.0), at(Phase::MultiUser, 30.0)];
    new.phases = vec![at(Phase::Firmware, 1.5), at(Phase::Kernel, 9.0)];
    let modules: Vec<_> = (0..10).map(|index| format!("m{index}")).collect();
    old.inventory =
        Some(Inventory { kernel: "6.1".into(), failed_units: vec![], modules: vec!["old".into()] });
    new.inventory =
        Some(Inventory { kernel: "6.12".into(), failed_units: vec!["x.service".into()], modules });
    let lines = of_comparison(&Comparison::of(&old, &new, Some(0.5)), 80);
    assert_eq!(
        lines,
        [
            "    Compared bios-cd: new.iso with old.iso",
            "  regression boot passed before and is now FAIL: failed units: x.service",
            "  regression unit x.service has failed, which it had not before",
            "                old.iso  new.iso",
            "boot            PASS     FAIL",
            "wlan            FAIL     PASS",
            "firmware        1.0s     1.5s     1.50 times",
            "kernel          4.0s     9.0s     slower: 2.25 times",
            "multi-user      30.0s    -",
            "kernel release  6.1      6.12",
            "failed units 1 new: x.service",
            "     modules 10 new: m0, m1, m2, m3, m4, m5, m6, m7 and 2 more; 1 gone: old",
            "     screens 50 % alike at the end: they differ",
        ]
    );
}

#[test]
fn an_iso_that_is_no_worse_is_said_to_be() {
    let one = report("a.iso", "bios-cd", &[("boot", Fail)]);
    let lines = of_comparison(&Comparison::of(&one, &one, None), 80);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].starts_with("    no worse "), "{lines:?}");
}

#[test]
fn the_table_and_junit_name_the_same_way_in() {
    let mut last = report("a.iso", "bios-cd", &[("boot", Pass)]);
    let lane = |channel| LaneReport { channel, ..last.lanes[0].clone() };
    last.lanes = vec![lane(Some(Channel::GuestAgent)), lane(Some(Channel::Console)), lane(None)];
    last.lanes[2].lane = Lane::Faithful;
    assert_eq!(last.channel(), Some(Channel::Console));
    assert!(table(None, &[last], 80)[0].contains("probe by console"));
}
