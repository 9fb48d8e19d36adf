//! What is known of a stage's end that its log does not say.

use serde::{Deserialize, Serialize};

use crate::units::show_size;

/// Below this, a file system is as good as full: dpkg and tar fail before the last byte is gone.
const FULL_BYTES: u64 = 32 << 20;
const FULL_INODES: u64 = 200;
/// Above this, nothing fails for want of room but what would never fit.
const AMPLE_BYTES: u64 = 4 << 30;
const AMPLE_INODES: u64 = 10_000;
/// Seconds by which a clock may be wrong before archives are taken for expired, or for not valid yet.
const CLOCK_TOLERANCE: i64 = 60;
/// What shells add to a signal's number to tell of a process that it ended.
const BY_SIGNAL: i64 = 128;
const SIGKILL: i64 = 9;
/// SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV: what a program that is wrong ends with.
const CRASHES: [i64; 5] = [4, 6, 7, 8, 11];

/// Something that rules can rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// A file system is full.
    DiskFull,
    /// The kernel ended it for want of memory.
    OutOfMemory,
    /// It was ended because its time was over.
    TimedOut,
    /// Its container was killed, or its engine was.
    Lost,
    /// A process was killed, nobody knows by whom.
    Killed,
    /// A program crashed.
    Crashed,
    /// Names of hosts cannot be resolved where it ran.
    NoResolver,
    /// It has no network by its own declaration, and needed one.
    NoNetwork,
    /// This machine's clock is behind.
    ClockBehind,
    /// This machine's clock is ahead.
    ClockAhead,
}

impl Fact {
    /// Names as in files of rules.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("disk-full", Self::DiskFull),
        ("out-of-memory", Self::OutOfMemory),
        ("timed-out", Self::TimedOut),
        ("lost", Self::Lost),
        ("killed", Self::Killed),
        ("crashed", Self::Crashed),
        ("no-resolver", Self::NoResolver),
        ("no-network", Self::NoNetwork),
        ("clock-behind", Self::ClockBehind),
        ("clock-ahead", Self::ClockAhead),
    ];

    /// Whether it explains everything that the log says. The others only explain what the log leaves open.
    pub fn is_strong(self) -> bool {
        matches!(self, Self::DiskFull | Self::OutOfMemory | Self::TimedOut | Self::Lost)
    }
}

/// How a stage came to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Nobody knows, as with a log found somewhere.
    #[default]
    Unknown,
    /// With a status.
    Status(i64),
    /// Its time was over.
    TimedOut,
    /// Its memory was over.
    OutOfMemory,
    /// Its container vanished.
    Lost,
}

/// Room on a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Whose, for example "the engine's disk".
    pub what: String,
    /// Bytes left.
    pub bytes: u64,
    /// Inodes left.
    pub inodes: u64,
}

impl Room {
    /// Whether nothing can have failed for want of room.
    pub fn is_ample(&self) -> bool {
        self.bytes > AMPLE_BYTES && self.inodes > AMPLE_INODES
    }

    /// Whether what needs room fails.
    pub fn is_full(&self) -> bool {
        self.bytes < FULL_BYTES || self.inodes < FULL_INODES
    }
}

/// Everything that is known of a stage's end besides its log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How it ended.
    pub end: End,
    /// Room on every file system that it used, when it had ended.
    pub rooms: Vec<Room>,
    /// Seconds by which this machine's clock is ahead of the archive's; negative where it is behind.
    pub clock_offset: Option<i64>,
    /// Whether the archive's host could be resolved where the stage ran.
    pub resolves: Option<bool>,
    /// Whether the stage has a network.
    pub has_network: Option<bool>,
}

impl Facts {
    /// What is known of a log that somebody found.
    pub fn of_status(status: Option<i64>) -> Self {
        Self { end: status.map_or(End::Unknown, End::Status), ..Self::default() }
    }

    /// Whether every file system that was looked at has room to spare.
    pub fn has_ample_room(&self) -> bool {
        !self.rooms.is_empty() && self.rooms.iter().all(Room::is_ample)
    }

    /// Whether the stage ended well.
    pub fn ended_well(&self) -> bool {
        self.end == End::Status(0)
    }

    /// The signal that ended it.
    fn signal(&self) -> Option<i64> {
        match self.end {
            // As programs in other languages tell it.
            End::Status(status) if status < 0 => Some(-status),
            End::Status(status) if status > BY_SIGNAL => Some(status - BY_SIGNAL),
            _ => None,
        }
    }

    /// Which facts hold, the strongest first.
    pub fn hold(&self) -> Vec<Fact> {
        let offset = self.clock_offset.unwrap_or(0);
        [
            (Fact::DiskFull, self.rooms.iter().any(Room::is_full)),
            (Fact::OutOfMemory, self.end == End::OutOfMemory),
            (Fact::TimedOut, self.end == End::TimedOut),
            (Fact::Lost, self.end == End::Lost),
            (Fact::ClockBehind, offset < -CLOCK_TOLERANCE),
            (Fact::ClockAhead, offset > CLOCK_TOLERANCE),
            (Fact::NoResolver, self.resolves == Some(false) && self.has_network != Some(false)),
            (Fact::NoNetwork, self.has_network == Some(false)),
            (Fact::Killed, self.signal() == Some(SIGKILL)),
            (Fact::Crashed, self.signal().is_some_and(|signal| CRASHES.contains(&signal))),
        ]
        .into_iter()
        .filter_map(|(fact, holds)| (holds && !self.ended_well()).then_some(fact))
        .collect()
    }

    /// What a fact is, in words with its figures.
    pub fn words(&self, fact: Fact) -> String {
        match fact {
            Fact::DiskFull => match self.rooms.iter().find(|room| room.is_full()) {
                Some(room) => {
                    format!(
                        "{} is full ({} and {} inodes are left)",
                        room.what,
                        show_size(room.bytes),
                        room.inodes
                    )
                }
                None => "a file system is full".to_owned(),
            },
            Fact::OutOfMemory => "the kernel ended it because its memory was over".to_owned(),
            Fact::TimedOut => "its time was over".to_owned(),
            Fact::Lost => "its container was killed from outside".to_owned(),
            Fact::Killed => "a process was killed (signal 9)".to_owned(),
            Fact::Crashed => format!("a program crashed (signal {})", self.signal().unwrap_or_default()),
            Fact::NoResolver => "names of hosts cannot be resolved in its container".to_owned(),
            Fact::NoNetwork => "the stage has no network".to_owned(),
            Fact::ClockBehind => {
                format!("this machine's clock is {} s behind", -self.clock_offset.unwrap_or(0))
            }
            Fact::ClockAhead => format!("this machine's clock is {} s ahead", self.clock_offset.unwrap_or(0)),
        }
    }

    /// All that is known, one line each, for whoever reviews the log.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![match self.end {
            End::Unknown => "how it ended is not known".to_owned(),
            End::Status(status) => format!("it ended with status {status}"),
            End::TimedOut => self.words(Fact::TimedOut),
            End::OutOfMemory => self.words(Fact::OutOfMemory),
            End::Lost => self.words(Fact::Lost),
        }];
        for room in &self.rooms {
            lines.push(format!("{}: {} and {} inodes free", room.what, show_size(room.bytes), room.inodes));
        }
        if let Some(offset) = self.clock_offset {
            lines.push(format!("this machine's clock minus the archive's: {offset} s"));
        }
        if let Some(resolves) = self.resolves {
            lines.push(format!(
                "the archive's host resolves in the container: {}",
                if resolves { "yes" } else { "no" }
            ));
        }
        if let Some(network) = self.has_network {
            lines.push(format!("the stage has a network: {}", if network { "yes" } else { "no" }));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_hold_only_for_what_failed() {
        let room = |bytes| Room { what: "the engine's disk".into(), bytes, inodes: 1 << 20 };
        let failed =
            Facts { end: End::Status(100), rooms: vec![room(1 << 40), room(4096)], ..Facts::default() };
        assert_eq!(failed.hold(), [Fact::DiskFull]);
        assert_eq!(
            failed.words(Fact::DiskFull),
            "the engine's disk is full (4.0 KiB and 1048576 inodes are left)"
        );
        assert!(Facts { end: End::Status(0), ..failed }.hold().is_empty());
        for status in [137, -9] {
            assert_eq!(Facts::of_status(Some(status)).hold(), [Fact::Killed]);
        }
        let crashed = Facts::of_status(Some(139));
        assert_eq!(
            (crashed.hold(), crashed.words(Fact::Crashed).as_str()),
            (vec![Fact::Crashed], "a program crashed (signal 11)")
        );
        assert!(Facts::of_status(Some(130)).hold().is_empty());
        assert_eq!(Facts { clock_offset: Some(-3600), ..Facts::default() }.hold(), [Fact::ClockBehind]);
        assert!(Facts { clock_offset: Some(59), ..Facts::default() }.hold().is_empty());
    }
}
