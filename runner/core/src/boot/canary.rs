//! A guest so small that its only use is to show whether guests run at all.
//!
//! `/dev/kvm` may open and even report KVM as present while no guest ever executes an instruction
//! (nested virtualisation). The canary is a disk whose boot sector counts down and then writes 0x2a to
//! QEMU's `isa-debug-exit` port, which ends QEMU with status `(0x2a << 1) | 1`.

use super::qemu::Accelerator;

/// QEMU's exit status when the canary's guest ran.
pub const CANARY_EXIT_STATUS: i64 = 85;

/// Loop rounds that the canary counts, which takes long enough to tell a slow machine from a fast one.
const ROUNDS: u32 = 200_000_000;

/// The canary's disk: a boot sector and nothing else, 2 MiB.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 2 << 20];
    let rounds = ROUNDS.to_le_bytes();
    let code = [
        0x66, 0xb9, rounds[0], rounds[1], rounds[2], rounds[3], // mov ecx, ROUNDS
        0x66, 0x49, // again: dec ecx
        0x75, 0xfc, // jnz again
        0xb0, 0x2a, // mov al, 0x2a
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // halt: hlt
        0xeb, 0xfd, // jmp halt
    ];
    disk[..code.len()].copy_from_slice(&code);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Where the canary's files lie in QEMU's container.
const DISK: &str = "/isokiln/canary/disk.img";
const EFI_PROGRAM: &str = "/isokiln/canary/efi/EFI/BOOT/BOOTX64.EFI";
const EFI_FOLDER: &str = "/isokiln/canary/efi";

/// The canary as a program for UEFI: a PE32+ image ("PE Format" in the Windows documentation, sections "Optional
/// Header" and "Section Table") with one section that counts and then writes to the port.
fn efi_program() -> Vec<u8> {
    /// Bytes of the headers and of the section in the file.
    const BLOCK: usize = 0x200;
    /// Address of the section, relative to the image.
    const TEXT: u32 = 0x1000;
    let mut image = vec![0; 2 * BLOCK];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    // File header: x86-64, one section, 240 bytes of optional header, executable.
    put(0x44, &0x8664_u16.to_le_bytes());
    put(0x46, &1_u16.to_le_bytes());
    put(0x54, &240_u16.to_le_bytes());
    put(0x56, &0x0202_u16.to_le_bytes());
    let optional = 0x58;
    put(optional, &0x020b_u16.to_le_bytes());
    for (at, value) in [
        (4, BLOCK as u32),  // size of code
        (16, TEXT),         // entry point
        (20, TEXT),         // base of code
        (32, 0x1000),       // alignment of sections in memory
        (36, BLOCK as u32), // and in the file
        (56, 2 * TEXT),     // size of the image
        (60, BLOCK as u32), // size of the headers
        (108, 16),          // data directories, all of them empty
    ] {
        put(optional + at, &value.to_le_bytes());
    }
    // Subsystem: EFI application.
    put(optional + 68, &10_u16.to_le_bytes());
    let section = optional + 240;
    put(section, b".text");
    for (at, value) in [
        (8, BLOCK as u32),
        (12, TEXT),
        (16, BLOCK as u32),
        (20, BLOCK as u32),
        (36, 0x6000_0020), // code that may be executed and read
    ] {
        put(section + at, &value.to_le_bytes());
    }
    let rounds = ROUNDS.to_le_bytes();
    put(
        BLOCK,
        &[
            0xb9, rounds[0], rounds[1], rounds[2], rounds[3], // mov ecx, ROUNDS
            0xff, 0xc9, // again: dec ecx
            0x75, 0xfc, // jnz again
            0xb0, 0x2a, // mov al, 0x2a
            0xe6, 0xf4, // out 0xf4, al
            0xf4, // halt: hlt
            0xeb, 0xfd, // jmp halt
        ],
    );
    image
}

/// The canary's files: path in QEMU's container, and contents.
pub fn canary_files(uefi: bool) -> Vec<(String, Vec<u8>)> {
    if uefi { vec![(EFI_PROGRAM.to_owned(), efi_program())] } else { vec![(DISK.to_owned(), disk())] }
}

/// Shell script that gets ready what the canary needs in `folder`.
pub fn canary_prepare(uefi: bool, folder: &str) -> String {
    if uefi { format!("cp /usr/share/OVMF/OVMF_VARS_4M.fd {folder}/vars.fd\n") } else { String::new() }
}

/// Arguments for QEMU to run the canary; `folder` is what [`canary_prepare`] was given.
pub fn canary_args(uefi: bool, folder: &str, accelerator: Accelerator) -> Vec<String> {
    let mut args = ["-nodefaults", "-no-user-config", "-machine", "q35"].map(str::to_owned).to_vec();
    args.extend(accelerator.args().map(str::to_owned));
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    add("-m", if uefi { "256" } else { "64" });
    add("-display", "none");
    add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
    if uefi {
        add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd");
        add("-drive", &format!("if=pflash,unit=1,format=raw,file={folder}/vars.fd"));
        // QEMU shows a folder as a FAT disk.
        add("-drive", &format!("if=none,id=disk,format=raw,readonly=on,file=fat:{EFI_FOLDER}"));
    } else {
        add("-drive", &format!("if=none,id=disk,format=raw,readonly=on,file={DISK}"));
    }
    add("-device", "virtio-blk-pci,drive=disk,bootindex=0");
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_bootable_and_leaves_by_the_debug_port() {
        let disk = disk();
        assert_eq!(disk.len(), 2 << 20);
        assert_eq!(disk[510..512], [0x55, 0xaa]);
        assert!(efi_program().windows(4).any(|code| code == [0xb0, 0x2a, 0xe6, 0xf4]));
        assert!(disk.windows(4).any(|code| code == [0xb0, 0x2a, 0xe6, 0xf4]));
        assert_eq!(CANARY_EXIT_STATUS, (0x2a << 1) | 1);
    }
}
