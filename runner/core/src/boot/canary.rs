//! A guest so small that its only use is to show whether guests run at all.
//!
//! `/dev/kvm` may open and even report KVM as present while no guest ever executes an instruction
//! (nested virtualisation). The canary is a disk whose boot sector counts down and then writes 0x2a to
//! QEMU's `isa-debug-exit` port, which ends QEMU with status `(0x2a << 1) | 1`.

/// QEMU's exit status when the canary's guest ran.
pub const CANARY_EXIT_STATUS: i64 = 85;

/// Loop rounds that the canary counts, which takes long enough to tell a slow machine from a fast one.
const ROUNDS: u32 = 200_000_000;

/// The canary's disk: a boot sector and nothing else, 2 MiB.
pub fn canary_disk() -> Vec<u8> {
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

/// Arguments for QEMU to run the canary from `disk` with `accelerator` (`kvm` or `tcg`).
pub fn canary_args(disk: &str, accelerator: &str) -> Vec<String> {
    let drive = format!("if=none,id=disk,format=raw,readonly=on,file={disk}");
    [
        "-nodefaults",
        "-no-user-config",
        "-machine",
        "q35",
        "-accel",
        accelerator,
        "-cpu",
        "max",
        "-m",
        "64",
        "-display",
        "none",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=0x04",
        "-drive",
        &drive,
        "-device",
        "virtio-blk-pci,drive=disk,bootindex=0",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_bootable_and_leaves_by_the_debug_port() {
        let disk = canary_disk();
        assert_eq!(disk.len(), 2 << 20);
        assert_eq!(disk[510..512], [0x55, 0xaa]);
        assert!(disk.windows(4).any(|code| code == [0xb0, 0x2a, 0xe6, 0xf4]));
        assert_eq!(CANARY_EXIT_STATUS, (0x2a << 1) | 1);
    }
}
