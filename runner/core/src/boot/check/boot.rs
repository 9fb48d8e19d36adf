//! `boot`: the multi-user target is reached and no unit has failed.

use super::{Answer, Finding, Judgement, lines, values};

pub(super) const SCRIPT: &str = r#"
echo "state $(systemctl is-system-running 2>/dev/null)"
systemctl is-active --quiet multi-user.target && echo "multi-user reached"
systemctl list-jobs --no-legend --no-pager 2>/dev/null | while read -r _ unit _; do echo "job $unit"; done
systemctl list-units --failed --plain --no-legend --no-pager | while read -r unit _; do
    echo "failed $unit"
    journalctl --boot --no-pager --output=cat --lines=15 --unit="$unit" | sed "s/^/log $unit: /"
done
"#;

pub(super) fn judge(answer: &Answer) -> Judgement {
    let evidence = lines(answer);
    let state = values(answer, "state").first().copied().unwrap_or_default().to_owned();
    let reached = !values(answer, "multi-user").is_empty();
    let failed = values(answer, "failed");
    match state.as_str() {
        "running" if reached => {
            Judgement::Settled(Finding::pass("multi-user.target reached, no failed unit", evidence))
        }
        "running" => Judgement::Settled(Finding::fail(
            "the system is up but multi-user.target is not part of it",
            evidence,
        )),
        "degraded" => {
            Judgement::Settled(Finding::fail(format!("failed units: {}", failed.join(", ")), evidence))
        }
        "maintenance" => {
            Judgement::Settled(Finding::fail("the system is in rescue or emergency mode", evidence))
        }
        "" => Judgement::NotYet(Finding::fail("systemd does not answer", evidence)),
        _ => {
            let jobs = values(answer, "job");
            let waiting =
                if jobs.is_empty() { String::new() } else { format!(", waiting for {}", jobs.join(", ")) };
            Judgement::NotYet(Finding::fail(format!("the system is still {state}{waiting}"), evidence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Verdict;

    fn judged(output: &str) -> Judgement {
        judge(&Answer { status: 0, output: output.into() })
    }

    #[test]
    fn running_with_multi_user_passes() {
        let Judgement::Settled(finding) = judged("state running\nmulti-user reached\n") else { panic!() };
        assert_eq!(finding.verdict, Verdict::Pass);
    }

    #[test]
    fn a_failed_unit_fails_with_its_name_and_log() {
        let output =
            "state degraded\nmulti-user reached\nfailed foo.service\nlog foo.service: no such file\n";
        let Judgement::Settled(finding) = judged(output) else { panic!() };
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(finding.summary, "failed units: foo.service");
        assert!(finding.evidence.contains(&"log foo.service: no such file".to_owned()));
    }

    #[test]
    fn starting_waits_and_names_the_jobs() {
        let Judgement::NotYet(finding) = judged("state starting\njob slow.service\n") else { panic!() };
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(finding.summary, "the system is still starting, waiting for slow.service");
    }

    #[test]
    fn silence_is_not_a_pass() {
        assert!(matches!(judged(""), Judgement::NotYet(f) if f.verdict == Verdict::Fail));
        assert!(matches!(judged("state running\n"), Judgement::Settled(f) if f.verdict == Verdict::Fail));
    }
}
