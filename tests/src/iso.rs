//! An ISO that firmware starts and that does nothing.

const SECTOR: usize = 2048;

/// The smallest ISO with an El Torito boot record: its boot sector jumps to itself forever.
pub fn boot_sector_iso() -> Vec<u8> {
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
    image[20 * SECTOR..][..2].copy_from_slice(&[0xeb, 0xfe]);
    image
}
