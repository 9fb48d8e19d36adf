//! What an ISO promises before it is booted: its label and its boot records.
//!
//! ISO 9660 (ECMA-119) volume descriptors start at sector 16; El Torito 1.0 puts a boot record
//! descriptor among them, which points to the boot catalogue.

use std::io::{self, Read, Seek, SeekFrom};

const SECTOR: u64 = 2048;
/// Volume descriptors come in a row and end with a terminator; a real ISO has fewer than ten.
const MAX_DESCRIPTORS: u64 = 64;

/// What the boot records of an ISO say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoFacts {
    /// Volume label.
    pub label: String,
    /// Boot images in the catalogue, in order.
    pub boot_entries: Vec<BootEntry>,
    /// Whether sector 0 carries a boot record, as hybrid images for USB sticks do.
    pub has_mbr: bool,
}

/// One boot image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootEntry {
    /// Firmware that it is for.
    pub platform: Platform,
    /// Whether the catalogue marks it bootable.
    pub bootable: bool,
}

/// Firmware that a boot image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
                    let place = [sector[71], sector[72], sector[73], sector[74]];
                    catalogue = Some(u64::from(u32::from_le_bytes(place)));
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
        let has_mbr = read_sector(&mut iso, 0)?.is_some_and(|sector| sector[510..512] == [0x55, 0xaa]);
        Ok(Self { label, boot_entries, has_mbr })
    }

    /// Whether firmware of that platform is promised something to start.
    pub fn boots_on(&self, platform: Platform) -> bool {
        self.boot_entries.iter().any(|entry| entry.platform == platform && entry.bootable)
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
                entries.push(BootEntry { platform: current, bootable: indicator == 0x88 });
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
    fn other_files_are_not_isos() {
        for bytes in [vec![], vec![0; 100], vec![0; 100_000], b"#!/bin/sh\n".repeat(10_000)] {
            assert!(matches!(IsoFacts::read(Cursor::new(bytes)), Err(NotAnIso::NoVolume)));
        }
    }
}
