//! What is known about a boot from outside: phases, failures, and how long to wait for more.

use std::time::Duration;

use isokiln_core::boot::{Failure, Phase, PhaseTime};
use tokio::time::Instant;

/// How a boot that ends without a verdict of the probe has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    /// A console said so.
    Failed { failure: Failure, line: String },
    /// The guest switched itself off.
    PoweredOff,
    /// The guest restarts again and again.
    RebootLoop,
    /// The guest's kernel has told QEMU that it panicked.
    Panicked,
    /// QEMU stopped the machine by itself, for an error of its own or of its host's.
    Stopped(String),
    /// People could log in, but no probe came up.
    NoProbe,
    /// Time ran out before that, though the kernel had begun to speak.
    TooSlow,
    /// Time ran out, and nothing was heard of a kernel: it may be hung, or only silent.
    Silent,
}

/// How long to wait for what, on the reference machine.
const BOOT: Duration = Duration::from_secs(300);
/// A login prompt shows that the boot is over; the probe should have spoken long before.
const PROBE_AFTER_LOGIN: Duration = Duration::from_secs(45);
/// More lines often follow the first words of a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(4);
/// Restarts after which a machine is in a loop.
const RESTARTS: usize = 3;

/// Collects sightings.
pub(super) struct Watch {
    started: Instant,
    scale: f64,
    pub(super) phases: Vec<PhaseTime>,
    restarts: usize,
    failed: Option<(Instant, Ending)>,
    login_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new(scale: f64) -> Self {
        Self { started: Instant::now(), scale, phases: Vec::new(), restarts: 0, failed: None, login_at: None }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Notes the words with which a boot gives up.
    pub(super) fn failed(&mut self, failure: Failure, line: String) {
        self.failed.get_or_insert((Instant::now(), Ending::Failed { failure, line }));
    }

    /// Notes that the guest got at least this far.
    pub(super) fn entered(&mut self, phase: Phase) -> Option<PhaseTime> {
        if self.phases.last().is_some_and(|last| last.phase >= phase) {
            return None;
        }
        // A boot that gets further has not failed after all: another boot entry worked, for example.
        if matches!(self.failed, Some((_, Ending::Failed { .. }))) {
            self.failed = None;
        }
        if phase == Phase::MultiUser {
            self.login_at.get_or_insert_with(Instant::now);
        }
        let time = PhaseTime { phase, seconds: self.seconds() };
        self.phases.push(time);
        Some(time)
    }

    /// Notes an event of QEMU.
    pub(super) fn event(&mut self, event: &serde_json::Value) {
        let name = event["event"].as_str().unwrap_or_default();
        let by_guest = event["data"]["guest"].as_bool().unwrap_or(false);
        let ending = match name {
            "SHUTDOWN" if by_guest => Ending::PoweredOff,
            "RESET" if by_guest => {
                self.restarts += 1;
                if self.restarts < RESTARTS {
                    return;
                }
                Ending::RebootLoop
            }
            "GUEST_PANICKED" => Ending::Panicked,
            _ => return,
        };
        self.failed.get_or_insert((Instant::now(), ending));
    }

    /// Notes that QEMU has stopped the machine by itself.
    pub(super) fn stopped(&mut self, state: &str) {
        self.failed.get_or_insert((Instant::now(), Ending::Stopped(state.to_owned())));
    }

    /// Whether and how the boot is over, if the probe has not come up by now.
    pub(super) fn ending(&self) -> Option<Ending> {
        if let Some((at, ending)) = &self.failed {
            return (at.elapsed() >= AFTER_FAILURE).then(|| ending.clone());
        }
        if self.login_at.is_some_and(|at| at.elapsed() >= PROBE_AFTER_LOGIN.mul_f64(self.scale)) {
            return Some(Ending::NoProbe);
        }
        let heard = self.furthest().is_some_and(|phase| phase >= Phase::Kernel);
        let ending = if heard { Ending::TooSlow } else { Ending::Silent };
        (self.started.elapsed() >= BOOT.mul_f64(self.scale)).then_some(ending)
    }

    /// Whether a failure was seen, whatever the probe says.
    pub(super) fn failure(&self) -> Option<Ending> {
        let (at, ending) = self.failed.as_ref()?;
        (at.elapsed() >= AFTER_FAILURE).then(|| ending.clone())
    }

    pub(super) fn furthest(&self) -> Option<Phase> {
        self.phases.last().map(|time| time.phase)
    }
}
