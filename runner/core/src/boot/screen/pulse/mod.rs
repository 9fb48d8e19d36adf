//! Whether a machine still does anything, from samples about once a second.

mod screen_id;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

pub use screen_id::ScreenId;

/// Disk bytes a second that a system which does nothing may move.
const DISK_NOISE: f64 = 4096.0;
/// Bytes with which a boot menu draws its countdown anew on a serial port.
const REDRAW: u64 = 512;
/// Screens that take turns while nothing happens: a blinking cursor, a spinner's four strokes.
const CYCLE: usize = 4;
/// 4 KiB pages within which running processors stay while nothing is started. Measured over 30 to 60 samples:
/// a memory test 3 to 8, GRUB's menu 8, a kernel that unpacks its initramfs 3 to 7.
const PAGES: usize = 16;
/// Addresses at which processors are found that only wait. Measured over 30 samples: a panic 2, GRUB's menu 13;
/// but unpacking an initramfs 22, so that it is told from a hang although nothing else is.
const ADDRESSES: usize = 16;
/// The same of firmware and boot loaders, which look after many devices while they wait and unpack nothing without
/// reading it. Measured over 40 samples of two processors: GRUB's prompt under UEFI 16 to 21.
const FIRMWARE_ADDRESSES: usize = 32;
/// Firmware and boot loaders are below, Linux of 32 bits and of 64 bits is above, and so are most programs.
const FIRMWARE: std::ops::Range<u64> = 0..0xc000_0000;
/// Steps after which numbers that go down are a countdown.
const STEPS: usize = 2;

/// What was measured of a machine at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Vitals {
    /// Seconds since the machine was switched on.
    pub seconds: f64,
    /// Bytes that its serial ports have sent so far.
    pub serial_bytes: u64,
    /// Bytes that it has read from and written to its disks so far.
    pub disk_bytes: u64,
    /// What its screen shows.
    pub screen: ScreenId,
    /// The linear address of each processor's next instruction.
    pub program_counters: Vec<u64>,
    /// Whether every processor waits for an interrupt; the program counters then say nothing.
    pub halted: bool,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// It works, or it has not been watched long enough to say otherwise.
    Working,
    /// A text screen counts down, and nothing else happens.
    Countdown,
    /// Only its screen changes, as a memory test's does: neither a boot nor a hang.
    Changing,
    /// Nothing happens any more: it waits for a person or for ever.
    Still {
        /// Since when, in seconds like [`Vitals::seconds`].
        since: f64,
    },
}

/// Takes a machine's vitals and says what it is doing.
///
/// Nothing happens if, for a whole window of time, all signals agree: the serial ports are silent, the disks
/// move no more than noise, the screen shows nothing but what it has shown before (a cycle of at most four
/// screens), and the processors are halted or found at the same few addresses again and again.
///
/// A kernel that unpacks a large initramfs is silent for tens of seconds in a few pages of code; only the number
/// of addresses tells that it works. So the window should hold 30 samples or more, and be longer where machines
/// are slow.
#[derive(Debug)]
pub struct Pulse {
    window: f64,
    last: Option<Vitals>,
    /// When the serial ports or the disks last did something.
    active: f64,
    /// When the screen last showed something new.
    changed: f64,
    /// The last different screens since then, the latest last.
    shown: VecDeque<ScreenId>,
    /// When the countdown on the screen made its last steps.
    steps: Vec<f64>,
    /// The running processors' program counters of the last window.
    counters: VecDeque<(f64, Vec<u64>)>,
    /// Since when the processors have kept to a few pages.
    confined: Option<f64>,
    /// Since when they have been found at a few addresses only.
    looping: Option<f64>,
}

impl Pulse {
    /// Asks for agreement over `window` seconds.
    pub fn new(window: f64) -> Self {
        Self {
            window,
            last: None,
            active: 0.0,
            changed: 0.0,
            shown: VecDeque::new(),
            steps: Vec::new(),
            counters: VecDeque::new(),
            confined: None,
            looping: None,
        }
    }

    /// Takes the next sample.
    pub fn push(&mut self, now: Vitals) -> Condition {
        let Some(last) = self.last.take() else {
            (self.active, self.changed) = (now.seconds, now.seconds);
            self.shown.push_back(now.screen.clone());
            self.note_counters(&now);
            self.last = Some(now);
            return Condition::Working;
        };
        self.note_screen(&last, &now);
        self.note_counters(&now);
        if self.is_active(&last, &now) {
            self.active = now.seconds;
            self.steps.clear();
            self.shown.clear();
            self.shown.push_back(now.screen.clone());
        }
        let condition = self.condition(now.seconds);
        self.last = Some(now);
        condition
    }

    fn condition(&self, now: f64) -> Condition {
        if self.is_counting(now) {
            return Condition::Countdown;
        }
        let for_a_window = |since: f64| now - since >= self.window;
        let quiet = for_a_window(self.active);
        if quiet && !for_a_window(self.changed) && self.confined.is_some_and(for_a_window) {
            return Condition::Changing;
        }
        match self.looping.map(|looping| looping.max(self.active).max(self.changed)) {
            Some(since) if for_a_window(since) => Condition::Still { since },
            _ => Condition::Working,
        }
    }

    fn is_counting(&self, now: f64) -> bool {
        self.steps.len() >= STEPS && self.steps.last().is_some_and(|at| now - at < self.window)
    }

    fn is_active(&self, last: &Vitals, now: &Vitals) -> bool {
        let drawn = if self.is_counting(now.seconds) || now.screen.follows_in_countdown(&last.screen) {
            REDRAW
        } else {
            0
        };
        let noise = DISK_NOISE * (now.seconds - last.seconds).max(1.0);
        now.serial_bytes.abs_diff(last.serial_bytes) > drawn
            || now.disk_bytes.abs_diff(last.disk_bytes) as f64 > noise
    }

    fn note_screen(&mut self, last: &Vitals, now: &Vitals) {
        if now.screen.follows_in_countdown(&last.screen) {
            self.steps.push(now.seconds);
        } else if now.screen != last.screen {
            self.steps.clear();
        }
        match self.shown.iter().position(|shown| *shown == now.screen) {
            Some(at) => self.shown.remove(at).into_iter().for_each(drop),
            None => self.changed = now.seconds,
        }
        self.shown.push_back(now.screen.clone());
        if self.shown.len() > CYCLE {
            self.shown.pop_front();
        }
    }

    fn note_counters(&mut self, now: &Vitals) {
        let running = if now.halted { Vec::new() } else { now.program_counters.clone() };
        self.counters.push_back((now.seconds, running));
        while self.counters.front().is_some_and(|(seconds, _)| now.seconds - seconds > self.window) {
            self.counters.pop_front();
        }
        let oldest = self.counters.front().map(|(seconds, _)| *seconds);
        let addresses: BTreeSet<_> = self.counters.iter().flat_map(|(_, counters)| counters).collect();
        let pages: BTreeSet<_> = addresses.iter().map(|address| *address >> 12).collect();
        let since = |few: bool, before: Option<f64>| if few { before.or(oldest) } else { None };
        self.confined = since(pages.len() <= PAGES, self.confined);
        let in_firmware = addresses.iter().all(|address| FIRMWARE.contains(address));
        let few = if in_firmware { FIRMWARE_ADDRESSES } else { ADDRESSES };
        self.looping = since(addresses.len() <= few, self.looping);
    }
}
