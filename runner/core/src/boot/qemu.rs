//! QEMU's command line and what is got ready for it, as functions of the machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::iso::IsoFacts;
use super::probe::{AGENT_PORT, Credentials, PROBE_PORT};
use super::profile::{Firmware, MachineProfile, Medium};

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

impl FromStr for Accelerator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err("valid: auto, kvm, tcg".to_owned()),
        }
    }
}

impl Accelerator {
    /// QEMU's arguments for it.
    pub(super) fn args(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // qemu64 lacks what newer EFI loaders use.
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        }
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
    /// What it starts from.
    pub start: Start,
    /// Whether the firmware is not to see that the medium has an El Torito record ([`hides_record`]).
    pub hides_record: bool,
}

/// What a machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Its firmware, which looks for the medium, as for a person.
    Medium {
        /// System credentials that the machine carries for systemd.
        credentials: Credentials,
    },
    /// A kernel of the ISO, put into memory by QEMU, with a hook appended to its initrd.
    Kernel(DirectKernel),
}

/// A kernel of the ISO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectKernel {
    /// Path in the ISO, from its root.
    pub kernel: String,
    /// Paths in the ISO, from its root.
    pub initrds: Vec<String>,
    /// The ISO's own arguments.
    pub arguments: String,
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

/// Folder in QEMU's container that holds the tree of the hook for the initrd.
pub const HOOK_FOLDER: &str = "/isokiln/hook";

/// UEFI's code and its variables as they are in a new PC.
fn ovmf(secure_boot: bool) -> (&'static str, &'static str) {
    if secure_boot {
        ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
    } else {
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
    }
}

/// Shell script (`sh`) that gets ready what the machine needs, in QEMU's folder.
pub fn prepare_script(machine: &Machine<'_>, files: &GuestFiles) -> String {
    let iso = quote(&files.iso);
    let mut lines = vec!["set -e".to_owned(), format!("cd {}", quote(&files.folder))];
    if let Firmware::Uefi { secure_boot } = machine.profile.firmware {
        // Fresh for every boot.
        lines.push(format!("cp {} vars.fd", ovmf(secure_boot).1));
    }
    if machine.profile.medium == Medium::Usb {
        // A stick can be written to; what is written goes into the overlay.
        lines.push(format!("qemu-img create -q -f qcow2 -F raw -b {iso} medium.qcow2"));
        if machine.hides_record {
            lines.push(format!("qemu-io -f qcow2 -c '{}' medium.qcow2", write_record(true)));
        }
    }
    if let Start::Kernel(direct) = &machine.start {
        let mut extract = format!("xorriso -report_about WARNING -osirrox on -indev {iso}");
        extract.push_str(&format!(" -extract {} kernel", quote(&direct.kernel)));
        for (index, initrd) in direct.initrds.iter().enumerate() {
            extract.push_str(&format!(" -extract {} initrd.{index}", quote(initrd)));
        }
        lines.push(extract);
        lines.push("chmod -R u+rw kernel initrd.*".to_owned());
        lines.push(format!("(cd {HOOK_FOLDER} && find . | cpio --quiet -o -H newc -R 0:0) > hook.cpio"));
        lines.push(": > initrd".to_owned());
        for name in
            (0..direct.initrds.len()).map(|index| format!("initrd.{index}")).chain(["hook.cpio".to_owned()])
        {
            // The kernel looks for the next archive at a multiple of four.
            lines.push(format!("cat {name} >> initrd && truncate -s %4 initrd && rm {name}"));
        }
    }
    lines.join("\n") + "\n"
}

/// A byte of the signature of an El Torito record: where it lies, and what it is.
const RECORD: (u64, u8) = (34823, b'E');

/// Whether the record must be hidden from the firmware, if the ISO has one: UEFI takes any disk with it for a CD. BIOS
/// does not look.
pub fn hides_record(profile: &MachineProfile, start: &Start, facts: &IsoFacts) -> bool {
    profile.medium == Medium::Usb
        && profile.firmware != Firmware::Bios
        && matches!(start, Start::Medium { .. })
        && !facts.boot_entries.is_empty()
}

/// The line for QEMU's monitor that hides the record from the firmware, or shows it to systems that check their
/// medium. Answered by nothing if all is well.
pub fn record_order(hide: bool) -> String {
    format!("qemu-io medium \"{}\"", write_record(hide))
}

/// The command of qemu-io(1) for it.
fn write_record(hide: bool) -> String {
    let (place, byte) = RECORD;
    format!("write -q -P {} {place} 1", if hide { 0 } else { byte })
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// QEMU's arguments. The guest is created stopped (`-S`), so that everything can be connected before its
/// first instruction, and stays when it powers off, so that its last words can be read.
pub fn qemu_args(machine: &Machine<'_>, files: &GuestFiles) -> Vec<String> {
    let mut args = vec!["-no-shutdown".to_owned(), "-S".to_owned()];
    args.extend(hardware(machine, files));
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    add("-display", "none");
    add("-chardev", &format!("socket,id=qmp,path={},server=on,wait=off", files.path("qmp.sock")));
    add("-mon", "chardev=qmp,mode=control");
    for (id, name) in [("serial", "serial.log"), ("firmware", "firmware.log")] {
        add("-chardev", &format!("file,id={id},path={},append=on", files.path(name)));
    }
    for (id, name) in [("shell", "shell.sock"), ("probe", "probe.sock"), ("agent", "agent.sock")] {
        add("-chardev", &format!("socket,id={id},path={},server=on,wait=off", files.path(name)));
    }
    // The first serial port is the console; on the second a shell may be offered.
    add("-serial", "chardev:serial");
    add("-serial", "chardev:shell");
    add("-device", "isa-debugcon,iobase=0x402,chardev=firmware");
    add("-device", "virtio-serial-pci");
    add("-device", &format!("virtserialport,chardev=probe,name={PROBE_PORT}"));
    add("-device", &format!("virtserialport,chardev=agent,name={AGENT_PORT}"));
    args
}

/// QEMU's arguments for a person who starts the same machine by hand, with its screen on `display` and its
/// first serial port on the terminal.
pub fn qemu_args_by_hand(machine: &Machine<'_>, files: &GuestFiles, display: &str) -> Vec<String> {
    let mut args = hardware(machine, files);
    args.extend(["-display", display, "-serial", "mon:stdio"].map(str::to_owned));
    args
}

/// What the machine is made of.
fn hardware(machine: &Machine<'_>, files: &GuestFiles) -> Vec<String> {
    let profile = machine.profile;
    let mut args = vec!["-nodefaults".to_owned(), "-no-user-config".to_owned()];
    args.extend(machine.accelerator.args().map(str::to_owned));
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    add("-name", "isokiln");
    add("-smp", &machine.cpus.to_string());
    add("-m", &format!("{}M", machine.memory >> 20));
    add("-rtc", "base=utc");
    add("-device", &profile.display);
    add("-device", "virtio-rng-pci");
    match profile.firmware {
        Firmware::Bios => add("-machine", "q35"),
        Firmware::Uefi { secure_boot } => {
            if secure_boot {
                // Only code in system management mode may write to the variables.
                add("-machine", "q35,smm=on");
                add("-global", "driver=cfi.pflash01,property=secure,value=on");
            } else {
                add("-machine", "q35");
            }
            add("-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={}", ovmf(secure_boot).0));
            add("-drive", &format!("if=pflash,unit=1,format=raw,file={}", files.path("vars.fd")));
        }
    }
    // QEMU starts the kernel itself only if nothing else has a boot index.
    let index = if matches!(machine.start, Start::Medium { .. }) { ",bootindex=0" } else { "" };
    match profile.medium {
        Medium::Cd => {
            let iso = files.iso.replace(',', ",,");
            add(
                "-drive",
                &format!("if=none,id=medium,media=cdrom,format=raw,readonly=on,file.locking=off,file={iso}"),
            );
            add("-device", &format!("ide-cd,drive=medium{index}"));
        }
        Medium::Usb => {
            add("-drive", &format!("if=none,id=medium,format=qcow2,file={}", files.path("medium.qcow2")));
            add("-device", "qemu-xhci");
            add("-device", &format!("usb-storage,drive=medium,removable=on{index}"));
        }
    }
    if let Some(sound) = &profile.sound {
        add("-audiodev", "none,id=sound");
        add("-device", sound);
        // Codecs hang on the controllers that speak HD Audio; other cards are one device.
        if sound.ends_with("hda") {
            add("-device", "hda-duplex,audiodev=sound");
        }
    }
    // No boot index and no option ROM: firmware must not spend minutes on network boots.
    add("-netdev", "user,id=net0");
    add("-device", &format!("{},netdev=net0,romfile=", profile.network));
    match &machine.start {
        Start::Medium { credentials } => {
            for string in credentials.strings() {
                // A comma ends a value in QEMU's option syntax unless doubled.
                add("-smbios", &format!("type=11,value={}", string.replace(',', ",,")));
            }
        }
        Start::Kernel(direct) => {
            add("-kernel", &files.path("kernel"));
            add("-initrd", &files.path("initrd"));
            add("-append", &direct.arguments);
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIOS: Firmware = Firmware::Bios;
    const UEFI: Firmware = Firmware::Uefi { secure_boot: false };

    fn profile(firmware: Firmware, medium: Medium) -> MachineProfile {
        MachineProfile {
            name: "demo".parse().unwrap(),
            summary: String::new(),
            firmware,
            medium,
            memory: 2 << 30,
            cpus: 2,
            network: "e1000e".into(),
            display: "VGA".into(),
            sound: Some("intel-hda".into()),
        }
    }

    fn both(firmware: Firmware, medium: Medium, accelerator: Accelerator, start: Start) -> (String, String) {
        let profile = profile(firmware, medium);
        let hides_record = medium == Medium::Usb && matches!(start, Start::Medium { .. });
        let machine =
            Machine { profile: &profile, accelerator, memory: 1 << 30, cpus: 4, start, hides_record };
        let files = GuestFiles { iso: "/iso/x.iso".into(), folder: "/run/boot".into() };
        (prepare_script(&machine, &files), qemu_args(&machine, &files).join(" "))
    }

    fn args(firmware: Firmware, accelerator: Accelerator) -> String {
        both(firmware, Medium::Cd, accelerator, Start::Medium { credentials: Credentials::ExtraUnit }).1
    }

    #[test]
    fn tcg_gets_what_it_needs() {
        let line = args(BIOS, Accelerator::Tcg);
        assert!(line.contains("-accel tcg,thread=multi,tb-size=512 -cpu max"), "{line}");
        assert!(line.contains("-smp 4 -m 1024M"), "{line}");
        assert!(!line.contains("pflash") && !line.contains("kvm"), "{line}");
    }

    #[test]
    fn uefi_gets_fresh_variables_and_only_the_disc_can_boot() {
        let line = args(UEFI, Accelerator::Kvm);
        assert!(line.contains("unit=1,format=raw,file=/run/boot/vars.fd"), "{line}");
        assert_eq!(line.matches("bootindex").count(), 1, "{line}");
        assert!(line.contains("-accel kvm -cpu host") && !line.contains("smm"), "{line}");
    }

    #[test]
    fn secure_boot_protects_its_variables() {
        let firmware = Firmware::Uefi { secure_boot: true };
        let (prepare, line) =
            both(firmware, Medium::Cd, Accelerator::Tcg, Start::Medium { credentials: Credentials::None });
        assert!(line.contains("-machine q35,smm=on") && line.contains("property=secure,value=on"), "{line}");
        assert!(prepare.contains("OVMF_VARS_4M.ms.fd vars.fd"), "{prepare}");
        assert!(!line.contains("smbios"), "{line}");
    }

    #[test]
    fn a_stick_is_an_overlay_that_is_no_cd() {
        let (prepare, line) =
            both(UEFI, Medium::Usb, Accelerator::Tcg, Start::Medium { credentials: Credentials::ExtraUnit });
        assert!(prepare.contains("-b '/iso/x.iso' medium.qcow2"), "{prepare}");
        assert!(prepare.contains("34823 1"), "{prepare}");
        let kernel =
            DirectKernel { kernel: "/k".into(), initrds: vec!["/i".into()], arguments: String::new() };
        let (prepare, _) = both(UEFI, Medium::Usb, Accelerator::Tcg, Start::Kernel(kernel));
        assert!(!prepare.contains("34823"), "no firmware looks at it: {prepare}");
        assert!(line.contains("usb-storage,drive=medium,removable=on,bootindex=0"), "{line}");
        assert!(!line.contains("cdrom"), "{line}");
    }

    #[test]
    fn a_kernel_is_started_with_its_own_arguments_and_the_hook() {
        let direct = DirectKernel {
            kernel: "/live/vmlinuz".into(),
            initrds: vec!["/live/it's".into()],
            arguments: "boot=live quiet".into(),
        };
        let (prepare, line) = both(BIOS, Medium::Cd, Accelerator::Tcg, Start::Kernel(direct));
        assert!(prepare.contains(r"-extract '/live/it'\''s' initrd.0"), "{prepare}");
        assert!(prepare.contains("cat hook.cpio >> initrd"), "{prepare}");
        assert!(line.contains("-append boot=live quiet") && !line.contains("bootindex"), "{line}");
    }

    #[test]
    fn the_iso_is_opened_read_only_and_logs_are_appended() {
        let line = args(BIOS, Accelerator::Tcg);
        assert!(line.contains("readonly=on,file.locking=off,file=/iso/x.iso"), "{line}");
        assert!(line.contains("path=/run/boot/serial.log,append=on"), "{line}");
        assert!(line.contains("-device intel-hda -device hda-duplex,audiodev=sound"), "{line}");
    }
}
