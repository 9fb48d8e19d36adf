//! QEMU's command line, as a function of the machine.

use std::fmt;

use super::probe::{PROBE_PORT, probe_credentials};
use super::profile::{Firmware, MachineProfile, Medium};

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// A profile with everything decided.
#[derive(Debug, Clone)]
pub struct Machine<'m> {
    /// The profile.
    pub profile: &'m MachineProfile,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
}

/// Where QEMU, in its container, finds and leaves its files.
#[derive(Debug, Clone)]
pub struct GuestFiles {
    /// The ISO under test, opened read-only.
    pub iso: String,
    /// Folder of QEMU's own for sockets, logs and screenshots.
    pub folder: String,
}

impl GuestFiles {
    /// A file in the folder.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

/// QEMU's arguments. The guest is created stopped (`-S`), so that everything can be connected before its
/// first instruction, and stays when it powers off, so that its last words can be read.
pub fn qemu_args(machine: &Machine<'_>, files: &GuestFiles) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    add("-name", "isokiln");
    add("-machine", "q35");
    match machine.accelerator {
        Accelerator::Kvm => {
            add("-accel", "kvm");
            add("-cpu", "host");
        }
        Accelerator::Tcg => {
            add("-accel", "tcg,thread=multi,tb-size=512");
            add("-cpu", "max");
        }
    }
    add("-smp", &machine.cpus.to_string());
    add("-m", &format!("{}M", machine.memory >> 20));
    add("-rtc", "base=utc");
    add("-display", "none");
    add("-device", "VGA");
    add("-device", "virtio-rng-pci");

    if machine.profile.firmware == Firmware::Uefi {
        add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd");
        add("-drive", &format!("if=pflash,unit=1,format=raw,file={}", files.path("vars.fd")));
    }
    match machine.profile.medium {
        Medium::Cd => {
            add(
                "-drive",
                &format!(
                    "if=none,id=medium,media=cdrom,format=raw,readonly=on,file.locking=off,file={}",
                    files.iso
                ),
            );
            add("-device", "ide-cd,drive=medium,bootindex=0");
        }
    }
    // No boot index and no option ROM: firmware must not spend minutes on network boots.
    add("-netdev", "user,id=net0");
    add("-device", &format!("{},netdev=net0,romfile=", machine.profile.network));

    add("-chardev", &format!("socket,id=qmp,path={},server=on,wait=off", files.path("qmp.sock")));
    add("-mon", "chardev=qmp,mode=control");
    add("-chardev", &format!("file,id=serial,path={},append=on", files.path("serial.log")));
    add("-serial", "chardev:serial");
    add("-chardev", &format!("file,id=firmware,path={},append=on", files.path("firmware.log")));
    add("-device", "isa-debugcon,iobase=0x402,chardev=firmware");
    add("-device", "virtio-serial-pci");
    add("-chardev", &format!("socket,id=probe,path={},server=on,wait=off", files.path("probe.sock")));
    add("-device", &format!("virtserialport,chardev=probe,name={PROBE_PORT}"));
    for credential in probe_credentials() {
        // A comma ends a value in QEMU's option syntax unless doubled.
        add("-smbios", &format!("type=11,value={}", credential.replace(',', ",,")));
    }
    let flags = ["-nodefaults", "-no-user-config", "-no-shutdown", "-S"];
    flags.iter().map(|flag| (*flag).to_owned()).chain(args).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(firmware: Firmware, accelerator: Accelerator) -> String {
        let profile = MachineProfile {
            name: "demo".parse().unwrap(),
            summary: String::new(),
            firmware,
            medium: Medium::Cd,
            memory: 2 << 30,
            cpus: 2,
            network: "e1000e".into(),
        };
        let machine = Machine { profile: &profile, accelerator, memory: 1 << 30, cpus: 4 };
        qemu_args(&machine, &GuestFiles { iso: "/iso/x.iso".into(), folder: "/run/boot".into() }).join(" ")
    }

    #[test]
    fn tcg_gets_what_it_needs() {
        let line = args(Firmware::Bios, Accelerator::Tcg);
        assert!(line.contains("-accel tcg,thread=multi,tb-size=512 -cpu max -smp 4 -m 1024M"), "{line}");
        assert!(!line.contains("pflash"), "{line}");
        assert!(!line.contains("kvm"), "{line}");
    }

    #[test]
    fn uefi_gets_fresh_variables_and_only_the_disc_can_boot() {
        let line = args(Firmware::Uefi, Accelerator::Kvm);
        assert!(line.contains("unit=1,format=raw,file=/run/boot/vars.fd"), "{line}");
        assert_eq!(line.matches("bootindex").count(), 1, "{line}");
        assert!(line.contains("-accel kvm -cpu host"), "{line}");
    }

    #[test]
    fn the_iso_is_opened_read_only_and_logs_are_appended() {
        let line = args(Firmware::Bios, Accelerator::Tcg);
        assert!(line.contains("readonly=on,file.locking=off,file=/iso/x.iso"), "{line}");
        assert!(line.contains("path=/run/boot/serial.log,append=on"), "{line}");
    }
}
