//! What is known about a boot from outside: phases, failures, whether anything still moves, and how long to
//! wait for more.

mod scene;

use std::time::Duration;

use isokiln_core::boot::screen::Vitals;
use isokiln_core::boot::{Cause, Phase, PhaseTime, Processor, Sighting};
use serde_json::Value;
use tokio::time::Instant;

use self::scene::Scene;
use super::eye::Look;

/// How a boot has ended that the probe does not speak for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    /// The ISO did not come up, or nothing can be said.
    Because {
        /// What broke first.
        cause: Cause,
        /// The lines that say so.
        lines: Vec<String>,
    },
    /// The tester broke, not the ISO: QEMU has ended or stopped the machine by itself, or is out of reach.
    Broken(String),
}

/// Where words were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A console that the guest writes to.
    Wire,
    /// The screen.
    Screen,
}

/// Whether a probe is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// There is no way in.
    Never,
    /// There may be a way in.
    Perhaps,
    /// The ISO holds all that it takes.
    Surely,
}

/// How long to wait for what, on the reference machine.
const BOOT: Duration = Duration::from_secs(420);
/// A login prompt shows that the boot is over; the probe should have spoken long before.
const PROBE_AFTER_LOGIN: Duration = Duration::from_secs(45);
/// A machine on which nothing moves for so long does not move any more. Linux gives a disk 30 seconds to answer, and then
/// resets it, before it goes on; a dead ISO is to be called dead within a minute.
const STILL: Duration = Duration::from_secs(52);
/// How long a program that is not Linux may draw on the screen.
const DRAWING: Duration = Duration::from_secs(60);
const DRAWING_LINUX: Duration = Duration::from_secs(300);
/// More lines often follow the first words of a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(4);
/// A boot loader may go on with another entry, after a pause for people.
const AFTER_LOADER: Duration = Duration::from_secs(20);
/// Programs may write what they like on a console: what sounds like the end may be contradicted.
const AFTER_WORDS: Duration = Duration::from_secs(20);
/// Restarts after which a machine is in a loop.
const RESTARTS: usize = 3;
/// How long the kernel took from its first words to its first program on the machine that time limits were
/// found on.
const KERNEL: f64 = 3.0;
/// Time limits are stretched at most this much.
const MAX_SCALE: f64 = 20.0;

/// A failure that was seen.
struct Failed {
    at: Instant,
    /// How long it may be contradicted.
    grace: Duration,
    ending: Ending,
}

/// Collects sightings.
pub(super) struct Watch {
    started: Instant,
    scale: f64,
    /// Whether the ISO holds a kernel of Linux, as far as is known.
    holds_linux: bool,
    /// Whether a probe may come into this boot, and whether it is sure to if the system comes up.
    probe: Expected,
    pub(super) phases: Vec<PhaseTime>,
    /// How far the machine has come since it was started or started again.
    current: Option<Phase>,
    restarts: usize,
    noted: Option<(Cause, String)>,
    failed: Option<Failed>,
    login: Option<(Instant, String)>,
    /// Whether words of the kernel, or of what comes after it, were read anywhere.
    heard: bool,
    /// Whether they were read on a console's wire.
    wired: bool,
    /// Whether the guest's console asks for something.
    asks: bool,
    /// Whether the probe answers.
    is_probed: bool,
    scene: Scene,
    /// What the screen or the console showed last.
    last_words: Vec<String>,
}

impl Watch {
    pub(super) fn new(scale: f64, holds_linux: bool, probe: Expected) -> Self {
        Self {
            started: Instant::now(),
            scale,
            holds_linux,
            probe,
            phases: Vec::new(),
            current: None,
            restarts: 0,
            noted: None,
            failed: None,
            login: None,
            heard: false,
            wired: false,
            asks: false,
            is_probed: false,
            scene: Scene::new(STILL),
            last_words: Vec::new(),
        }
    }

    /// Notes that the machine starts now.
    pub(super) fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// Tells that the boot menu is configured to wait for a key.
    pub(super) fn with_menu_that_waits(mut self, menu_waits: bool) -> Self {
        self.scene.menu_waits = menu_waits;
        self
    }

    /// The boot menu's entries.
    pub(super) fn menu(&self) -> &[String] {
        &self.scene.menu
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// How much longer than on the reference machine things may take.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn furthest(&self) -> Option<Phase> {
        self.phases.last().map(|time| time.phase)
    }

    /// How far the machine has come since it was started or started again.
    pub(super) fn current(&self) -> Option<Phase> {
        self.current
    }

    /// The line of the login prompt, if there was one.
    pub(super) fn login(&self) -> Option<&str> {
        self.login.as_ref().map(|(_, line)| line.as_str())
    }

    /// Takes what a line of a console or of a text screen tells.
    pub(super) fn sighting(&mut self, sighting: Sighting, line: &str, by: Source) -> Option<PhaseTime> {
        if !sighting.fits(self.current) {
            return None;
        }
        match sighting {
            Sighting::Entered(phase) => {
                self.heard |= phase >= Phase::Kernel;
                self.wired |= phase >= Phase::Kernel && by == Source::Wire;
                if phase == Phase::MultiUser {
                    self.login.get_or_insert_with(|| (Instant::now(), line.to_owned()));
                }
                return self.entered(phase);
            }
            Sighting::Noted(cause) => {
                self.heard = true;
                self.noted.get_or_insert((cause, line.to_owned()));
            }
            // Anything may be written on the console of a system that runs.
            Sighting::Failed(_) if self.is_probed && !line.contains("] Kernel panic") => {}
            Sighting::Failed(cause) => self.failed(cause, line),
        }
        None
    }

    fn failed(&mut self, cause: Cause, line: &str) {
        match &mut self.failed {
            // What was said first is the cause, unless it was only a way of saying that something is wrong.
            Some(Failed { ending: Ending::Because { cause: first, lines }, .. }) => {
                if first.is_consequence() && !cause.is_consequence() {
                    *first = cause;
                }
                if !line.is_empty() && lines.last().is_none_or(|last| last != line) {
                    lines.push(line.to_owned());
                }
            }
            Some(_) => {}
            None => {
                let grace = match self.furthest() {
                    Some(Phase::Firmware | Phase::BootMenu) => AFTER_LOADER,
                    // The kernel's own lines begin with a time in brackets.
                    Some(Phase::Userspace | Phase::MultiUser | Phase::Desktop)
                        if !line.is_empty() && !line.contains("] Kernel panic") =>
                    {
                        AFTER_WORDS.mul_f64(self.scale)
                    }
                    _ => AFTER_FAILURE,
                };
                let lines =
                    Some(line).filter(|line| !line.is_empty()).map(str::to_owned).into_iter().collect();
                self.failed =
                    Some(Failed { at: Instant::now(), grace, ending: Ending::Because { cause, lines } });
            }
        }
    }

    /// The probe answers: what programs have written on a console is for it to judge.
    pub(super) fn probed(&mut self) {
        if self.failed.as_ref().is_some_and(|failed| failed.grace > AFTER_FAILURE) {
            self.failed = None;
        }
        self.is_probed = true;
    }

    /// Notes that the guest got at least this far.
    pub(super) fn entered(&mut self, phase: Phase) -> Option<PhaseTime> {
        self.current = self.current.max(Some(phase));
        if self.furthest().is_some_and(|furthest| furthest >= phase) {
            return None;
        }
        // A boot that gets further has not failed after all: another boot entry worked, for example.
        if matches!(self.failed, Some(Failed { ending: Ending::Because { .. }, .. })) {
            self.failed = None;
        }
        self.passed(phase)
    }

    /// The same without a word about failures.
    fn passed(&mut self, phase: Phase) -> Option<PhaseTime> {
        self.current = self.current.max(Some(phase));
        if phase >= Phase::Userspace {
            // The boot has survived it.
            self.noted = None;
        }
        if self.furthest().is_some_and(|furthest| furthest >= phase) {
            return None;
        }
        let time = PhaseTime { phase, seconds: self.seconds() };
        if phase == Phase::Initramfs
            && self.heard
            && let Some(kernel) = self.phases.iter().find(|time| time.phase == Phase::Kernel)
        {
            // The kernel's own work is the same everywhere, so it measures the machine as it is now.
            let measured = (time.seconds - kernel.seconds) / KERNEL;
            self.scale = self.scale.max(measured).min(MAX_SCALE);
        }
        self.phases.push(time);
        Some(time)
    }

    /// Notes an event of QEMU.
    pub(super) fn event(&mut self, event: &Value) {
        let by_guest = event["data"]["guest"].as_bool().unwrap_or(false);
        match event["event"].as_str().unwrap_or_default() {
            "SHUTDOWN" if by_guest => self.failed(Cause::PoweredOff, ""),
            "RESET" if by_guest => {
                // What it had come to is gone.
                self.login = None;
                self.current = None;
                self.restarts += 1;
                if self.restarts >= RESTARTS {
                    self.failed(Cause::RebootLoop, "");
                }
            }
            "GUEST_PANICKED" => self.failed(Cause::KernelPanic, ""),
            _ => {}
        }
    }

    /// Notes that QEMU cannot go on.
    pub(super) fn broken(&mut self, words: String) {
        self.failed.get_or_insert_with(|| Failed {
            at: Instant::now(),
            grace: AFTER_FAILURE,
            ending: Ending::Broken(words),
        });
    }

    /// Takes what the processors do; gives the phases that it shows.
    pub(super) fn processors(&mut self, processors: &[Processor]) -> Vec<PhaseTime> {
        let mut entered = Vec::new();
        if processors.iter().any(|processor| processor.in_linux()) {
            entered.extend(self.entered(Phase::Kernel));
        }
        // Firmware and boot loaders have no programs. A kernel that has just given up may have run one when its
        // processors were looked at.
        if processors.iter().any(|processor| processor.in_program()) {
            let kernel = self.furthest().is_some_and(|furthest| furthest >= Phase::Kernel);
            entered.extend(if kernel {
                self.passed(Phase::Initramfs)
            } else {
                self.entered(Phase::Initramfs)
            });
        }
        entered
    }

    /// Takes a look at the machine; gives the phases that it shows.
    pub(super) fn look(&mut self, look: &Look, vitals: Vitals) -> Vec<PhaseTime> {
        let mut entered = Vec::new();
        if self.scene.look(look, vitals, self.furthest()) {
            entered.extend(self.entered(Phase::BootMenu));
        }
        if let Some(text) = &look.text {
            let rows: Vec<_> =
                text.rows().map(|row| row.trim().to_owned()).filter(|row| !row.is_empty()).collect();
            self.last_words = rows[rows.len().saturating_sub(8)..].to_vec();
        }
        entered
    }

    /// What was written last before nothing came any more, and whether it asks for something.
    pub(super) fn heard_last(&mut self, lines: Vec<String>, asks: bool) {
        self.asks = asks;
        if !lines.is_empty() {
            self.last_words = lines;
        }
    }

    /// Whether the machine stands where a person would have to press a key.
    pub(super) fn waits_for_key(&self) -> bool {
        self.failed.is_none() && self.is_before_kernel() && self.scene.waits_for_key()
    }

    fn is_before_kernel(&self) -> bool {
        self.furthest().is_some_and(|phase| phase <= Phase::BootMenu)
    }

    /// Whether what waits is known to be a boot menu.
    pub(super) fn is_at_menu(&self) -> bool {
        self.scene.is_at_menu()
    }

    /// Forgets that the machine stood still: a key was pressed.
    pub(super) fn key_pressed(&mut self) {
        self.scene.key_pressed();
    }

    /// Whether what stands still may as well wait for a person: it asks for something, or shows what is no log.
    fn may_wait(&self) -> bool {
        self.asks || self.scene.shows_dialog() || self.scene.is_painted() && !self.wired
    }

    /// Whether nothing moves any more.
    pub(super) fn is_still(&self) -> bool {
        self.scene.is_still()
    }

    /// Whether and how the boot is over, if the probe has not come up by now.
    pub(super) fn ending(&self) -> Option<Ending> {
        if self.failed.is_some() {
            return self.failure();
        }
        if let Some((at, _)) = &self.login {
            let patience = match self.probe {
                Expected::Never => AFTER_FAILURE,
                Expected::Perhaps | Expected::Surely => PROBE_AFTER_LOGIN.mul_f64(self.scale),
            };
            return (at.elapsed() >= patience).then(|| self.because(Cause::NoProbe));
        }
        let furthest = self.furthest();
        let kernel = furthest >= Some(Phase::Kernel);
        let program = furthest >= Some(Phase::Initramfs);
        if self.is_still() {
            return Some(self.because(match () {
                () if program && self.may_wait() => Cause::NoProbe,
                () if kernel && self.heard => Cause::Hang,
                // A system that came up would have let the probe in.
                () if kernel && self.probe == Expected::Surely && !self.scene.is_painted() => Cause::Hang,
                () if program && self.scene.is_drawn() => Cause::NoProbe,
                // What comes up shows itself in place of a boot menu.
                () if program && self.scene.shows_old_menu() => Cause::Hang,
                () if program => Cause::Silent,
                () if kernel => Cause::Hang,
                () if self.scene.shows_menu() && self.holds_linux => Cause::MenuWaits,
                () if self.scene.shows_prompt() && self.holds_linux => Cause::BootLoaderError,
                () if self.holds_linux => Cause::Hang,
                () => Cause::NotLinux,
            }));
        }
        // A menu of Linux may have moving pictures and count for long.
        let patience = if self.holds_linux { DRAWING_LINUX } else { DRAWING };
        if !kernel && self.scene.only_draws(patience.mul_f64(self.scale)) {
            return Some(self.because(Cause::NotLinux));
        }
        let over = self.started.elapsed() >= BOOT.mul_f64(self.scale);
        over.then(|| {
            self.because(match () {
                () if self.heard => Cause::TooSlow,
                () if kernel => Cause::Silent,
                () if self.holds_linux => Cause::TooSlow,
                () => Cause::NotLinux,
            })
        })
    }

    /// Whether a failure was seen, whatever the probe says.
    pub(super) fn failure(&self) -> Option<Ending> {
        let failed = self.failed.as_ref()?;
        if failed.at.elapsed() < failed.grace {
            return None;
        }
        Some(match &failed.ending {
            Ending::Because { cause, lines } => self.explained(*cause, lines.clone()),
            broken => broken.clone(),
        })
    }

    /// The end of a system whose probe has fallen silent and that does nothing any more.
    pub(super) fn froze(&self) -> Ending {
        self.because(Cause::Hang)
    }

    /// The end of a boot whose menu waits for a key that nobody is there to press.
    pub(super) fn waits_for_ever(&self) -> Ending {
        self.because(Cause::MenuWaits)
    }

    fn because(&self, cause: Cause) -> Ending {
        self.explained(cause, Vec::new())
    }

    /// Puts what was noted on the way in place of its consequence.
    fn explained(&self, cause: Cause, mut lines: Vec<String>) -> Ending {
        // On an ISO without Linux, a program that gives the machine back to its firmware has run, and a boot loader
        // that finds nothing to load does as it should.
        let ran = self.furthest() == Some(Phase::BootMenu) && !self.holds_linux;
        let found_nothing =
            matches!(cause, Cause::NothingBootable | Cause::NoKernel | Cause::BootLoaderError);
        let cause = match &self.noted {
            _ if ran && found_nothing => Cause::NotLinux,
            Some((noted, line)) if cause.is_consequence() && cause != Cause::NoProbe => {
                lines.insert(0, line.clone());
                *noted
            }
            _ => cause,
        };
        if lines.is_empty() {
            lines.clone_from(&self.last_words);
        }
        Ending::Because { cause, lines }
    }
}
