//! The ways in which the probe gets into a guest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the probe comes to run in the guest, strongest first: the less is asked of the ISO and the less is
/// changed about its boot, the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// A unit handed to systemd (256 or later) as a system credential by SMBIOS.
    Credentials,
    /// QEMU's guest agent, which the ISO runs by itself.
    GuestAgent,
    /// A root shell on the second serial port, which systemd (254 or later) opens when credentials ask for it.
    SerialGetty,
    /// A file appended to the initrd, with the ISO's own kernel and arguments started by QEMU itself: says
    /// nothing about the boot loader.
    InitramfsHook,
    /// Kernel arguments typed at the boot menu.
    BootMenu,
    /// Commands typed at a console where somebody is logged in.
    Console,
}

impl Channel {
    /// All of them, strongest first.
    pub const ALL: [Self; 6] = [
        Self::Credentials,
        Self::GuestAgent,
        Self::SerialGetty,
        Self::InitramfsHook,
        Self::BootMenu,
        Self::Console,
    ];

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::GuestAgent => "guest-agent",
            Self::SerialGetty => "serial-getty",
            Self::InitramfsHook => "initramfs-hook",
            Self::BootMenu => "boot-menu",
            Self::Console => "console",
        }
    }

    /// Whether the machine goes through its own firmware and boot loader when the probe comes in this way.
    pub fn proves_boot_loader(self) -> bool {
        self != Self::InitramfsHook
    }
}

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|channel| channel.name() == text)
            .ok_or_else(|| format!("valid: {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
