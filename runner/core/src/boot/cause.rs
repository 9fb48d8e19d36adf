//! Why a boot test did not pass.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;

/// Why a boot test did not pass: what broke first, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The ISO holds nothing that this firmware starts from this medium.
    NoBootRecord,
    /// The firmware found nothing to start, though the ISO promises it something.
    NothingBootable,
    /// UEFI came up with its own shell instead of the ISO.
    UefiShell,
    /// Secure Boot refused what the ISO would have it start.
    SecureBootRefused,
    /// The boot loader cannot go on.
    BootLoaderError,
    /// The boot menu waits for a key for ever.
    MenuWaits,
    /// The boot loader cannot start the kernel.
    NoKernel,
    /// The kernel panicked.
    KernelPanic,
    /// The kernel hit an error of its own.
    KernelOops,
    /// Memory ran out.
    OutOfMemory,
    /// The compressed root file system is damaged.
    SquashfsError,
    /// The initial RAM file system does not find the live medium or the root file system.
    NoLiveMedium,
    /// There is no init system to start.
    NoInit,
    /// The initial RAM file system gave up and offers a shell.
    InitramfsShell,
    /// systemd gave up and offers a shell.
    EmergencyMode,
    /// The system is up, but units have failed.
    FailedUnits,
    /// The machine restarts again and again.
    RebootLoop,
    /// The machine switched itself off.
    PoweredOff,
    /// Nothing moves any more.
    Hang,
    /// Something goes on, but time ran out.
    TooSlow,
    /// What runs is not Linux: a memory test, a boot loader's prompt, a network boot program.
    NotLinux,
    /// Something runs, but says nothing that could be judged.
    Silent,
    /// A system came up, but the probe could not get in.
    NoProbe,
    /// The boot is fine, but one of the checks does not hold.
    CheckFailed,
}

impl Cause {
    /// Its name in reports and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBootRecord => "no-boot-record",
            Self::NothingBootable => "nothing-bootable",
            Self::UefiShell => "uefi-shell",
            Self::SecureBootRefused => "secure-boot-refused",
            Self::BootLoaderError => "boot-loader-error",
            Self::MenuWaits => "menu-waits",
            Self::NoKernel => "no-kernel",
            Self::KernelPanic => "kernel-panic",
            Self::KernelOops => "kernel-oops",
            Self::OutOfMemory => "out-of-memory",
            Self::SquashfsError => "squashfs-error",
            Self::NoLiveMedium => "no-live-medium",
            Self::NoInit => "no-init",
            Self::InitramfsShell => "initramfs-shell",
            Self::EmergencyMode => "emergency-mode",
            Self::FailedUnits => "failed-units",
            Self::RebootLoop => "reboot-loop",
            Self::PoweredOff => "powered-off",
            Self::Hang => "hang",
            Self::TooSlow => "too-slow",
            Self::NotLinux => "not-linux",
            Self::Silent => "silent",
            Self::NoProbe => "no-probe",
            Self::CheckFailed => "check-failed",
        }
    }

    /// How a boot test ends for this cause: a boot that cannot be judged has not failed.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::NotLinux | Self::Silent | Self::NoProbe => Verdict::Inconclusive,
            _ => Verdict::Fail,
        }
    }

    /// Whether it lies with firmware or boot loader.
    pub fn is_before_kernel(self) -> bool {
        matches!(
            self,
            Self::NoBootRecord
                | Self::NothingBootable
                | Self::UefiShell
                | Self::SecureBootRefused
                | Self::BootLoaderError
                | Self::MenuWaits
                | Self::NoKernel
        )
    }

    /// Whether it tends to be the consequence of something that was said before.
    pub fn is_consequence(self) -> bool {
        matches!(
            self,
            Self::NothingBootable
                | Self::KernelPanic
                | Self::InitramfsShell
                | Self::EmergencyMode
                | Self::FailedUnits
                | Self::RebootLoop
                | Self::PoweredOff
                | Self::Hang
                | Self::TooSlow
                | Self::Silent
                | Self::NoProbe
                | Self::NotLinux
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBootRecord => "the ISO has nothing that this firmware starts from this medium",
            Self::NothingBootable => "the firmware finds nothing to boot on the medium",
            Self::UefiShell => "UEFI came up with its own shell instead of the ISO",
            Self::SecureBootRefused => {
                "Secure Boot refuses what the ISO starts: it is not signed with a trusted key"
            }
            Self::BootLoaderError => "the boot loader cannot go on",
            Self::MenuWaits => "the boot menu waits for a key for ever",
            Self::NoKernel => "the boot loader cannot start the kernel",
            Self::KernelPanic => "kernel panic",
            Self::KernelOops => "the kernel hit an error of its own (oops)",
            Self::OutOfMemory => "the system ran out of memory",
            Self::SquashfsError => "the compressed root file system is damaged",
            Self::NoLiveMedium => "the initramfs does not find the live medium or the root file system",
            Self::NoInit => "there is no init system to start",
            Self::InitramfsShell => "the boot stopped in the initramfs and offers a shell",
            Self::EmergencyMode => "the system came up in emergency mode",
            Self::FailedUnits => "units have failed",
            Self::RebootLoop => "the machine restarts again and again",
            Self::PoweredOff => "the machine switched itself off",
            Self::Hang => "the machine hangs",
            Self::TooSlow => "the boot does not come to an end",
            Self::NotLinux => "what runs is not Linux",
            Self::Silent => "nothing is heard of the system",
            Self::NoProbe => "a system came up, but the probe could not get in",
            Self::CheckFailed => "a check does not hold",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_the_same_as_in_json() {
        for cause in [Cause::NoBootRecord, Cause::SecureBootRefused, Cause::TooSlow, Cause::CheckFailed] {
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{}\"", cause.name()));
        }
    }

    #[test]
    fn what_cannot_be_judged_has_not_failed() {
        assert_eq!(Cause::Silent.verdict(), Verdict::Inconclusive);
        assert_eq!(Cause::Hang.verdict(), Verdict::Fail);
    }
}
