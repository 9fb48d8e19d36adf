//! What the boot records of an ISO promise: its label, its boot catalogue, its partition tables.
//!
//! ISO 9660 (ECMA-119) volume descriptors start at sector 16; El Torito 1.0 puts a boot record
//! descriptor among them, which points to the boot catalogue.

use std::io::{self, Read, Seek, SeekFrom};

use serde::Serialize;

use super::partitions::{PartitionTables, u32_at};
use crate::boot::profile::{Firmware, Medium};

/// Bytes of a sector of an ISO.
pub(super) const SECTOR: u64 = 2048;
/// Volume descriptors come in a row and end with a terminator; a real ISO has fewer than ten.
const MAX_DESCRIPTORS: u64 = 64;

/// What the boot records of an ISO say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IsoFacts {
    /// Volume label.
    pub label: String,
    /// Boot images in the catalogue, in order.
    pub boot_entries: Vec<BootEntry>,
    /// Whether sector 0 carries a boot record, as hybrid images for USB sticks do.
    pub has_mbr: bool,
    /// What firmware goes by on a USB stick.
    pub tables: PartitionTables,
}

/// One boot image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    /// Firmware that it is for.
    pub platform: Platform,
    /// Whether the catalogue marks it bootable.
    pub bootable: bool,
    /// Where its image begins, in bytes of the ISO.
    pub image: u64,
}

/// Firmware that a boot image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Efi,
    /// PowerPC, Mac or an unknown number.
    Other(u8),
}

/// Why a file is not an ISO.
#[derive(Debug, thiserror::Error)]
pub enum NotAnIso {
    /// The file could not be read.
    #[error("cannot read it")]
    Read(#[from] io::Error),
    /// Too short, or without a primary volume descriptor.
    #[error("it is not an ISO 9660 image: no volume descriptor at byte 32768")]
    NoVolume,
}

impl IsoFacts {
    /// Reads the descriptors and the boot catalogue.
    pub fn read(mut iso: impl Read + Seek) -> Result<Self, NotAnIso> {
        let mut label = None;
        let mut catalogue = None;
        for index in 16..16 + MAX_DESCRIPTORS {
            let Some(sector) = read_sector(&mut iso, index)? else { break };
            if &sector[1..6] != b"CD001" {
                break;
            }
            match sector[0] {
                0 if sector[7..39].starts_with(b"EL TORITO SPECIFICATION") => {
                    catalogue = Some(u64::from(u32_at(&sector, 71)));
                }
                1 => {
                    label.get_or_insert_with(|| {
                        String::from_utf8_lossy(&sector[40..72]).trim_end().to_owned()
                    });
                }
                255 => break,
                _ => {}
            }
        }
        let label = label.ok_or(NotAnIso::NoVolume)?;
        let boot_entries = match catalogue {
            Some(place) => read_sector(&mut iso, place)?.map_or_else(Vec::new, |sector| entries(&sector)),
            None => Vec::new(),
        };
        let tables = PartitionTables::read(&mut iso)?;
        Ok(Self { label, boot_entries, has_mbr: tables.mbr, tables })
    }

    /// Whether firmware of that platform is promised something to start.
    pub fn boots_on(&self, platform: Platform) -> bool {
        self.boot_entry(platform).is_some()
    }

    /// The boot image that firmware of that platform starts from a CD.
    pub fn boot_entry(&self, platform: Platform) -> Option<&BootEntry> {
        self.boot_entries.iter().find(|entry| entry.platform == platform && entry.bootable)
    }

    /// Whether firmware is promised something to start when the ISO comes on that medium; else what is
    /// missing, for people.
    pub fn promises(&self, firmware: Firmware, medium: Medium) -> Result<(), String> {
        let (platform, name) = match firmware {
            Firmware::Bios => (Platform::Bios, "BIOS"),
            Firmware::Uefi { .. } => (Platform::Efi, "UEFI"),
        };
        match medium {
            Medium::Cd if self.boots_on(platform) => Ok(()),
            Medium::Cd if self.boot_entries.is_empty() => {
                Err("the ISO has no boot record (El Torito): no firmware can start it from a CD".to_owned())
            }
            Medium::Cd => Err(format!("the ISO has no boot record (El Torito) for {name}")),
            Medium::Usb if platform == Platform::Bios => match (self.tables.mbr, self.tables.boot_code) {
                (true, true) => Ok(()),
                (true, false) => {
                    Err("the ISO's sector 0 holds no boot code: BIOS cannot start it from a USB stick"
                        .to_owned())
                }
                (false, _) => {
                    Err("the ISO has no MBR (is not hybrid): BIOS cannot start it from a USB stick"
                        .to_owned())
                }
            },
            Medium::Usb if self.tables.esp().is_some() => Ok(()),
            Medium::Usb if self.tables.partitions.is_empty() => {
                Err("the ISO has no partition table (is not hybrid): UEFI cannot start it from a USB stick"
                    .to_owned())
            }
            Medium::Usb => {
                Err("the ISO's partition table names no EFI system partition: UEFI cannot start it \
                                from a USB stick"
                    .to_owned())
            }
        }
    }
}

fn read_sector(iso: &mut (impl Read + Seek), index: u64) -> io::Result<Option<[u8; SECTOR as usize]>> {
    let mut sector = [0; SECTOR as usize];
    iso.seek(SeekFrom::Start(index * SECTOR))?;
    match iso.read_exact(&mut sector) {
        Ok(()) => Ok(Some(sector)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The entries of a boot catalogue: a validation entry, the default entry, then sections.
fn entries(sector: &[u8; SECTOR as usize]) -> Vec<BootEntry> {
    let platform = |byte| match byte {
        0 => Platform::Bios,
        0xef => Platform::Efi,
        other => Platform::Other(other),
    };
    let mut records = sector.chunks_exact(32);
    let Some(validation) = records.next().filter(|record| record[0] == 1 && record[30..32] == [0x55, 0xaa])
    else {
        return Vec::new();
    };
    let mut entries = Vec::new();
    let mut current = platform(validation[1]);
    let mut left = 1;
    for record in records {
        match (left, record[0]) {
            (0, 0x90 | 0x91) => {
                current = platform(record[1]);
                left = u16::from_le_bytes([record[2], record[3]]);
            }
            (0, _) => break,
            // An extension record continues the entry before it.
            (_, 0x44) => {}
            (_, indicator) => {
                let image = u64::from(u32_at(record, 8)) * SECTOR;
                entries.push(BootEntry { platform: current, bootable: indicator == 0x88, image });
                left -= 1;
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// An image of 20 sectors with the given catalogue records.
    fn image(catalogue: Option<&[[u8; 4]]>) -> Vec<u8> {
        let mut image = vec![0; 20 * 2048];
        let mut descriptor = |index: usize, kind: u8| {
            image[index * 2048] = kind;
            image[index * 2048 + 1..index * 2048 + 6].copy_from_slice(b"CD001");
        };
        descriptor(16, 1);
        descriptor(17, if catalogue.is_some() { 0 } else { 255 });
        descriptor(18, 255);
        image[16 * 2048 + 40..16 * 2048 + 72].copy_from_slice(format!("{:32}", "DEMO").as_bytes());
        if let Some(records) = catalogue {
            let record = 17 * 2048 + 7;
            image[record..record + 23].copy_from_slice(b"EL TORITO SPECIFICATION");
            image[17 * 2048 + 71] = 19;
            for (index, bytes) in records.iter().enumerate() {
                image[19 * 2048 + index * 32..][..4].copy_from_slice(bytes);
            }
            image[19 * 2048 + 30..][..2].copy_from_slice(&[0x55, 0xaa]);
        }
        image
    }

    #[test]
    fn reads_bios_and_efi_entries() {
        let records = [[1, 0, 0, 0], [0x88, 0, 0, 0], [0x91, 0xef, 1, 0], [0x88, 0, 0, 0]];
        let facts = IsoFacts::read(Cursor::new(image(Some(&records)))).unwrap();
        assert_eq!(facts.label, "DEMO");
        assert!(facts.boots_on(Platform::Bios) && facts.boots_on(Platform::Efi));
        assert_eq!(facts.boot_entries.len(), 2);
        assert!(!facts.has_mbr);
    }

    #[test]
    fn an_entry_not_marked_bootable_does_not_boot() {
        let facts = IsoFacts::read(Cursor::new(image(Some(&[[1, 0, 0, 0], [0, 0, 0, 0]])))).unwrap();
        assert!(!facts.boots_on(Platform::Bios));
    }

    #[test]
    fn an_iso_without_boot_record_is_still_an_iso() {
        let facts = IsoFacts::read(Cursor::new(image(None))).unwrap();
        assert_eq!(facts.boot_entries, []);
    }

    #[test]
    fn each_firmware_and_medium_has_its_own_promise() {
        let records = [[1, 0, 0, 0], [0x88, 0, 0, 0], [0x91, 0xef, 1, 0], [0x88, 0, 0, 0]];
        let uefi = Firmware::Uefi { secure_boot: false };
        let promises = |image: Vec<u8>| {
            let facts = IsoFacts::read(Cursor::new(image)).unwrap();
            [
                facts.promises(Firmware::Bios, Medium::Cd),
                facts.promises(uefi, Medium::Cd),
                facts.promises(Firmware::Bios, Medium::Usb),
                facts.promises(uefi, Medium::Usb),
            ]
        };
        let mut both = image(Some(&records));
        let found = promises(both.clone());
        assert!(found[0].is_ok() && found[1].is_ok());
        assert!(found[2].as_ref().unwrap_err().contains("no MBR"), "{found:?}");
        assert!(found[3].as_ref().unwrap_err().contains("no partition table"), "{found:?}");
        both[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(promises(both.clone())[2].as_ref().unwrap_err().contains("no boot code"));
        // Boot code, and a partition with the ISO.
        both[0] = 0xfa;
        both[446 + 4] = 0x17;
        both[446 + 12] = 1;
        let found = promises(both.clone());
        assert!(found[2].is_ok());
        assert!(found[3].as_ref().unwrap_err().contains("names no EFI system partition"), "{found:?}");
        both[446 + 4] = 0xef;
        assert!(promises(both)[3].is_ok());
        let found = promises(image(None));
        assert!(
            found[1].as_ref().unwrap_err().contains("no boot record (El Torito): no firmware"),
            "{found:?}"
        );
        let bios = promises(image(Some(&records[..2])));
        assert_eq!(bios[1].as_ref().unwrap_err(), "the ISO has no boot record (El Torito) for UEFI");
    }

    #[test]
    fn a_catalogue_beyond_the_end_or_cut_off_promises_nothing() {
        let mut far = image(Some(&[[1, 0, 0, 0], [0x88, 0, 0, 0]]));
        far[17 * 2048 + 71..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(IsoFacts::read(Cursor::new(far)).unwrap().boot_entries, []);
        // A section that claims more entries than the sector has room for.
        let endless = [[1, 0, 0, 0], [0x88, 0, 0, 0], [0x91, 0xef, 0xff, 0xff]];
        let facts = IsoFacts::read(Cursor::new(image(Some(&endless)))).unwrap();
        assert!(facts.boot_entries.len() <= 64 && !facts.boots_on(Platform::Efi));
    }

    #[test]
    fn other_files_are_not_isos() {
        for bytes in [vec![], vec![0; 100], vec![0; 100_000], b"#!/bin/sh\n".repeat(10_000)] {
            assert!(matches!(IsoFacts::read(Cursor::new(bytes)), Err(NotAnIso::NoVolume)));
        }
    }
}
