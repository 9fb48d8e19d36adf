//! An ISO that firmware starts and that does nothing.

const SECTOR: usize = 2048;

/// The smallest ISO with an El Torito boot record: its boot sector jumps to itself forever.
pub fn boot_sector_iso() -> Vec<u8> {
    // jmp to itself
    iso_of(&[0xeb, 0xfe])
}

/// The same, but before that its boot sector writes bytes to the first serial port and on the screen.
pub fn talking_iso(words: &[u8]) -> Vec<u8> {
    let code = [
        0xfc, // cld
        0xe8, 0x00, 0x00, // call the next instruction: its address is on the stack
        0x5e, // pop si
        0x83, 0xc6, 0x17, // add si, 23: the words
        0x2e, 0xac, // next: lodsb from the code segment
        0x84, 0xc0, // test al, al
        0x74, 0xfe, // jz to itself: the end
        0xba, 0xf8, 0x03, // mov dx, 0x3f8: the first serial port
        0xee, // out dx, al
        0xb4, 0x0e, // mov ah, 0x0e: write a character
        0xbb, 0x07, 0x00, // mov bx, 7
        0xcd, 0x10, // int 0x10: the BIOS's screen services
        0xeb, 0xed, // jmp next
    ];
    iso_of(&[&code, words, &[0]].concat())
}

/// An ISO with this boot sector.
fn iso_of(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 24 * SECTOR];
    for (sector, kind) in [(16, 1), (17, 0), (18, 255)] {
        let start = sector * SECTOR;
        image[start] = kind;
        image[start + 1..start + 6].copy_from_slice(b"CD001");
        image[start + 6] = 1;
    }
    image[16 * SECTOR + 40..][..32].copy_from_slice(format!("{:32}", "ENDLESS").as_bytes());
    image[17 * SECTOR + 7..][..23].copy_from_slice(b"EL TORITO SPECIFICATION");
    image[17 * SECTOR + 71] = 19;
    let catalogue = &mut image[19 * SECTOR..][..64];
    // The words of the validation entry add up to nothing.
    catalogue[0] = 1;
    catalogue[28..32].copy_from_slice(&[0xaa, 0x55, 0x55, 0xaa]);
    // The default entry: bootable, no emulation, one sector of 512 bytes, at sector 20.
    catalogue[32] = 0x88;
    catalogue[38] = 4;
    catalogue[40] = 20;
    assert!(code.len() <= 512, "one sector is loaded");
    image[20 * SECTOR..][..code.len()].copy_from_slice(code);
    image
}
