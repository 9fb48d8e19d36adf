//! `command`: any shell command, with the exit status that it must end with.

use super::{Answer, Finding, Judgement, lines};

/// What `timeout` exits with when it has to stop a command.
const TIMED_OUT: i32 = 124;

/// With `again`, another status may still become the expected one.
pub(super) fn judge(expected: i32, answer: &Answer, again: bool) -> Judgement {
    let evidence = lines(answer);
    let finding = match answer.status {
        status if status == expected => Finding::pass(format!("exit status {status}"), evidence),
        TIMED_OUT => Finding::fail("the command did not end in time", evidence),
        status => Finding::fail(format!("exit status {status}, expected {expected}"), evidence),
    };
    if again && answer.status != expected { Judgement::NotYet(finding) } else { Judgement::Settled(finding) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Verdict;

    #[test]
    fn the_status_decides_and_the_output_is_evidence() {
        let answer = Answer { status: 3, output: "inactive\n".into() };
        let Judgement::Settled(finding) = judge(3, &answer, false) else { panic!() };
        assert_eq!((finding.verdict, finding.evidence), (Verdict::Pass, vec!["inactive".to_owned()]));
        assert!(matches!(judge(0, &answer, false), Judgement::Settled(f) if f.verdict == Verdict::Fail));
        assert!(matches!(judge(0, &answer, true), Judgement::NotYet(f) if f.verdict == Verdict::Fail));
    }
}
