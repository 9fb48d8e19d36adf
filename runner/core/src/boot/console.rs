//! Reading a booting machine's consoles: how far it got, and the words with which it gives up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a boot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// SeaBIOS or OVMF speaks.
    Firmware,
    /// The boot loader on the ISO speaks, or the firmware has handed over to it.
    BootMenu,
    /// The kernel's first line.
    Kernel,
    /// The first program of the initial RAM file system.
    Initramfs,
    /// The init system of the live system.
    Userspace,
    /// Ready for people: multi-user target or a login prompt.
    MultiUser,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Firmware => "firmware",
            Self::BootMenu => "boot menu",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Userspace => "userspace",
            Self::MultiUser => "multi-user",
        })
    }
}

/// A way in which a boot ends without a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The firmware found nothing to start on the disc.
    NothingBootable,
    /// The boot loader cannot start a kernel.
    NoKernel,
    /// The kernel panicked.
    Panic,
    /// The initial RAM file system gave up and offers a shell.
    InitramfsShell,
    /// systemd gave up and offers a shell.
    Emergency,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingBootable => "the firmware finds nothing to boot on the disc",
            Self::NoKernel => "the boot loader cannot start the kernel",
            Self::Panic => "kernel panic",
            Self::InitramfsShell => "the boot stopped in the initramfs and offers a shell",
            Self::Emergency => "the system came up in emergency mode",
        })
    }
}

/// Something that a console line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// A phase was entered.
    Entered(Phase),
    /// The boot has failed.
    Failed(Failure),
}

/// Words, and what they mean wherever they stand in a line. First match wins.
const SIGNS: [(&str, Sighting); 26] = {
    use Failure::*;
    use Phase::*;
    use Sighting::*;
    [
        ("Kernel panic - not syncing", Failed(Panic)),
        ("You are in emergency mode", Failed(Emergency)),
        ("You are in rescue mode", Failed(Emergency)),
        ("Cannot open access to console, the root account is locked", Failed(Emergency)),
        ("Unable to find a medium containing a live file system", Failed(InitramfsShell)),
        ("ALERT!  ", Failed(InitramfsShell)),
        ("(initramfs)", Failed(InitramfsShell)),
        ("No bootable device", Failed(NothingBootable)),
        ("Boot failed: Could not read from CDROM", Failed(NothingBootable)),
        ("BdsDxe: failed to load", Failed(NothingBootable)),
        ("BdsDxe: No bootable option or device was found", Failed(NothingBootable)),
        ("Invalid or corrupt kernel image", Failed(NoKernel)),
        ("Could not find kernel image", Failed(NoKernel)),
        ("you need to load the kernel first", Failed(NoKernel)),
        ("bad shim signature", Failed(NoKernel)),
        ("SeaBIOS (version", Entered(Firmware)),
        ("BdsDxe: loading", Entered(Firmware)),
        ("Booting from 0", Entered(BootMenu)),
        ("ISOLINUX ", Entered(BootMenu)),
        ("GNU GRUB", Entered(BootMenu)),
        ("BdsDxe: starting", Entered(BootMenu)),
        ("] Linux version ", Entered(Kernel)),
        (" as init process", Entered(Initramfs)),
        ("systemd[1]: systemd ", Entered(Userspace)),
        ("Reached target multi-user.target", Entered(MultiUser)),
        (" login: ", Entered(MultiUser)),
    ]
};

/// Longest line kept; a console without line ends must not fill the memory.
const MAX_LINE: usize = 4096;

/// Reads one console's bytes as they come.
#[derive(Debug, Default)]
pub struct ConsoleReader {
    line: String,
    seen: Vec<&'static str>,
}

impl ConsoleReader {
    /// Takes the next bytes; gives each new sighting with the line that shows it.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<(Sighting, String)> {
        let mut sightings = Vec::new();
        for character in String::from_utf8_lossy(bytes).chars() {
            match character {
                '\n' | '\r' => {
                    self.look(&mut sightings);
                    self.line.clear();
                    self.seen.clear();
                }
                // A control sequence is not text, but what follows it on the line is.
                '\u{1b}' => self.line.push('␛'),
                character if character.is_control() => {}
                character => {
                    if self.line.len() >= MAX_LINE {
                        self.look(&mut sightings);
                        self.line.clear();
                        self.seen.clear();
                    }
                    self.line.push(character);
                }
            }
        }
        // Prompts end without a line end.
        self.look(&mut sightings);
        sightings
    }

    fn look(&mut self, sightings: &mut Vec<(Sighting, String)>) {
        for (words, sighting) in SIGNS {
            if !self.seen.contains(&words) && self.line.contains(words) {
                self.seen.push(words);
                sightings.push((sighting, self.line.trim().to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sightings(text: &str) -> Vec<Sighting> {
        ConsoleReader::default().feed(text.as_bytes()).into_iter().map(|(sighting, _)| sighting).collect()
    }

    #[test]
    fn follows_a_boot() {
        let text = "BdsDxe: loading Boot0001\r\nBdsDxe: starting Boot0001\r\n\x1b[2;25HGNU GRUB  version 2.12\r\n\
                    [    0.000000] Linux version 6.12.1\r\n[    4.0] Run /init as init process\r\n\
                    [    9.9] systemd[1]: systemd 257 running in system mode\r\n\
                    [  OK  ] Reached target multi-user.target - Multi-User System.\r\nlive login: ";
        use Phase::*;
        let phases: Vec<_> =
            [Firmware, BootMenu, BootMenu, Kernel, Initramfs, Userspace, MultiUser, MultiUser]
                .map(Sighting::Entered)
                .to_vec();
        assert_eq!(sightings(text), phases);
    }

    #[test]
    fn recognises_ways_to_give_up() {
        use Failure::*;
        for (text, failure) in [
            ("[  2.1] Kernel panic - not syncing: VFS: Unable to mount root fs", Panic),
            ("Could not find kernel image: /live/vmlinuz", NoKernel),
            ("error: you need to load the kernel first.", NoKernel),
            ("\n(initramfs) ", InitramfsShell),
            ("You are in emergency mode. After logging in", Emergency),
            ("No bootable device.  Retrying in 60 seconds.", NothingBootable),
            ("BdsDxe: failed to load Boot0001 \"UEFI QEMU DVD-ROM\"", NothingBootable),
        ] {
            assert_eq!(sightings(text), [Sighting::Failed(failure)], "{text:?}");
        }
    }

    #[test]
    fn words_split_over_reads_are_found_once() {
        let mut reader = ConsoleReader::default();
        assert_eq!(reader.feed(b"Kernel pan"), []);
        assert_eq!(reader.feed(b"ic - not syncing: x").len(), 1);
        assert_eq!(reader.feed(b" and more").len(), 0);
        assert_eq!(reader.feed(b"\r\n(initramfs)").len(), 1);
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut reader = ConsoleReader::default();
        reader.feed(&vec![b'x'; 1 << 20]);
        assert!(reader.line.len() <= MAX_LINE);
    }
}
