//! What an inspection lets us expect of boot tests: which machines suit, which checks can be made, which ways in
//! the probe has. Nothing here is a verdict.

use std::fmt;

use serde::Serialize;

use super::esp::Esp;
use super::inspection::Inspection;
use super::loader::LoaderConfig;
use super::system::{Initramfs, System, UnitState};
use crate::boot::channel::Channel;
use crate::boot::profile::{Firmware, MachineProfile};
use crate::names::ProfileName;

/// First version of systemd that takes units as credentials, and the first that takes a console on a serial port so.
const UNITS: u32 = 256;
const GETTY: u32 = 254;

/// What can be expected of boot tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expectations {
    /// Whether the ISO boots on each machine, as far as its boot records tell.
    pub profiles: Vec<Expectation<ProfileName>>,
    /// Whether each check can be made and has something to check.
    pub checks: Vec<Expectation<&'static str>>,
    /// Whether the probe gets in each way, strongest first.
    pub channels: Vec<Expectation<Channel>>,
}

/// One expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expectation<T> {
    /// What it is about.
    pub subject: T,
    /// What is expected.
    pub outlook: Outlook,
    /// Why, for people.
    pub reason: String,
}

/// What is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outlook {
    /// It should work.
    Yes,
    /// It cannot work, and the ISO does not say that it does.
    No,
    /// It cannot work, though the ISO has the beginnings of it.
    Broken,
    /// The ISO does not say.
    Unknown,
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        })
    }
}

/// An outlook with its reason.
type Found = (Outlook, String);

fn yes(reason: impl Into<String>) -> Found {
    (Outlook::Yes, reason.into())
}

fn no(reason: impl Into<String>) -> Found {
    (Outlook::No, reason.into())
}

fn broken(reason: impl Into<String>) -> Found {
    (Outlook::Broken, reason.into())
}

fn unknown(reason: impl Into<String>) -> Found {
    (Outlook::Unknown, reason.into())
}

impl Expectations {
    /// For these machines.
    pub fn of(inspection: &Inspection, profiles: &[MachineProfile]) -> Self {
        let of_system = |judge: &dyn Fn(&System) -> Found| match &inspection.system {
            Some(system) => match judge(system) {
                (Outlook::No, reason) if system.incomplete => {
                    unknown(format!("{reason}, but part of the live system cannot be read"))
                }
                found => found,
            },
            None => unknown("no live system was found that can be looked into"),
        };
        Self {
            profiles: profiles
                .iter()
                .map(|profile| expectation(profile.name.clone(), machine(inspection, profile)))
                .collect(),
            checks: vec![
                expectation("boot", of_system(&boot)),
                expectation("network-manager", of_system(&network_manager)),
                expectation("wlan", of_system(&wlan)),
                expectation("calamares", of_system(&calamares)),
            ],
            channels: Channel::ALL
                .into_iter()
                .map(|channel| {
                    let found = match channel {
                        Channel::Credentials => of_system(&credentials),
                        Channel::GuestAgent => of_system(&guest_agent),
                        Channel::SerialGetty => of_system(&serial_getty),
                        Channel::InitramfsHook => initramfs_hook(inspection),
                        Channel::BootMenu => boot_menu(inspection),
                        Channel::Console => yes("wherever a login or shell shows"),
                    };
                    expectation(channel, found)
                })
                .collect(),
        }
    }

    /// What is expected of a way in.
    pub fn channel(&self, channel: Channel) -> Option<&Expectation<Channel>> {
        self.channels.iter().find(|expectation| expectation.subject == channel)
    }
}

fn expectation<T>(subject: T, (outlook, reason): Found) -> Expectation<T> {
    Expectation { subject, outlook, reason }
}

fn machine(inspection: &Inspection, profile: &MachineProfile) -> Found {
    if let Err(missing) = inspection.facts.promises(profile.firmware, profile.medium) {
        return no(missing);
    }
    let Firmware::Uefi { secure_boot } = profile.firmware else {
        return yes("there is a boot record for BIOS");
    };
    let Some(esp) = &inspection.esp else { return unknown("the EFI system partition cannot be looked into") };
    let Some(program) = esp.boot_program() else {
        let missing = "the EFI system partition holds no EFI/BOOT/BOOTX64.EFI";
        return if esp.starts_others() { no(missing) } else { broken(missing) };
    };
    if !secure_boot {
        return yes("there is a boot record for UEFI with EFI/BOOT/BOOTX64.EFI");
    }
    match program.signers.join(" and ") {
        signers if program.is_signed_by_microsoft() => {
            match unsigned_next(inspection, esp, profile.firmware) {
                Some(unsigned) => broken(format!("EFI/BOOT/BOOTX64.EFI is signed, but {unsigned} is not")),
                None => yes(format!("EFI/BOOT/BOOTX64.EFI is signed by {signers}")),
            }
        }
        signers if program.is_signed() => {
            no(format!("EFI/BOOT/BOOTX64.EFI is signed by {signers}, not by Microsoft"))
        }
        _ => no("EFI/BOOT/BOOTX64.EFI is not signed"),
    }
}

/// What comes after a signed shim and is not signed: GRUB beside it, or the kernel.
fn unsigned_next(inspection: &Inspection, esp: &Esp, firmware: Firmware) -> Option<String> {
    let grub = esp.programs.iter().find(|program| program.path.eq_ignore_ascii_case("/EFI/BOOT/GRUBX64.EFI"));
    if let Some(grub) = grub.filter(|grub| !grub.is_signed()) {
        return Some(grub.path.clone());
    }
    let kernel = inspection.default_entry(firmware)?.kernel.as_deref()?;
    let kernel = inspection.kernels.iter().find(|known| known.path == kernel)?;
    (!kernel.signed).then(|| kernel.path.clone())
}

fn boot(system: &System) -> Found {
    match starts_systemd(system) {
        Ok(()) => yes(match system.systemd {
            Some(version) => format!("systemd {version} says when it has booted"),
            None => "systemd says when it has booted".to_owned(),
        }),
        Err(reason) => reason,
    }
}

/// Whether systemd is what the kernel starts.
fn starts_systemd(system: &System) -> Result<(), Found> {
    match (system.init.as_deref(), system.systemd) {
        (Some("systemd"), _) => Ok(()),
        // It may start systemd in the end, as scripts of some live systems do.
        (Some(init), Some(_)) => Err(unknown(format!("/sbin/init is not systemd, but {init}"))),
        (Some(init), None) => Err(no(format!("only systemd can be asked, and init is {init}"))),
        (None, Some(_)) => Err(unknown("there is no /sbin/init to start systemd")),
        (None, None) => Err(unknown("there is no sign of systemd")),
    }
}

fn network_manager(system: &System) -> Found {
    match system.network_manager {
        Some(UnitState::Enabled) => yes("NetworkManager is installed and enabled"),
        Some(UnitState::Disabled) => no("NetworkManager is installed, but nothing starts it"),
        Some(UnitState::Masked) => no("NetworkManager is masked"),
        None => no("NetworkManager is not installed"),
    }
}

fn wlan(system: &System) -> Found {
    match &system.modules {
        None => unknown("the kernel's modules cannot be listed"),
        Some(modules) if modules.wlan.is_empty() => {
            no(format!("there is no WLAN module for the kernel {}", modules.release))
        }
        Some(modules) if !modules.wlan_simulator => {
            no("there is no module mac80211_hwsim to simulate radios with")
        }
        Some(_) if system.network_manager.is_none() => {
            no("NetworkManager, which is asked for radios, is not installed")
        }
        Some(modules) => {
            yes(format!("{} WLAN modules, and mac80211_hwsim to simulate radios with", modules.wlan.len()))
        }
    }
}

fn calamares(system: &System) -> Found {
    match &system.calamares {
        Some(version) => yes(format!("Calamares {version} is installed")),
        None => no("Calamares is not installed"),
    }
}

fn credentials(system: &System) -> Found {
    match (systemd_from(system, UNITS), &system.modules) {
        (Err(missing), _) => missing,
        (Ok(_), None) => unknown("the kernel's modules cannot be listed: virtio_console is needed"),
        (Ok(_), Some(modules)) if !modules.virtio_console => no("the kernel has no virtio_console"),
        (Ok(version), Some(_)) => yes(format!("systemd {version} and virtio_console")),
    }
}

fn guest_agent(system: &System) -> Found {
    match (system.guest_agent, &system.modules) {
        (false, _) => no("qemu-guest-agent is not installed"),
        (true, Some(modules)) if !modules.virtio_console => no("the kernel has no virtio_console"),
        (true, _) => yes("qemu-guest-agent is installed"),
    }
}

fn serial_getty(system: &System) -> Found {
    match systemd_from(system, GETTY) {
        Ok(version) => yes(format!("systemd {version}")),
        Err(missing) => missing,
    }
}

/// systemd's version if it is started and at least this one.
fn systemd_from(system: &System, least: u32) -> Result<u32, Found> {
    match system.systemd {
        Some(version) if version < least => Err(no(format!("systemd is {version}, and {least} is needed"))),
        Some(version) => starts_systemd(system).map(|()| version),
        None if system.init.as_deref() == Some("systemd") => {
            Err(unknown(format!("systemd's version is not known, and {least} is needed")))
        }
        None => Err(no("there is no systemd")),
    }
}

fn initramfs_hook(inspection: &Inspection) -> Found {
    let Some(entry) = inspection.any_default() else {
        return no("no boot menu says what to boot with which arguments");
    };
    let kernel = entry.kernel.as_deref().unwrap_or_default();
    let whole = inspection.kernels.iter().any(|known| known.path == kernel && !known.cut_off);
    if !whole {
        return no(format!("the entry {:?} names no kernel that can be read", entry.title));
    }
    let readable =
        |path: &String| inspection.initrds.iter().any(|initrd| initrd.path == *path && initrd.size > 0);
    if entry.initrds.is_empty() || !entry.initrds.iter().all(readable) {
        return no(format!("the entry {:?} names no initrd that can be read", entry.title));
    }
    match inspection.system.as_ref().map(|system| system.initramfs) {
        None => unknown("what made the initrd is not known"),
        Some(None) => unknown("what made the initrd is not in the live system"),
        Some(Some(Initramfs::Mkinitcpio)) => no("mkinitcpio's initrd has no place for the hook"),
        Some(Some(generator)) => yes(format!("kernel, initrd and {}", generator.name())),
    }
}

fn boot_menu(inspection: &Inspection) -> Found {
    let starts_kernel = |config: &&LoaderConfig| config.entries.iter().any(|entry| entry.kernel.is_some());
    let menus: Vec<_> = inspection.loader_configs.iter().filter(starts_kernel).collect();
    let mut open = menus.iter().filter(|menu| menu.editable);
    match (open.clone().find(|menu| menu.timeout != Some(0)), open.next(), menus.first()) {
        (Some(menu), ..) => yes(format!("{}'s menu can be edited", menu.loader.name())),
        (None, Some(menu), _) => {
            unknown(format!("{} boots at once unless a key comes in time", menu.loader.name()))
        }
        (None, None, Some(menu)) => no(format!("{}'s menu may not be edited", menu.loader.name())),
        (None, None, None) => no("no boot menu with an entry that starts a kernel was found"),
    }
}

#[cfg(test)]
mod tests;
