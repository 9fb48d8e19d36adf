//! The checks that look at the screen.

use std::fs;
use std::path::PathBuf;

use isokiln_core::boot::screen::{Frame, TextScreen};
use isokiln_core::boot::{CheckResult, CheckSpec, Lane, OnScreen, Verdict};

use super::BootError;

/// What has to be seen yet.
pub(super) struct ScreenChecks {
    open: Vec<Open>,
    /// Whether the screen showed text when it was last looked at.
    reads_text: bool,
}

struct Open {
    check: CheckSpec,
    /// The picture to be seen.
    reference: Option<Frame>,
    /// The greatest likeness so far.
    likeness: f64,
}

/// Whether the pictures that screens are to be compared with can be read.
pub(crate) fn can_compare(checks: &[CheckSpec]) -> Result<(), BootError> {
    ScreenChecks::new(checks).map(drop)
}

impl ScreenChecks {
    /// Reads the reference pictures.
    pub(super) fn new(checks: &[CheckSpec]) -> Result<Self, BootError> {
        let mut open = Vec::new();
        for check in checks {
            let reference = match check.on_screen() {
                None => continue,
                Some(OnScreen::Words(_)) => None,
                Some(OnScreen::Picture(reference)) => {
                    let path = PathBuf::from(&reference.path);
                    let bytes = fs::read(&path).map_err(|source| BootError::Reference {
                        path: path.clone(),
                        reason: source.to_string(),
                    })?;
                    Some(
                        Frame::from_png(&bytes)
                            .map_err(|error| BootError::Reference { path, reason: error.to_string() })?,
                    )
                }
            };
            open.push(Open { check: check.clone(), reference, likeness: 0.0 });
        }
        Ok(Self { open, reads_text: false })
    }

    pub(super) fn are_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes the text of the screen, if it shows any; gives the checks that it makes hold.
    pub(super) fn text(&mut self, text: Option<&TextScreen>, seconds: f64) -> Vec<CheckResult> {
        let Some(text) = text.filter(|text| !text.is_blank()) else {
            self.reads_text = false;
            return Vec::new();
        };
        self.reads_text = true;
        let rows = || text.rows().filter(|row| !row.trim().is_empty()).collect();
        self.words(|words| text.contains(words).then(|| ("read on the screen", rows())), seconds)
    }

    /// Takes the last lines of the serial console; gives the checks that they make hold.
    pub(super) fn lines(&mut self, lines: &[String], seconds: f64) -> Vec<CheckResult> {
        let line = |words: &str| lines.iter().find(|line| line.contains(words)).cloned();
        self.words(|words| line(words).map(|line| ("read on the serial console", vec![line])), seconds)
    }

    fn words(
        &mut self,
        read: impl Fn(&str) -> Option<(&'static str, Vec<String>)>,
        seconds: f64,
    ) -> Vec<CheckResult> {
        self.settle(|open| {
            let Some(OnScreen::Words(words)) = open.check.on_screen() else { return None };
            let (summary, evidence) = read(words)?;
            Some(result(&open.check, Verdict::Pass, summary.to_owned(), evidence, seconds))
        })
    }

    /// Takes a picture of the screen; gives the checks that it makes hold.
    pub(super) fn picture(&mut self, frame: &Frame, seconds: f64) -> Vec<CheckResult> {
        self.settle(|open| {
            let (Some(OnScreen::Picture(wanted)), Some(reference)) =
                (open.check.on_screen(), &open.reference)
            else {
                return None;
            };
            let likeness = wanted.likeness(reference, frame);
            open.likeness = open.likeness.max(likeness);
            (likeness >= wanted.similarity).then(|| {
                let summary = format!("the screen is like the picture ({:.0} %)", likeness * 100.0);
                result(&open.check, Verdict::Pass, summary, Vec::new(), seconds)
            })
        })
    }

    /// The checks whose time is over.
    pub(super) fn expired(&mut self, scale: f64, seconds: f64) -> Vec<CheckResult> {
        let reads_text = self.reads_text;
        self.settle(|open| {
            let over = seconds >= open.check.patience().mul_f64(scale).as_secs_f64();
            over.then(|| unseen(open, reads_text, seconds))
        })
    }

    /// The checks that are open still, now that the boot is over.
    pub(super) fn give_up(&mut self, seconds: f64) -> Vec<CheckResult> {
        let reads_text = self.reads_text;
        self.settle(|open| Some(unseen(open, reads_text, seconds)))
    }

    fn settle(&mut self, mut judge: impl FnMut(&mut Open) -> Option<CheckResult>) -> Vec<CheckResult> {
        let mut results = Vec::new();
        self.open.retain_mut(|open| match judge(open) {
            Some(result) => {
                results.push(result);
                false
            }
            None => true,
        });
        results
    }
}

fn unseen(open: &Open, reads_text: bool, seconds: f64) -> CheckResult {
    let (verdict, summary) = match open.check.on_screen() {
        Some(OnScreen::Picture(wanted)) => (
            Verdict::Fail,
            format!(
                "the screen was never like the picture: {:.0} % at best, {:.0} % wanted",
                open.likeness * 100.0,
                wanted.similarity * 100.0
            ),
        ),
        _ if reads_text => (Verdict::Fail, "never read on the screen".to_owned()),
        _ => (
            Verdict::Inconclusive,
            "no text could be read from the screen: let it show a text console, or compare a picture"
                .to_owned(),
        ),
    };
    result(&open.check, verdict, summary, Vec::new(), seconds)
}

fn result(
    check: &CheckSpec,
    verdict: Verdict,
    summary: String,
    evidence: Vec<String>,
    seconds: f64,
) -> CheckResult {
    CheckResult {
        check: check.name(),
        lane: Lane::Faithful,
        channel: None,
        verdict,
        summary,
        cause: None,
        evidence,
        picture: None,
        seconds,
    }
}
