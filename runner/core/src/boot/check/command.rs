//! `command`: any shell command, with the exit status that it must end with.

use super::{Answer, Finding, Judgement, lines};

/// What `timeout` exits with when it has to stop a command.
const TIMED_OUT: i32 = 124;

pub(super) fn judge(expected: i32, answer: &Answer) -> Judgement {
    let evidence = lines(answer);
    Judgement::Settled(match answer.status {
        status if status == expected => Finding::pass(format!("exit status {status}"), evidence),
        TIMED_OUT => Finding::fail("the command did not end in time", evidence),
        status => Finding::fail(format!("exit status {status}, expected {expected}"), evidence),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Verdict;

    #[test]
    fn the_status_decides_and_the_output_is_evidence() {
        let answer = Answer { status: 3, output: "inactive\n".into() };
        let Judgement::Settled(finding) = judge(3, &answer) else { panic!() };
        assert_eq!((finding.verdict, finding.evidence), (Verdict::Pass, vec!["inactive".to_owned()]));
        assert!(matches!(judge(0, &answer), Judgement::Settled(f) if f.verdict == Verdict::Fail));
    }
}
