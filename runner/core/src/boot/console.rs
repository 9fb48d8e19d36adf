//! Reading a booting machine's consoles: how far it got, and the words with which it gives up.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::cause::Cause;

/// How far a boot has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// SeaBIOS or OVMF speaks.
    Firmware,
    /// The boot loader on the ISO speaks, or the firmware has handed over to it.
    BootMenu,
    /// The kernel runs.
    Kernel,
    /// The first program of the initial RAM file system runs.
    Initramfs,
    /// The init system of the live system runs.
    Userspace,
    /// Ready for people: multi-user target or a login prompt.
    MultiUser,
    /// A graphical session, or a greeter that offers one.
    Desktop,
}

impl Phase {
    /// Its name in reports and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::BootMenu => "boot-menu",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Userspace => "userspace",
            Self::MultiUser => "multi-user",
            Self::Desktop => "desktop",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name().replace("boot-menu", "boot menu"))
    }
}

/// Something that a console line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// A phase was entered.
    Entered(Phase),
    /// The boot has failed.
    Failed(Cause),
    /// Something broke that may or may not end the boot.
    Noted(Cause),
}

impl Sighting {
    /// Whether it can be meant of a machine that has come so far. Boot menus may hold any words, and so may what
    /// programs write.
    pub fn fits(self, furthest: Option<Phase>) -> bool {
        let kernel_runs = furthest >= Some(Phase::Kernel);
        match self {
            Self::Entered(phase) => phase <= Phase::Kernel || kernel_runs,
            Self::Failed(cause) | Self::Noted(cause) => cause.is_before_kernel() != kernel_runs,
        }
    }
}

/// In the place of a word: the end of the line.
const END: &str = "\n";

/// Words that stand together in a line, and what they mean.
const SIGNS: [(&[&str], Sighting); 71] = {
    use Cause::*;
    use Phase::*;
    use Sighting::*;
    [
        // phases; they come first, so that a line which says both tells where the failure is
        (&["SeaBIOS (version"], Entered(Firmware)),
        (&["BdsDxe: loading"], Entered(Firmware)),
        (&["BdsDxe: failed to load"], Entered(Firmware)),
        (&["Booting from 0"], Entered(BootMenu)),
        (&["ISOLINUX "], Entered(BootMenu)),
        (&["GNU GRUB"], Entered(BootMenu)),
        (&["Welcome to GRUB!"], Entered(BootMenu)),
        // Not its own shell.
        (&["BdsDxe: starting", "\"UEFI "], Entered(BootMenu)),
        (&["] Linux version "], Entered(Kernel)),
        // A quiet kernel says nothing else.
        (&["] Kernel panic - not syncing"], Entered(Kernel)),
        (&["] Run /", " as init process"], Entered(Initramfs)),
        (&["Reached target multi-user.target"], Entered(MultiUser)),
        (&["Reached target Multi-User System"], Entered(MultiUser)),
        (&[" login:", END], Entered(MultiUser)),
        (&[" login: ", " (automatic login)"], Entered(MultiUser)),
        // systemd
        (&["You are in emergency mode"], Failed(EmergencyMode)),
        (&["You are in rescue mode"], Failed(EmergencyMode)),
        (&["Cannot open access to console, the root account is locked"], Failed(EmergencyMode)),
        (&["Give root password for maintenance"], Failed(EmergencyMode)),
        // the kernel
        (&["Kernel panic - not syncing: No working init found"], Failed(NoInit)),
        (&["Kernel panic - not syncing: Requested init"], Failed(NoInit)),
        (&["Kernel panic - not syncing: System is deadlocked on memory"], Failed(OutOfMemory)),
        (&["Kernel panic - not syncing: Out of memory"], Failed(OutOfMemory)),
        (&["Kernel panic - not syncing: VFS: Unable to mount root fs"], Failed(NoLiveMedium)),
        (&["Kernel panic - not syncing"], Failed(KernelPanic)),
        (&["] Out of memory: Killed process"], Noted(OutOfMemory)),
        (&["] Initramfs unpacking failed: "], Noted(NoLiveMedium)),
        (&["] SQUASHFS error:"], Noted(SquashfsError)),
        (&["] BUG: unable to handle"], Noted(KernelOops)),
        (&["] BUG: kernel NULL pointer dereference"], Noted(KernelOops)),
        (&["] Oops: "], Noted(KernelOops)),
        (&["] Oops [#", "]"], Noted(KernelOops)),
        // the initial RAM file system: initramfs-tools, klibc, live-boot, casper, dracut
        (&["Unable to find a medium containing a live file system"], Failed(NoLiveMedium)),
        (&["Unable to find a live file system"], Failed(NoLiveMedium)),
        (&["ALERT!  ", "does not exist"], Failed(NoLiveMedium)),
        (&["dracut-initqueue", "timeout"], Noted(NoLiveMedium)),
        (&["Can not mount /dev/loop"], Noted(SquashfsError)),
        (&["can't execute '/sbin/init'"], Noted(NoInit)),
        (&["No init found. Try passing init= bootarg"], Failed(NoInit)),
        (&["Failed to switch root"], Failed(NoInit)),
        (&["Cannot find init!"], Failed(NoInit)),
        (&["(initramfs)"], Failed(InitramfsShell)),
        (&["dracut", "Entering emergency mode."], Failed(InitramfsShell)),
        (&["dracut:/#"], Failed(InitramfsShell)),
        // firmware
        (&["No bootable device"], Failed(NothingBootable)),
        (&["Boot failed: Could not read from CDROM"], Failed(NothingBootable)),
        (&["BdsDxe: failed to load"], Failed(NothingBootable)),
        (&["BdsDxe: No bootable option or device was found"], Failed(NothingBootable)),
        (&["UEFI Interactive Shell"], Failed(UefiShell)),
        (&["BdsDxe: failed to", ": Access Denied"], Failed(SecureBootRefused)),
        (&["BdsDxe: failed to", ": Security Violation"], Failed(SecureBootRefused)),
        (&["(0x1A) Security Violation"], Failed(SecureBootRefused)),
        // boot loaders
        (&["bad shim signature"], Failed(SecureBootRefused)),
        (&["prohibited by secure boot policy"], Failed(SecureBootRefused)),
        (&["Invalid or corrupt kernel image"], Failed(NoKernel)),
        (&["Could not find kernel image"], Failed(NoKernel)),
        (&["Booting kernel failed"], Failed(NoKernel)),
        (&["Loading /", "initr", "failed: "], Failed(BootLoaderError)),
        (&["Loading /", "linu", "failed: "], Failed(NoKernel)),
        (&["Loading /", "kernel", "failed: "], Failed(NoKernel)),
        (&["you need to load the kernel first"], Failed(NoKernel)),
        (&["error: ", "invalid magic number"], Failed(NoKernel)),
        (&["error: ", "premature end of file"], Noted(NoKernel)),
        (&["grub rescue>"], Failed(BootLoaderError)),
        (&["isolinux.bin missing or corrupt"], Failed(BootLoaderError)),
        (&["Failed to load ldlinux.c32"], Failed(BootLoaderError)),
        (&["No configuration file found"], Failed(BootLoaderError)),
        (&["No DEFAULT or UI configuration directive found"], Failed(BootLoaderError)),
        (&["Image checksum error, sorry"], Failed(BootLoaderError)),
        (&["Operating system load error"], Failed(BootLoaderError)),
        (&["Missing operating system"], Failed(BootLoaderError)),
    ]
};

/// systemd has started, be it the initrd's or the live system's.
const SYSTEMD: [&str; 2] = ["systemd[1]: systemd ", " running in system mode"];
/// What an initrd's systemd says next ("in initrd", before version 252 "in initial RAM disk"), and what any says before
/// that.
const IN_INITRD: &str = "systemd[1]: Running in init";
const BEFORE_INITRD: &str = "systemd[1]: Detected ";
/// Lines of others that may come between; a text screen breaks the one with which systemd starts into six.
const BETWEEN: usize = 20;

/// Begins a control sequence.
const ESCAPE: char = '\u{1b}';
/// Longest line kept; a console without line ends must not fill the memory.
const MAX_LINE: usize = 4096;
/// Lines kept to explain an end.
const RECENT: usize = 12;

/// Whether the words stand in the line, one behind the other.
fn holds(line: &str, words: &[&str]) -> bool {
    let mut rest = line;
    words.iter().all(|word| match rest.find(word) {
        _ if *word == END => rest.trim().is_empty(),
        Some(at) => {
            rest = &rest[at + word.len()..];
            true
        }
        None => false,
    })
}

/// Whether a control sequence puts the cursor somewhere: `row;columnH`.
fn moves_cursor(sequence: &str) -> bool {
    let numbers = sequence.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
    numbers.starts_with('H') && sequence.contains(';')
}

/// Reads one console's bytes as they come.
#[derive(Debug, Default)]
pub struct ConsoleReader {
    line: String,
    /// Signs of the line that were told already.
    seen: Vec<usize>,
    recent: VecDeque<String>,
    /// The line with which systemd has started, until it is known where, and how many lines have come since.
    systemd: Option<(String, usize)>,
}

impl ConsoleReader {
    /// Takes the next bytes; gives each new sighting with the line that shows it.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<(Sighting, String)> {
        let mut sightings = Vec::new();
        for character in String::from_utf8_lossy(bytes).chars() {
            match character {
                '\n' | '\r' => self.end_line(&mut sightings),
                character if character.is_control() && character != ESCAPE => {}
                character => {
                    if self.line.len() >= MAX_LINE {
                        self.end_line(&mut sightings);
                    }
                    // A control sequence is not text, but what follows it on the line is.
                    self.line.push(if character == ESCAPE { '␛' } else { character });
                }
            }
        }
        // Prompts end without a line end.
        self.look(&mut sightings);
        sightings
    }

    /// The last lines, oldest first.
    pub fn recent(&self) -> Vec<String> {
        let open = Some(self.line.trim()).filter(|line| !line.is_empty());
        self.recent.iter().map(String::as_str).chain(open).map(str::to_owned).collect()
    }

    /// Whether the last thing that was said asks for something: a prompt, or a dialog that is drawn by moving the
    /// cursor. Logs end their lines.
    pub fn asks(&self) -> bool {
        let line = self.line.trim_end();
        let (before, last) = line.rsplit_once("␛[").unwrap_or((line, ""));
        let colour =
            last.strip_suffix('m').is_some_and(|code| code.chars().all(|c| "0123456789;".contains(c)));
        let text = if colour { before.trim_end() } else { line };
        text.ends_with([':', '?', '>', '#', '$', ']']) || line.split("␛[").skip(1).any(moves_cursor)
    }

    fn end_line(&mut self, sightings: &mut Vec<(Sighting, String)>) {
        self.place_systemd(sightings);
        self.look(sightings);
        let line = self.line.trim();
        if !line.is_empty() {
            if holds(line, &SYSTEMD) {
                self.systemd = Some((line.to_owned(), 0));
            }
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(line.to_owned());
        }
        self.line.clear();
        self.seen.clear();
    }

    /// Finds out by a whole line whether the systemd that has started is the live system's.
    fn place_systemd(&mut self, sightings: &mut Vec<(Sighting, String)>) {
        let Some((_, lines)) = self.systemd.as_mut().filter(|_| !self.line.trim().is_empty()) else { return };
        *lines += 1;
        if self.line.contains(IN_INITRD) {
            self.systemd = None;
        } else if *lines > BETWEEN || self.line.contains("systemd[1]: ") && !self.line.contains(BEFORE_INITRD)
        {
            self.systemd_is_up(sightings);
        }
    }

    fn systemd_is_up(&mut self, sightings: &mut Vec<(Sighting, String)>) {
        let started = self.systemd.take().map(|(line, _)| (Sighting::Entered(Phase::Userspace), line));
        sightings.extend(started);
    }

    fn look(&mut self, sightings: &mut Vec<(Sighting, String)>) {
        for (index, (words, sighting)) in SIGNS.iter().enumerate() {
            if !self.seen.contains(&index) && holds(&self.line, words) {
                self.seen.push(index);
                if matches!(sighting, Sighting::Failed(_)) {
                    self.systemd_is_up(sightings);
                }
                sightings.push((*sighting, self.line.trim().to_owned()));
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
        let text = "BdsDxe: loading Boot0001\r\nBdsDxe: starting Boot0001 \"UEFI QEMU DVD-ROM\"\r\n\x1b[2;25HGNU GRUB  version 2.12\r\n\
                    [    0.000000] Linux version 6.12.1\r\n[    4.0] Run /init as init process\r\n\
                    [    9.9] systemd[1]: systemd 257 running in system mode\r\n\
                    [    9.9] systemd[1]: Detected architecture x86-64.\r\n\
                    [    9.9] systemd[1]: Hostname set to <live>.\r\n\
                    [  OK  ] Reached target multi-user.target - Multi-User System.\r\nlive login: ";
        use Phase::*;
        let phases: Vec<_> =
            [Firmware, BootMenu, BootMenu, Kernel, Initramfs, Userspace, MultiUser, MultiUser]
                .map(Sighting::Entered)
                .to_vec();
        assert_eq!(sightings(text), phases);
    }

    #[test]
    fn escapes_without_end_fill_no_memory() {
        let mut reader = ConsoleReader::default();
        reader.feed(&[0x1b; 100_000]);
        assert!(reader.recent().iter().all(|line| line.len() <= MAX_LINE + 3));
    }

    #[test]
    fn systemd_in_an_initrd_is_not_the_live_systems() {
        let started = "[ 5.5] systemd[1]: systemd 257 running in system mode (+PAM)\n\
                       [ 5.5] systemd[1]: Detected virtualization qemu.\n\
                       [ 5.5] usb 1-1: new high-speed USB device\n";
        let userspace = [Sighting::Entered(Phase::Userspace)];
        let initrd =
            format!("{started}[ 5.5] systemd[1]: Running in initrd.\n[ 5.6] systemd[1]: Hostname set\n");
        assert_eq!(sightings(&initrd), []);
        assert_eq!(sightings(&initrd.replace("initrd", "initial RAM disk")), [], "as it was said before 252");
        assert_eq!(sightings(&format!("{initrd}{started}[ 21.5] systemd[1]: Hostname set\n")), userspace);
        assert_eq!(sightings(started), [], "not known yet");
        assert_eq!(sightings(&format!("{started}{}", "[ 5.6] usb\n".repeat(BETWEEN + 1))), userspace);
        let found =
            sightings(&format!("{started}[ 5.6] Kernel panic - not syncing: Attempted to kill init!\n"));
        let panic = [Sighting::Entered(Phase::Kernel), userspace[0], Sighting::Failed(Cause::KernelPanic)];
        assert_eq!(found, panic, "what fails is what has started");
    }

    #[test]
    fn recognises_ways_to_give_up() {
        use Cause::*;
        for (text, cause) in [
            ("[  2.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x7f00", KernelPanic),
            ("[  2.1] Kernel panic - not syncing: VFS: Unable to mount root fs", NoLiveMedium),
            ("[  2.1] Kernel panic - not syncing: No working init found.", NoInit),
            ("Could not find kernel image: /live/vmlinuz", NoKernel),
            ("error: you need to load the kernel first.", NoKernel),
            ("\n(initramfs) ", InitramfsShell),
            ("No init found. Try passing init= bootarg.", NoInit),
            ("You are in emergency mode. After logging in", EmergencyMode),
            ("No bootable device.  Retrying in 60 seconds.", NothingBootable),
            ("Loading /live/vmlinuz... failed: No such file or directory", NoKernel),
            ("Loading /live/initrd.img...failed: No such file or directory", BootLoaderError),
            ("ALERT!  UUID=0-0 does not exist.  Dropping to a shell!", NoLiveMedium),
            ("error: bad shim signature.", SecureBootRefused),
        ] {
            let found = sightings(text);
            let mut failures = found.iter().filter(|sighting| matches!(sighting, Sighting::Failed(_)));
            assert_eq!(failures.next(), Some(&Sighting::Failed(cause)), "{text:?}");
        }
        let refused = sightings("BdsDxe: failed to load Boot0001 \"UEFI QEMU DVD-ROM\": Access Denied");
        assert!(refused.contains(&Sighting::Failed(SecureBootRefused)), "{refused:?}");
        assert_eq!(
            sightings("[ 9.1] SQUASHFS error: zstd decompression failed, data probably corrupt"),
            [Sighting::Noted(SquashfsError)]
        );
    }

    #[test]
    fn words_split_over_reads_are_found_once() {
        let mut reader = ConsoleReader::default();
        assert_eq!(reader.feed(b"Kernel pan"), []);
        assert_eq!(reader.feed(b"ic - not syncing: x").len(), 1);
        assert_eq!(reader.feed(b" and more").len(), 0);
        assert_eq!(reader.feed(b"\r\n(initramfs)").len(), 1);
        assert_eq!(reader.recent(), ["Kernel panic - not syncing: x and more", "(initramfs)"]);
    }

    #[test]
    fn a_login_prompt_ends_its_line() {
        for line in ["debian login:", "debian login: ", "live login: user (automatic login)"] {
            assert_eq!(sightings(line), [Sighting::Entered(Phase::MultiUser)], "{line}");
        }
        for line in ["Live (default login: user)", "[    0.86] squashfs: version 4.0 (2009/01/31)"] {
            assert_eq!(sightings(line), [], "{line}");
        }
    }

    #[test]
    fn prompts_and_dialogs_ask_and_logs_do_not() {
        let asks = |text: &str| {
            let mut reader = ConsoleReader::default();
            reader.feed(text.as_bytes());
            reader.asks()
        };
        for text in [
            "Select a language [1]:",
            "Continue? [Y/n]\x1b[0m ",
            "\x1b[5;10H Select a language \x1b[20;4H<Go Back>\x1b[12;7H",
        ] {
            assert!(asks(text), "{text:?}");
        }
        for text in [
            "[    9.1] random: crng init done\r\n",
            "Begin: Running /scripts/init-bottom ... ",
            "\x1b[32m  OK  \x1b[0m Reached target\r\n",
            "",
        ] {
            assert!(!asks(text), "{text:?}");
        }
    }

    #[test]
    fn words_count_where_they_can_be_meant() {
        use Cause::*;
        let menu = Some(Phase::BootMenu);
        for (sighting, in_menu, in_system) in [
            (Sighting::Entered(Phase::MultiUser), false, true),
            (Sighting::Entered(Phase::Kernel), true, true),
            (Sighting::Failed(InitramfsShell), false, true),
            (Sighting::Failed(NoKernel), true, false),
            (Sighting::Failed(NothingBootable), true, false),
            (Sighting::Noted(SquashfsError), false, true),
        ] {
            assert_eq!(sighting.fits(menu), in_menu, "{sighting:?}");
            assert_eq!(sighting.fits(Some(Phase::Userspace)), in_system, "{sighting:?}");
        }
        assert!(Sighting::Failed(NothingBootable).fits(None));
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut reader = ConsoleReader::default();
        reader.feed(&vec![b'x'; 1 << 20]);
        assert!(reader.line.len() <= MAX_LINE);
        assert!(reader.recent().len() <= RECENT + 1);
    }
}
