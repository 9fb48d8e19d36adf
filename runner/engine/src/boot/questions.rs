//! The checks that the probe is asked for, one after the other.

use std::time::Duration;

use isokiln_core::boot::{Answer, Channel, CheckResult, CheckSpec, Inventory, Judgement, Lane, Verdict};
use tokio::time::Instant;

use super::probe::Probe;

/// Seconds that one run of a check's script may take on the reference machine.
const SCRIPT_SECONDS: f64 = 120.0;
/// Silence of the probe beyond that, after which it is given up.
const SILENCE: f64 = 60.0;
/// Pause before a check that does not hold yet is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
enum Topic {
    Check(CheckSpec),
    /// What runs, for comparing one ISO with another; asked last.
    Inventory,
}

/// The questions and how far they are.
pub(super) struct Questions {
    topics: Vec<Topic>,
    index: usize,
    current: Option<Asking>,
    /// Whether the probe has not answered the last question when it had to.
    silent: bool,
    pub(super) inventory: Option<Inventory>,
}

/// The question that is being asked.
struct Asking {
    since: Instant,
    /// When to ask (again); `None` while an answer is awaited.
    next: Option<Instant>,
    asked: Instant,
    times: u32,
}

impl Questions {
    pub(super) fn new(checks: &[CheckSpec]) -> Self {
        let asked = checks.iter().filter(|check| check.script().is_some()).cloned().map(Topic::Check);
        Self {
            topics: asked.chain([Topic::Inventory]).collect(),
            index: 0,
            current: None,
            silent: false,
            inventory: None,
        }
    }

    /// Begins, or begins again with the question that has no answer yet, now that a probe answers.
    pub(super) fn begin(&mut self) {
        self.silent = false;
        if self.index < self.topics.len() {
            self.current = Some(Asking::new());
        }
    }

    /// Whether the probe has been there.
    pub(super) fn have_begun(&self) -> bool {
        self.current.is_some() || self.are_done()
    }

    /// Whether the probe is needed for nothing but the inventory.
    pub(super) fn asks_nothing(&self) -> bool {
        self.topics.len() == 1 && self.current.is_none()
    }

    /// Whether nothing is left to ask.
    pub(super) fn are_done(&self) -> bool {
        self.index == self.topics.len()
    }

    /// Asks if it is time to; gives the end of a question whose time is over.
    pub(super) async fn ask(
        &mut self,
        probe: &mut Probe,
        hung_up: bool,
        scale: f64,
        channel: Option<Channel>,
        seconds: f64,
    ) -> Option<CheckResult> {
        let topic = self.topics.get(self.index)?;
        let current = self.current.as_mut()?;
        let script_seconds = (SCRIPT_SECONDS * scale).ceil();
        let is_silent = match current.next {
            _ if hung_up => true,
            Some(at) if at <= Instant::now() => {
                current.next = None;
                current.asked = Instant::now();
                current.times += 1;
                let script = match topic {
                    Topic::Check(check) => check.script().unwrap_or_default(),
                    Topic::Inventory => Inventory::SCRIPT.to_owned(),
                };
                probe.ask(script_seconds as u64, &script).await.is_none()
            }
            Some(_) => false,
            // The agent stops scripts by itself, so this long a silence means that it cannot.
            None => {
                let patience = if self.silent { SILENCE } else { script_seconds + SILENCE };
                current.asked.elapsed().as_secs_f64() > patience
            }
        };
        if !is_silent {
            return None;
        }
        self.silent = true;
        let Topic::Check(check) = topic else {
            self.advance();
            return None;
        };
        let result = CheckResult {
            check: check.name(),
            lane: Lane::Probe,
            channel,
            verdict: Verdict::Inconclusive,
            summary:
                "the probe in the guest has stopped answering; try again, with more memory if the guest ran \
                      out of it"
                    .to_owned(),
            cause: None,
            evidence: Vec::new(),
            picture: None,
            seconds,
        };
        self.advance();
        Some(result)
    }

    /// Takes an answer; gives the check's end if it has come to one.
    pub(super) fn answered(
        &mut self,
        answer: &Answer,
        scale: f64,
        channel: Option<Channel>,
        seconds: f64,
    ) -> Option<(CheckSpec, CheckResult)> {
        let current = self.current.as_mut()?;
        self.silent = false;
        let check = match self.topics.get(self.index)? {
            Topic::Check(check) => check.clone(),
            Topic::Inventory => {
                self.inventory = Inventory::read(answer);
                self.advance();
                return None;
            }
        };
        let mut finding = match check.judge(answer) {
            Judgement::Settled(finding) => finding,
            Judgement::NotYet(finding) => {
                if current.since.elapsed() < check.patience().mul_f64(scale) {
                    current.next = Some(Instant::now() + ASK_AGAIN);
                    return None;
                }
                finding
            }
        };
        if finding.verdict != Verdict::Pass && current.times > 1 {
            let waited = current.since.elapsed().as_secs();
            finding.summary.push_str(&format!(" (asked {} times in {waited} s)", current.times));
        }
        let result = CheckResult {
            check: check.name(),
            lane: Lane::Probe,
            channel,
            verdict: finding.verdict,
            summary: finding.summary,
            cause: finding.cause,
            evidence: finding.evidence,
            picture: None,
            seconds,
        };
        self.advance();
        Some((check, result))
    }

    fn advance(&mut self) {
        self.index += 1;
        self.current = (!self.are_done()).then(Asking::new);
    }
}

impl Asking {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, next: Some(now), asked: now, times: 0 }
    }
}
