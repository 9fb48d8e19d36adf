use super::super::esp::Esp;
use super::super::facts::{BootEntry, IsoFacts, Platform};
use super::super::kernel::{Initrd, Kernel};
use super::super::loader::{Loader, LoaderConfig, MenuEntry};
use super::super::pe::EfiProgram;
use super::super::system::Modules;
use super::*;

/// A Debian live ISO for CD drives, with all that anything needs.
fn good() -> Inspection {
    let entry = |platform| BootEntry { platform, bootable: true, image: 0 };
    let menu = MenuEntry {
        title: "Live".into(),
        kernel: Some("/live/vmlinuz".into()),
        initrds: vec!["/live/initrd".into()],
        arguments: "boot=live".into(),
    };
    Inspection {
        facts: IsoFacts {
            boot_entries: vec![entry(Platform::Bios), entry(Platform::Efi)],
            ..IsoFacts::default()
        },
        esp: Some(Esp { programs: vec![program(&["Microsoft Windows UEFI Driver Publisher"])] }),
        loader_configs: vec![LoaderConfig {
            path: "/isolinux/isolinux.cfg".into(),
            loader: Loader::Isolinux,
            entries: vec![menu],
            default: Some(0),
            timeout: None,
            editable: true,
        }],
        kernels: vec![Kernel {
            path: "/live/vmlinuz".into(),
            size: 9,
            release: Some("6.12.0".into()),
            cut_off: false,
            signed: true,
        }],
        initrds: vec![Initrd { path: "/live/initrd".into(), size: 9, format: None }],
        system: Some(System {
            init: Some("systemd".into()),
            systemd: Some(257),
            network_manager: Some(UnitState::Enabled),
            guest_agent: true,
            initramfs: Some(Initramfs::InitramfsTools),
            modules: Some(Modules {
                release: "6.12.0".into(),
                wlan: vec!["ath9k".into()],
                wlan_simulator: true,
                virtio_console: true,
                ..Modules::default()
            }),
            ..System::default()
        }),
        problems: vec![],
    }
}

fn program(signers: &[&str]) -> EfiProgram {
    let signers = signers.iter().map(|signer| (*signer).to_owned()).collect();
    EfiProgram {
        path: "/EFI/boot/bootx64.efi".into(),
        machine: "x86-64".into(),
        signers,
        holds_kernel: false,
    }
}

fn profile(firmware: &str, more: &str) -> MachineProfile {
    let text = format!(
        "summary = \"x\"\nfirmware = \"{firmware}\"\n{more}memory = \"2GiB\"\ncpus = 2\nnetwork = \"e1000e\"\n"
    );
    MachineProfile::parse(format!("{firmware}-x").parse().unwrap(), &text).unwrap()
}

fn on(inspection: &Inspection, profile: MachineProfile) -> Found {
    let found = Expectations::of(inspection, &[profile]).profiles.remove(0);
    (found.outlook, found.reason)
}

fn check(inspection: &Inspection, name: &str) -> Found {
    let found =
        Expectations::of(inspection, &[]).checks.into_iter().find(|found| found.subject == name).unwrap();
    (found.outlook, found.reason)
}

fn by(inspection: &Inspection, channel: Channel) -> Found {
    let found = Expectations::of(inspection, &[]).channel(channel).cloned().unwrap();
    (found.outlook, found.reason)
}

fn without(change: impl FnOnce(&mut System)) -> Inspection {
    let mut inspection = good();
    change(inspection.system.as_mut().unwrap());
    inspection
}

#[test]
fn a_machine_needs_its_boot_record_and_its_program() {
    let (cd, usb, secure) =
        ("medium = \"cd\"\n", "medium = \"usb\"\n", "medium = \"cd\"\nsecure-boot = true\n");
    let mut iso = good();
    for (machine, outlook) in [
        (profile("bios", cd), Outlook::Yes),
        (profile("uefi", cd), Outlook::Yes),
        (profile("uefi", secure), Outlook::Yes),
        (profile("bios", usb), Outlook::No),
        (profile("uefi", usb), Outlook::No),
    ] {
        assert_eq!(on(&iso, machine.clone()).0, outlook, "{machine:?}");
    }
    let mut unsigned = good();
    unsigned.kernels[0].signed = false;
    unsigned.loader_configs[0].loader = Loader::Grub;
    assert_eq!(
        on(&unsigned, profile("uefi", secure)),
        broken("EFI/BOOT/BOOTX64.EFI is signed, but /live/vmlinuz is not")
    );
    iso.esp = Some(Esp { programs: vec![program(&["Somebody"])] });
    assert_eq!(
        on(&iso, profile("uefi", secure)),
        no("EFI/BOOT/BOOTX64.EFI is signed by Somebody, not by Microsoft")
    );
    iso.esp = Some(Esp { programs: vec![program(&[])] });
    assert_eq!(on(&iso, profile("uefi", secure)), no("EFI/BOOT/BOOTX64.EFI is not signed"));
    assert_eq!(on(&iso, profile("uefi", cd)).0, Outlook::Yes);
    iso.esp = Some(Esp::default());
    assert_eq!(on(&iso, profile("uefi", cd)).0, Outlook::Broken);
    let other = EfiProgram { path: "/EFI/Boot/bootaa64.efi".into(), ..program(&[]) };
    iso.esp = Some(Esp { programs: vec![other] });
    assert_eq!(on(&iso, profile("uefi", cd)).0, Outlook::No, "an ISO for another machine");
    iso.esp = None;
    assert_eq!(on(&iso, profile("uefi", cd)).0, Outlook::Unknown);
}

#[test]
fn checks_need_what_they_check() {
    for name in ["boot", "network-manager", "wlan"] {
        assert_eq!(check(&good(), name).0, Outlook::Yes, "{name}");
    }
    assert_eq!(check(&good(), "calamares"), no("Calamares is not installed"));
    assert_eq!(check(&without(|system| system.calamares = Some("3.3".into())), "calamares").0, Outlook::Yes);
    assert_eq!(
        check(&without(|system| system.init = None), "boot"),
        unknown("there is no /sbin/init to start systemd")
    );
    let wrapped = without(|system| system.init = Some("init".into()));
    assert_eq!(check(&wrapped, "boot"), unknown("/sbin/init is not systemd, but init"));
    assert_eq!(by(&wrapped, Channel::Credentials).0, Outlook::Unknown);
    let runit = without(|system| (system.init, system.systemd) = (Some("runit-init".into()), None));
    assert_eq!(check(&runit, "boot"), no("only systemd can be asked, and init is runit-init"));
    let masked = without(|system| system.network_manager = Some(UnitState::Masked));
    assert_eq!(check(&masked, "network-manager"), no("NetworkManager is masked"));
    let deaf = without(|system| system.modules.as_mut().unwrap().wlan.clear());
    assert_eq!(check(&deaf, "wlan"), no("there is no WLAN module for the kernel 6.12.0"));
    assert_eq!(check(&without(|system| system.modules = None), "wlan").0, Outlook::Unknown);
}

#[test]
fn every_way_in_is_open_or_says_why_not() {
    for channel in Channel::ALL {
        assert_eq!(by(&good(), channel).0, Outlook::Yes, "{channel}");
    }
    let old = |version| without(move |system| system.systemd = Some(version));
    assert_eq!(by(&old(255), Channel::Credentials), no("systemd is 255, and 256 is needed"));
    assert_eq!(by(&old(254), Channel::SerialGetty).0, Outlook::Yes);
    assert_eq!(by(&old(253), Channel::SerialGetty).0, Outlook::No);
    let silent = without(|system| system.modules.as_mut().unwrap().virtio_console = false);
    assert_eq!(by(&silent, Channel::Credentials), no("the kernel has no virtio_console"));
    assert_eq!(by(&without(|system| system.guest_agent = false), Channel::GuestAgent).0, Outlook::No);
    let arch = without(|system| system.initramfs = Some(Initramfs::Mkinitcpio));
    assert_eq!(by(&arch, Channel::InitramfsHook).0, Outlook::No);
    let mut iso = good();
    iso.kernels[0].cut_off = true;
    assert_eq!(by(&iso, Channel::InitramfsHook).0, Outlook::No);
    iso = good();
    iso.loader_configs[0].timeout = Some(0);
    assert_eq!(by(&iso, Channel::BootMenu).0, Outlook::Unknown);
    iso.initrds.clear();
    assert!(by(&iso, Channel::InitramfsHook).1.contains("names no initrd"));
    iso.loader_configs.clear();
    assert_eq!(
        (by(&iso, Channel::InitramfsHook).0, by(&iso, Channel::BootMenu).0),
        (Outlook::No, Outlook::No)
    );
}

#[test]
fn what_is_not_seen_in_a_damaged_system_is_unknown() {
    let damaged = without(|system| (system.guest_agent, system.incomplete) = (false, true));
    let reason = "qemu-guest-agent is not installed, but part of the live system cannot be read";
    assert_eq!(by(&damaged, Channel::GuestAgent), unknown(reason));
    assert_eq!(check(&damaged, "boot").0, Outlook::Yes);
}

#[test]
fn what_cannot_be_looked_into_is_unknown() {
    let mut iso = good();
    iso.system = None;
    for name in ["boot", "network-manager", "wlan", "calamares"] {
        assert_eq!(check(&iso, name).0, Outlook::Unknown, "{name}");
    }
    let unknown = [Channel::Credentials, Channel::GuestAgent, Channel::SerialGetty, Channel::InitramfsHook];
    for channel in unknown {
        assert_eq!(by(&iso, channel).0, Outlook::Unknown, "{channel}");
    }
    assert_eq!((by(&iso, Channel::BootMenu).0, by(&iso, Channel::Console).0), (Outlook::Yes, Outlook::Yes));
}
