//! Comparing what isokiln says of a boot with what the table says.

use serde_json::Value;

use super::table::{Expected, Verdict};

/// A way in which a report is not as expected. The first three are verdicts that nobody could trust.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// Something passed that does not hold.
    FalsePass(String),
    /// Something failed that holds, or that nobody can know.
    FalseFail(String),
    /// There is no verdict where there must be one, or one for another reason: which, and what it should be.
    Verdict(String),
    /// The furthest phase: what it should be, and what is said.
    Phase(String),
    /// The cause: what it should be, and what is said.
    Cause(String),
    /// What failed is not shown by the words that prove it: those words.
    Evidence(String),
    /// A dead ISO was called dead after so many seconds, which is too late.
    Late(f64),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FalsePass(what) => write!(f, "false PASS: {what}"),
            Self::FalseFail(what) => write!(f, "false FAIL: {what}"),
            Self::Verdict(what) => write!(f, "verdict: {what}"),
            Self::Phase(what) => write!(f, "phase: {what}"),
            Self::Cause(what) => write!(f, "cause: {what}"),
            Self::Evidence(words) => write!(f, "evidence: {words:?} is not in it"),
            Self::Late(seconds) => write!(f, "late: {seconds:.0} s after the last sign of life"),
        }
    }
}

/// What isokiln said of one boot, in the words of its report, and how that differs from the table.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Of the whole boot test.
    pub verdict: String,
    /// The furthest phase, `-` for none.
    pub reached: String,
    /// What went wrong, `-` for nothing.
    pub cause: String,
    /// Seconds from the start of the machine until the last verdict.
    pub seconds: f64,
    /// Of a boot that failed: seconds from the last new thing that the machine said or showed until the verdict.
    pub after: Option<f64>,
    /// Empty where all is as expected.
    pub differences: Vec<Difference>,
}

/// The longest that a dead ISO may go undetected, in seconds from its last sign of life.
const LATE: f64 = 60.0;

/// Compares a boot report with what is expected. `silence` is how long the machine had said and shown nothing new when
/// its report was written, in seconds, if it was started at all.
pub fn judge(expected: &Expected, report: &Value, silence: Option<f64>) -> Judged {
    let word = |key: &str| report[key].as_str().unwrap_or("-").to_owned();
    let mut judged = Judged {
        verdict: word("verdict"),
        reached: word("reached"),
        cause: word("cause"),
        seconds: report["seconds"].as_f64().unwrap_or(0.0),
        after: silence.filter(|_| is_dead(report)),
        differences: Vec::new(),
    };
    let differences = &mut judged.differences;
    differences.extend(judged.after.filter(|seconds| *seconds > LATE).map(Difference::Late));
    differences.extend(verdict("all", expected.verdict, &judged.verdict));
    for (name, wanted) in expected.all_checks() {
        let said = check_of(report, name).and_then(|check| check["verdict"].as_str()).unwrap_or("no verdict");
        differences.extend(verdict(name, wanted, said));
    }
    let lacks = |words: &&String| !is_shown(report, words);
    differences.extend(expected.evidence.iter().filter(lacks).cloned().map(Difference::Evidence));
    let right = |wanted: &Option<String>| wanted.clone().unwrap_or_else(|| "-".into());
    let (reached, cause) = (right(&expected.reached), right(&expected.cause));
    if reached != judged.reached {
        differences.push(Difference::Phase(format!("{reached}, not {}", judged.reached)));
    }
    if cause != judged.cause {
        differences.push(Difference::Cause(format!("{cause}, not {}", judged.cause)));
    }
    judged
}

/// Whether the summary or evidence of a check that did not pass holds the words.
fn is_shown(report: &Value, words: &str) -> bool {
    let checks = report["checks"].as_array().into_iter().flatten().filter(|check| check["verdict"] != "PASS");
    let lines = checks.flat_map(|check| {
        let evidence = check["evidence"].as_array().into_iter().flatten();
        std::iter::once(&check["summary"]).chain(evidence)
    });
    lines.filter_map(Value::as_str).any(|line| line.contains(words))
}

/// Whether the boot itself failed, not a check on a system that came up.
fn is_dead(report: &Value) -> bool {
    let lanes = report["lanes"].as_array().map_or(&[][..], Vec::as_slice);
    lanes.iter().any(|lane| lane["lane"] == "faithful" && lane["verdict"] == "FAIL")
}

/// A check's result. Reports write a space behind the colon of a check that has words of its own.
fn check_of<'r>(report: &'r Value, name: &str) -> Option<&'r Value> {
    let plain = |name: &str| name.replacen(": ", ":", 1);
    report["checks"].as_array()?.iter().find(|check| check["check"].as_str().map(plain) == Some(plain(name)))
}

fn verdict(what: &str, wanted: Verdict, said: &str) -> Option<Difference> {
    let wanted = wanted.to_string();
    match said {
        _ if said == wanted => None,
        "PASS" => Some(Difference::FalsePass(format!("{what} is {wanted}"))),
        "FAIL" => Some(Difference::FalseFail(format!("{what} is {wanted}"))),
        _ => Some(Difference::Verdict(format!("{what} is {wanted}, not {said}"))),
    }
}

/// How good the judging of many boots was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Score {
    /// Boots.
    pub boots: usize,
    /// Boots with all verdicts as expected.
    pub verdicts: usize,
    /// Verdicts of PASS that are wrong.
    pub false_passes: usize,
    /// Verdicts of FAIL that are wrong.
    pub false_fails: usize,
    /// Phases and causes as expected, of two for each boot.
    pub findings: usize,
    /// Failures without the evidence that proves them.
    pub unproved: usize,
    /// Dead ISOs that were called dead too late.
    pub late: usize,
}

impl Score {
    /// Least share of phases and causes that must be right.
    pub const SHARE: f64 = 0.95;

    /// Counts a boot.
    pub fn add(&mut self, differences: &[Difference]) {
        let count = |is: fn(&Difference) -> bool| differences.iter().filter(|one| is(one)).count();
        let passes = count(|one| matches!(one, Difference::FalsePass(_)));
        let fails = count(|one| matches!(one, Difference::FalseFail(_)));
        let findings = count(|one| matches!(one, Difference::Phase(_) | Difference::Cause(_)));
        self.boots += 1;
        self.false_passes += passes;
        self.false_fails += fails;
        let late = count(|one| matches!(one, Difference::Late(_)));
        self.late += late;
        let unproved = count(|one| matches!(one, Difference::Evidence(_)));
        self.unproved += unproved;
        self.verdicts += usize::from(differences.len() == findings + late + unproved);
        self.findings += 2 - findings;
    }

    /// Share of phases and causes that are right, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.findings as f64 / (2 * self.boots).max(1) as f64
    }

    /// Whether the boot test can be trusted: every verdict is right, proved and in time, and nearly every reason.
    pub fn is_good(&self) -> bool {
        let Self { boots, verdicts, unproved, late, .. } = *self;
        boots > 0 && verdicts == boots && unproved == 0 && late == 0 && self.share() >= Self::SHARE
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { boots, verdicts, false_passes, false_fails, unproved, late, .. } = self;
        let share = self.share() * 100.0;
        write!(f, "{verdicts} of {boots} boots have the right verdicts ({false_passes} false PASS, ")?;
        write!(
            f,
            "{false_fails} false FAIL, {unproved} unproved, {late} late); {share:.1} % of phases and causes are right"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::corpus::Table;

    fn expected(lines: &str) -> Expected {
        let text = format!("[[case]]\nname = \"a\"\nmade = \"x\"\n[[case.boots]]\nprofile = \"p\"\n{lines}");
        Table::parse(&text).unwrap_or_else(|error| panic!("{error}")).cases[0].boots[0].clone()
    }

    fn report(verdict: &str, reached: Value, cause: Value, checks: &[(&str, &str)]) -> Value {
        let checks = checks.iter().map(|(check, verdict)| json!({"check": check, "verdict": verdict}));
        let checks: Vec<_> = checks.collect();
        json!({"verdict": verdict, "reached": reached, "cause": cause, "checks": checks, "seconds": 2.5})
    }

    #[test]
    fn what_is_as_expected_has_no_differences() {
        let good = expected("verdict = \"PASS\"\nreached = \"multi-user\"\n");
        let said = report("PASS", json!("multi-user"), Value::Null, &[("boot", "PASS")]);
        assert_eq!(judge(&good, &said, None).differences, []);
        let refused = expected("verdict = \"FAIL\"\ncause = \"no-boot-record\"\n");
        let said = report("FAIL", Value::Null, json!("no-boot-record"), &[("boot", "FAIL")]);
        assert_eq!(judge(&refused, &said, None).differences, []);
    }

    #[test]
    fn wrong_verdicts_are_told_apart() {
        use Difference::*;
        let bad = expected("verdict = \"FAIL\"\nreached = \"kernel\"\ncause = \"hang\"\n");
        let said = report("PASS", json!("multi-user"), Value::Null, &[("boot", "PASS")]);
        let differences = judge(&bad, &said, None).differences;
        assert!(
            matches!(&differences[..], [FalsePass(_), FalsePass(_), Phase(_), Cause(_)]),
            "{differences:?}"
        );

        let good = expected("verdict = \"PASS\"\nreached = \"kernel\"\n");
        let said = report("FAIL", json!("kernel"), Value::Null, &[("boot", "FAIL")]);
        assert!(matches!(judge(&good, &said, None).differences[..], [FalseFail(_), FalseFail(_)]));
        let said = report("INCONCLUSIVE", json!("kernel"), Value::Null, &[]);
        assert!(matches!(judge(&good, &said, None).differences[..], [Verdict(_), Verdict(_)]));
    }

    #[test]
    fn a_dead_iso_must_be_called_so_in_time() {
        let dead = expected("verdict = \"FAIL\"\nreached = \"kernel\"\ncause = \"hang\"\n");
        let mut said = report("FAIL", json!("kernel"), json!("hang"), &[("boot", "FAIL")]);
        said["lanes"] = json!([{"lane": "faithful", "verdict": "FAIL"}]);
        assert_eq!(judge(&dead, &said, Some(59.0)).differences, []);
        let late = judge(&dead, &said, Some(61.0)).differences;
        assert_eq!(late, [Difference::Late(61.0)]);
        let mut score = Score::default();
        score.add(&late);
        assert!(!score.is_good() && score.verdicts == 1, "{score}");
        // A failed check on a system that came up has its own time.
        said["lanes"] = json!([{"lane": "faithful", "verdict": "PASS"}]);
        assert_eq!(judge(&dead, &said, Some(61.0)).after, None);
    }

    #[test]
    fn a_failure_must_show_what_proves_it() {
        let bad =
            expected("verdict = \"FAIL\"\nreached = \"kernel\"\ncause = \"hang\"\nevidence = \"boom\"\n");
        let mut said = report("FAIL", json!("kernel"), json!("hang"), &[("boot", "FAIL"), ("wlan", "PASS")]);
        said["checks"][0]["evidence"] = json!(["kernel: boom"]);
        assert_eq!(judge(&bad, &said, None).differences, []);
        said["checks"][0]["evidence"] = json!(["quiet"]);
        said["checks"][1]["evidence"] = json!(["boom"]);
        let unproved = judge(&bad, &said, None).differences;
        assert_eq!(unproved, [Difference::Evidence("boom".into())]);
        let mut score = Score::default();
        score.add(&unproved);
        assert!(!score.is_good() && score.verdicts == 1, "{score}");
    }

    #[test]
    fn checks_are_found_however_their_names_are_spaced() {
        let text =
            "verdict = \"INCONCLUSIVE\"\ncause = \"not-linux\"\nchecks = { \"screen:grub>\" = \"PASS\" }\n";
        let wanted = expected(text);
        let checks = [("boot", "INCONCLUSIVE"), ("screen: grub>", "PASS")];
        let said = report("INCONCLUSIVE", Value::Null, json!("not-linux"), &checks);
        assert_eq!(judge(&wanted, &said, None).differences, []);
        let said = report("INCONCLUSIVE", Value::Null, json!("not-linux"), &checks[..1]);
        assert_eq!(judge(&wanted, &said, None).differences.len(), 1);
    }

    #[test]
    fn the_score_forgives_few_reasons_and_no_verdict() {
        let mut score = Score::default();
        assert!(!score.is_good(), "nothing tested is nothing proved");
        for _ in 0..9 {
            score.add(&[]);
        }
        score.add(&[Difference::Cause("x".into())]);
        assert!(score.is_good(), "{score}");
        let mut worse = score;
        worse.add(&[Difference::Phase("x".into()), Difference::Cause("x".into())]);
        assert!(!worse.is_good(), "{worse}");
        score.add(&[Difference::FalsePass("x".into())]);
        assert!(!score.is_good() && score.false_passes == 1 && score.verdicts == 10, "{score}");
    }
}
