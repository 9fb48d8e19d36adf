//! A run's boot tests as JUnit XML, which continuous integration reads.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite, XmlString};

use crate::boot::{BootReport, Cause, CheckResult, CheckSpec, Verdict};
use crate::record::RunRecord;

/// A boot test that ended.
#[derive(Debug, Clone)]
pub struct BootSuite {
    /// What came of it.
    pub report: BootReport,
    /// Folder with logs and pictures; empty where an earlier run came to the result.
    pub folder: String,
    /// The end of its serial log: bytes as the guest sent them.
    pub serial_tail: Vec<u8>,
}

/// The document: a suite for each boot test, a case for each check.
///
/// FAIL is a failure, INFRA an error, INCONCLUSIVE skipped. Times are seconds from the start of the machine. A run that
/// came to no boot test for an error, or that has not come to its end, has one case that says so.
pub fn junit(record: &RunRecord, boots: &[BootSuite]) -> String {
    let mut document = Report::new("isokiln");
    document.set_time(seconds(record.seconds));
    document.add_test_suites(boots.iter().map(suite));
    if let Some(trouble) = trouble(record, boots) {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(printable(&trouble)).set_type("run");
        let mut suite = TestSuite::new("isokiln");
        suite.add_test_case(TestCase::new("run", status));
        document.add_test_suite(suite);
    }
    // A string takes everything, and every character in it is one of XML's.
    document.to_string().unwrap_or_default()
}

/// Why the run says less than was asked of it.
fn trouble(record: &RunRecord, boots: &[BootSuite]) -> Option<String> {
    match (record.exit_code, &record.error) {
        (None, _) => Some("the run has not come to its end".to_owned()),
        (Some(_), Some(error)) => Some(error.clone()),
        (Some(code), None) if code != 0 && boots.is_empty() => Some("no ISO was tested".to_owned()),
        _ => None,
    }
}

fn suite(boot: &BootSuite) -> TestSuite {
    let report = &boot.report;
    let name = format!("{} on {}", report.iso, report.profile);
    let mut suite = TestSuite::new(printable(&name));
    suite.set_time(seconds(report.seconds));
    let facts = [
        ("digest", report.digest.to_string()),
        ("accelerator", report.accelerator.clone()),
        ("accelerator-reason", report.accelerator_reason.clone()),
        ("reached", report.reached.map_or("", |phase| phase.name()).to_owned()),
        ("cause", report.cause.map_or("", |cause| cause.name()).to_owned()),
        ("channel", report.channel().map_or("", |channel| channel.name()).to_owned()),
        ("evidence", boot.folder.clone()),
    ];
    let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
    suite.add_properties(known.map(|(key, value)| Property::new(key, printable(&value))));
    suite.add_test_cases(report.checks.iter().map(|check| case(boot, check, &name)));
    if !boot.serial_tail.is_empty() {
        suite.set_system_out(printable(&String::from_utf8_lossy(&boot.serial_tail)));
    }
    suite
}

fn case(boot: &BootSuite, check: &CheckResult, suite: &str) -> TestCase {
    let mut status = match check.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Inconclusive => TestCaseStatus::skipped(),
        Verdict::Infra => TestCaseStatus::non_success(NonSuccessKind::Error),
        Verdict::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    if check.verdict != Verdict::Pass {
        // Why the boot ended is no reason for what was found after it.
        let of_boot = boot.report.cause.filter(|_| check.check == CheckSpec::boot().name());
        let cause = check.cause.or(of_boot);
        let kind = match (check.verdict, cause) {
            (Verdict::Infra, _) => "infra",
            (_, Some(cause)) => cause.name(),
            (Verdict::Inconclusive, None) => "inconclusive",
            (_, None) => Cause::CheckFailed.name(),
        };
        let mut words = vec![format!("{}: {}", check.verdict, check.summary)];
        let cause = cause.filter(|_| check.verdict != Verdict::Infra);
        words.extend(cause.map(|cause| format!("cause: {cause}")));
        words.extend(check.evidence.iter().cloned());
        if !boot.folder.is_empty() {
            words.push(format!("evidence: {}", boot.folder));
        }
        status
            .set_message(printable(&check.summary))
            .set_type(kind)
            .set_description(printable(&words.join("\n")));
    }
    let mut case = TestCase::new(printable(&check.check), status);
    case.set_classname(printable(suite)).set_time(seconds(check.seconds));
    case
}

/// Without colours and without the characters that XML does not allow. Two of those are left in by the library.
fn printable(text: &str) -> XmlString {
    XmlString::new(text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}"))
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::{check, report};
    use crate::boot::{Channel, Lane, LaneReport, Phase, Verdict::*};

    fn ended() -> RunRecord {
        RunRecord { exit_code: Some(4), seconds: 62.5, ..RunRecord::default() }
    }

    fn boot() -> BootSuite {
        let mut checks = vec![
            check("boot", Fail),
            check("network-manager", Inconclusive),
            check("command: <true> & \"more\"", Pass),
            check("wlan", Infra),
            check("service: ssh", Fail),
            check("screen: x", Fail),
        ];
        checks[5].cause = Some(Cause::MenuWaits);
        let summaries =
            ["units have failed", "not tested", "", "QEMU ended", "ssh is inactive", "never read"];
        for (check, summary) in checks.iter_mut().zip(summaries) {
            check.summary = summary.to_owned();
            check.seconds = 41.25;
        }
        checks[0].evidence = vec!["\u{1b}[31mFAILED\u{1b}[0m x.service ]]>".to_owned()];
        let mut report = report("live.iso", "bios-cd", checks);
        report.reached = Some(Phase::MultiUser);
        report.cause = Some(Cause::FailedUnits);
        report.seconds = 60.0;
        let lane = |channel| LaneReport {
            lane: Lane::Probe,
            channel,
            verdict: Fail,
            summary: String::new(),
            seconds: 60.0,
        };
        report.lanes =
            [Some(Channel::GuestAgent), Some(Channel::Console), None].into_iter().map(lane).collect();
        BootSuite { report, folder: "/runs/1/boot/live/bios-cd".into(), serial_tail: b"login: \n".to_vec() }
    }

    #[test]
    fn every_verdict_has_its_place() {
        insta::assert_snapshot!(junit(&ended(), &[boot()]));
    }

    /// XML 1.0, production 2.
    fn allowed(c: char) -> bool {
        matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
    }

    #[test]
    fn whatever_a_guest_sends_the_document_is_xml() {
        let mut boot = boot();
        let noise = "a\u{fffe}b\u{ffff}c\u{0}d";
        boot.report.iso = noise.to_owned();
        boot.report.checks[0].check = noise.to_owned();
        boot.report.checks[0].summary = noise.to_owned();
        boot.serial_tail = [
            &[0, 1, 8, 0x0b, 0x1b, b'[', b'3', b'1', b'm', 0xff, 0xfe, 0xc3][..],
            "\u{ffff}<&]]>end".as_bytes(),
        ]
        .concat();
        let text = junit(&ended(), std::slice::from_ref(&boot));
        assert!(text.chars().all(allowed), "{text:?}");
        assert!(text.contains("&lt;&amp;"), "{text}");
        let read = Report::deserialize_from_str(&text).expect("the document reads back");
        assert!(read.test_suites[0].system_out.as_ref().unwrap().ends_with("<&]]>end"), "{text}");
        assert_eq!(read.test_suites[0].name.as_str(), "a\u{fffd}b\u{fffd}cd on bios-cd");
    }

    #[test]
    fn a_run_without_a_boot_test_is_no_success() {
        let errors = |record: &RunRecord, boots: &[BootSuite]| {
            let read = Report::deserialize_from_str(&junit(record, boots)).unwrap();
            (read.tests, read.errors)
        };
        assert_eq!(errors(&RunRecord::default(), &[]), (1, 1), "it has not ended");
        let failed = RunRecord { error: Some("stage base: no mirror".into()), ..ended() };
        assert_eq!(errors(&failed, &[]), (1, 1));
        assert!(junit(&failed, &[]).contains("stage base: no mirror"));
        assert_eq!(errors(&ended(), &[]), (1, 1), "it failed without an error");
        assert_eq!(errors(&ended(), &[boot()]), (6, 1), "only what broke is an error");
        let untested = RunRecord { exit_code: Some(0), ..RunRecord::default() };
        assert_eq!(errors(&untested, &[]), (0, 0), "a build without tests is fine");
    }
}
