//! The sentences and sums of a boot test's report.

use isokiln_core::boot::{BootReport, Cause, CheckResult, CheckSpec, Lane, LaneReport, Phase, Verdict};

use super::watch::Ending;
use super::{BootError, BootRequest};

/// The faithful lane in a sentence.
pub(super) fn faithful_lane(
    ending: &Option<Ending>,
    login: Option<&str>,
    came_up: bool,
    reached: Option<Phase>,
    seconds: f64,
) -> LaneReport {
    let lane = |verdict, summary: String| LaneReport {
        lane: Lane::Faithful,
        channel: None,
        verdict,
        summary,
        seconds,
    };
    let phase = reached.map_or("nothing".to_owned(), |phase| phase.to_string());
    match (login, ending) {
        (Some(line), None | Some(Ending::Because { cause: Cause::NoProbe, .. })) => {
            lane(Verdict::Pass, format!("came up by itself: {line}"))
        }
        (_, Some(Ending::Because { cause, .. })) => {
            lane(cause.verdict(), format!("{cause}, after reaching {phase}"))
        }
        (_, Some(Ending::Broken(words))) => lane(Verdict::Infra, words.clone()),
        (None, None) if came_up => lane(Verdict::Pass, format!("reached {phase}; the probe says the rest")),
        (None, None) => {
            lane(Verdict::Inconclusive, format!("reached {phase}; nothing more was read from outside"))
        }
    }
}

/// The boot's own verdict, where the probe could not give it.
pub(super) fn ended(
    cause: Cause,
    lines: &[String],
    login: Option<&str>,
    reached: Option<Phase>,
    seconds: f64,
) -> CheckResult {
    let phase = reached.map_or("the start".to_owned(), |phase| format!("the phase \"{phase}\""));
    let summary = match cause {
        Cause::NoProbe => match login {
            Some(line) => format!("came up ({line}), but no probe got in, so nothing else could be asked"),
            None => "came up, but no probe got in, so nothing else could be asked".to_owned(),
        },
        Cause::Silent => format!(
            "programs run, but nothing was read of them within {seconds:.0} seconds: add console=ttyS0 to the \
             kernel arguments, so that a silent boot can be told from a hung one"
        ),
        Cause::NotLinux => format!("{cause}: after {phase}, no kernel of Linux was started"),
        Cause::Hang => format!("nothing moves any more after {phase}"),
        Cause::TooSlow => format!("the boot did not get beyond {phase} within {seconds:.0} seconds"),
        cause => cause.to_string(),
    };
    CheckResult {
        check: CheckSpec::boot().name(),
        lane: Lane::Faithful,
        channel: None,
        verdict: cause.verdict(),
        summary,
        cause: Some(cause),
        evidence: lines.to_vec(),
        picture: None,
        seconds,
    }
}

/// The end of a check that could not be made because the tester broke.
pub(super) fn broken(check: String, words: &str, evidence: Vec<String>, seconds: f64) -> CheckResult {
    CheckResult {
        check,
        lane: Lane::Faithful,
        channel: None,
        verdict: Verdict::Infra,
        summary: words.to_owned(),
        cause: None,
        evidence,
        picture: None,
        seconds,
    }
}

/// The note of a machine that an earlier one does without.
pub(super) fn no_machine(words: &str) -> String {
    format!("a machine for the probe could not be run: {words}")
}

/// Adds the checks that were not made, because the boot ended before they could be, and draws the sum.
pub(super) fn completed(request: &BootRequest, mut report: BootReport) -> BootReport {
    let why = report.checks.first().map_or_else(String::new, |first| format!(": {}", first.summary));
    for check in &request.checks {
        if !report.checks.iter().any(|result| result.check == check.name()) {
            report.checks.push(CheckResult {
                check: check.name(),
                lane: Lane::Probe,
                channel: None,
                verdict: Verdict::Inconclusive,
                summary: format!("not tested{why}"),
                cause: None,
                evidence: Vec::new(),
                picture: None,
                seconds: report.seconds,
            });
        }
    }
    // The boot comes first, then the checks in the order in which they were asked for.
    let asked = |result: &CheckResult| request.checks.iter().any(|check| check.name() == result.check);
    if report.cause.is_none() {
        // An undecided boot that nobody asked for, and that a later machine has decided.
        report.checks.retain(|result| asked(result) || result.verdict > Verdict::Inconclusive);
    }
    let order = |result: &CheckResult| request.checks.iter().position(|check| check.name() == result.check);
    report.checks.sort_by_key(|result| order(result).map_or(0, |index| index + 1));
    report.verdict = BootReport::overall(&report.checks);
    if report.cause.is_none() && report.verdict == Verdict::Fail {
        let failed = report.checks.iter().find(|check| check.verdict == Verdict::Fail);
        report.cause = Some(failed.and_then(|check| check.cause).unwrap_or(Cause::CheckFailed));
    }
    report
}

/// Makes a report of a boot test that could not be carried out: every check ends as INFRA.
pub fn infra_report(request: &BootRequest, error: &BootError) -> BootReport {
    let mut evidence = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        evidence.push(inner.to_string());
        source = inner.source();
    }
    let mut report = blank(request);
    let words = error.to_string();
    report.checks =
        request.checks.iter().map(|check| broken(check.name(), &words, evidence.clone(), 0.0)).collect();
    completed(request, report)
}

/// A report in which nothing is found out yet.
pub(super) fn blank(request: &BootRequest) -> BootReport {
    BootReport {
        iso: request.iso.name.clone(),
        digest: request.iso.digest,
        size: request.iso.size,
        profile: request.profile.name.clone(),
        accelerator: request.acceleration.accelerator.to_string(),
        accelerator_reason: request.acceleration.reason.clone(),
        lanes: Vec::new(),
        phases: Vec::new(),
        reached: None,
        cause: None,
        menu: Vec::new(),
        notes: Vec::new(),
        inventory: None,
        checks: Vec::new(),
        verdict: Verdict::Inconclusive,
        seconds: 0.0,
    }
}
