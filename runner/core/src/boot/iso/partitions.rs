//! Partition tables: what firmware goes by when the ISO's bytes lie on a USB stick. MBR as PCs have had it
//! since DOS 2; GPT as in the UEFI specification 2.10, chapter 5.

use std::io::{self, Read, Seek};

use serde::Serialize;

use super::extents::{Extent, read_at};

/// Partition tables count in these, whatever the medium.
const BLOCK: u64 = 512;
/// Entries read of a GPT: the least that the specification demands, and what every tool makes.
const MAX_ENTRIES: u32 = 128;
/// Type of an EFI system partition in a GPT, as it is stored.
const ESP_GUID: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Type of a partition with data in a GPT; `isohybrid-gpt-basdat` gives it to EFI system partitions.
const DATA_GUID: &str = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";

/// What the first sectors say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionTables {
    /// Sector 0 ends with the signature of a boot record.
    pub mbr: bool,
    /// Sector 0 holds a program for BIOS to start.
    pub boot_code: bool,
    /// Sector 1 begins a GPT.
    pub gpt: bool,
    /// Partitions of both tables, those of the MBR first.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Which table names it.
    pub table: Table,
    /// Its number there, from 1.
    pub number: u32,
    /// Its type as the table has it: `0xef`, or a GUID.
    pub kind: String,
    /// Where it lies, in bytes.
    pub place: Extent,
    /// UEFI looks for a boot loader here: an EFI system partition, or one with data that holds a FAT file system.
    pub esp: bool,
}

/// A kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// Four entries in sector 0.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl PartitionTables {
    /// Reads both tables; a file that is too short for them has none.
    pub fn read(image: &mut (impl Read + Seek)) -> io::Result<Self> {
        let mut tables = Self::default();
        let first = read_at(image, 0, BLOCK as usize)?;
        if first.len() < BLOCK as usize {
            return Ok(tables);
        }
        tables.mbr = first[510..512] == [0x55, 0xaa];
        if tables.mbr {
            tables.boot_code = first[..440].iter().any(|byte| *byte != 0);
            tables.partitions = mbr_partitions(&first);
        }
        let header = read_at(image, BLOCK, 92)?;
        if header.len() == 92 && header.starts_with(b"EFI PART") {
            tables.gpt = true;
            tables.partitions.extend(gpt_partitions(image, &header)?);
        }
        for partition in &mut tables.partitions {
            partition.esp = match partition.kind.as_str() {
                "0xef" | ESP_GUID => true,
                DATA_GUID => is_fat(&read_at(image, partition.place.start, BLOCK as usize)?),
                _ => false,
            };
        }
        Ok(tables)
    }

    /// The partition that UEFI boots from.
    pub fn esp(&self) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.esp)
    }
}

fn mbr_partitions(sector: &[u8]) -> Vec<Partition> {
    let entries = sector[446..510].chunks_exact(16).zip(1..);
    entries
        .filter(|(entry, _)| u32_at(entry, 12) != 0)
        .map(|(entry, number)| Partition {
            table: Table::Mbr,
            number,
            kind: format!("{:#04x}", entry[4]),
            place: Extent {
                start: u64::from(u32_at(entry, 8)) * BLOCK,
                size: u64::from(u32_at(entry, 12)) * BLOCK,
            },
            esp: false,
        })
        .collect()
}

fn gpt_partitions(image: &mut (impl Read + Seek), header: &[u8]) -> io::Result<Vec<Partition>> {
    let (table, count, width) = (u64_at(header, 72), u32_at(header, 80).min(MAX_ENTRIES), u32_at(header, 84));
    if !(128..=4096).contains(&width) {
        return Ok(Vec::new());
    }
    let bytes = read_at(image, table.saturating_mul(BLOCK), (count * width) as usize)?;
    let entries = bytes.chunks_exact(width as usize).zip(1..);
    Ok(entries
        .filter(|(entry, _)| entry[..16] != [0; 16])
        .map(|(entry, number)| {
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            let blocks = last.saturating_sub(first).saturating_add(1);
            let place = Extent { start: first.saturating_mul(BLOCK), size: blocks.saturating_mul(BLOCK) };
            Partition { table: Table::Gpt, number, kind: guid(entry), place, esp: false }
        })
        .collect())
}

/// A GUID as people write it: its first three numbers are stored with the lowest byte first.
fn guid(bytes: &[u8]) -> String {
    let hex =
        |order: &[usize]| order.iter().map(|place| format!("{:02x}", bytes[*place])).collect::<String>();
    [hex(&[3, 2, 1, 0]), hex(&[5, 4]), hex(&[7, 6]), hex(&[8, 9]), hex(&[10, 11, 12, 13, 14, 15])].join("-")
}

/// Whether a sector begins a FAT file system: a jump, a sector size, the signature at its end.
pub(super) fn is_fat(sector: &[u8]) -> bool {
    sector.len() >= 512
        && matches!(sector[0], 0xeb | 0xe9)
        && sector[510..512] == [0x55, 0xaa]
        && matches!(u16::from_le_bytes([sector[11], sector[12]]), 512 | 1024 | 2048 | 4096)
}

pub(super) fn u32_at(bytes: &[u8], place: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[place..place + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], place: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[place..place + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// An isohybrid of 64 sectors: boot code, an ISO partition and an ESP in the MBR.
    pub(crate) fn hybrid() -> Vec<u8> {
        let mut image = vec![0; 64 * 512];
        image[0] = 0xfa;
        image[446 + 4] = 0x17;
        image[446 + 12..][..4].copy_from_slice(&64_u32.to_le_bytes());
        image[462 + 4] = 0xef;
        image[462 + 8..][..4].copy_from_slice(&40_u32.to_le_bytes());
        image[462 + 12..][..4].copy_from_slice(&8_u32.to_le_bytes());
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image
    }

    fn read(image: Vec<u8>) -> PartitionTables {
        PartitionTables::read(&mut Cursor::new(image)).unwrap()
    }

    #[test]
    fn reads_an_mbr() {
        let tables = read(hybrid());
        assert!(tables.mbr && tables.boot_code && !tables.gpt);
        assert_eq!(tables.partitions.len(), 2);
        let esp = tables.esp().unwrap();
        assert_eq!((esp.number, esp.kind.as_str(), esp.place.start), (2, "0xef", 40 * 512));
    }

    #[test]
    fn reads_a_gpt_whose_esp_is_only_data_by_its_type() {
        let mut image = hybrid();
        image[462 + 12..][..4].fill(0);
        image[512..520].copy_from_slice(b"EFI PART");
        image[512 + 72] = 2;
        image[512 + 80] = 4;
        image[512 + 84] = 128;
        let entry = 1024 + 128;
        image[entry..entry + 16].copy_from_slice(&[
            0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7,
        ]);
        image[entry + 32] = 40;
        image[entry + 40] = 47;
        let tables = read(image.clone());
        assert!(tables.gpt && tables.esp().is_none());
        assert_eq!(tables.partitions[1].kind, DATA_GUID);
        image[40 * 512] = 0xeb;
        image[40 * 512 + 12] = 2;
        image[40 * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
        let esp = read(image).esp().cloned().unwrap();
        assert_eq!((esp.table, esp.number), (Table::Gpt, 2));
        assert_eq!(esp.place, Extent { start: 40 * 512, size: 8 * 512 });
    }

    #[test]
    fn hostile_tables_end() {
        assert_eq!(read(vec![0; 100]), PartitionTables::default());
        let mut image = vec![0xff; 4096];
        image[512..520].copy_from_slice(b"EFI PART");
        assert!(read(image.clone()).gpt);
        image[512 + 84..][..4].copy_from_slice(&128_u32.to_le_bytes());
        image[512 + 72..][..8].copy_from_slice(&2_u64.to_le_bytes());
        assert!(read(image).partitions.len() <= 128);
    }
}
