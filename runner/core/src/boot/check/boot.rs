//! `boot`: the multi-user target, or the system's own default one, is reached and no unit has failed.

use super::super::cause::Cause;
use super::{Answer, Finding, Judgement, lines, values};

/// Waits for systemd, which says at once when it is done: asking again and again would be later, and slow the boot
/// down. So does every question to it, for which a slow machine takes a quarter of a second.
pub(super) const SCRIPT: &str = r#"
state=$(timeout 30 systemctl is-system-running --wait 2>/dev/null)
[ "$state" ] || state=$(systemctl is-system-running 2>/dev/null)
echo "state $state"
for session in /run/systemd/sessions/*; do
    [ -f "$session" ] && grep -qE '^TYPE=(x11|wayland)$' "$session" && echo "session ${session##*/}"
done
systemctl show --property=Id --property=ActiveState multi-user.target default.target | while read -r line; do
    case $line in
    Id=*) target=${line#Id=} ;;
    ActiveState=active) echo "target $target" ;;
    esac
done
[ "$state" = running ] && exit
systemctl list-jobs --no-legend --no-pager 2>/dev/null | while read -r _ unit _; do echo "job $unit"; done
systemctl list-units --failed --plain --no-legend --no-pager | while read -r unit _; do
    echo "failed $unit"
    journalctl --boot --no-pager --output=cat --lines=15 --unit="$unit" | sed "s/^/log $unit: /"
done
"#;

pub(super) fn judge(answer: &Answer) -> Judgement {
    let evidence = lines(answer);
    let state = values(answer, "state").first().copied().unwrap_or_default().to_owned();
    let reached = values(answer, "target").first().map(|target| (*target).to_owned());
    let failed = values(answer, "failed");
    match state.as_str() {
        "running" => Judgement::Settled(match reached {
            Some(target) => Finding::pass(format!("{target} reached, no failed unit"), evidence),
            None => Finding::fail(
                "the system is up, but neither multi-user.target nor its default target is part of it",
                evidence,
            ),
        }),
        "degraded" => Judgement::Settled(
            Finding::fail(format!("failed units: {}", failed.join(", ")), evidence)
                .because(Cause::FailedUnits),
        ),
        "maintenance" => Judgement::Settled(
            Finding::fail("the system is in rescue or emergency mode", evidence)
                .because(Cause::EmergencyMode),
        ),
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
    fn running_with_the_target_reached_passes() {
        for target in ["multi-user.target", "anaconda.target"] {
            let output = format!("state running\ntarget {target}\n");
            let Judgement::Settled(finding) = judged(&output) else { panic!() };
            assert_eq!(finding.verdict, Verdict::Pass);
            assert_eq!(finding.summary, format!("{target} reached, no failed unit"));
        }
    }

    #[test]
    fn a_failed_unit_fails_with_its_name_and_log() {
        let output =
            "state degraded\ntarget multi-user.target\nfailed foo.service\nlog foo.service: no such file\n";
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
