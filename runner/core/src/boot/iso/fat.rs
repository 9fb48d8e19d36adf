//! FAT12, FAT16 and FAT32, read only, for EFI system partitions; as in Microsoft's "FAT32 File System
//! Specification" 1.03.
//!
//! Our own and small, because libraries want to write, keep no bound on chains of clusters that lead in
//! circles, and trust the sizes that the boot sector claims.

use std::io::{self, Read, Seek};

use super::extents::read_at;
use super::files::{Entry, Files, Kind, ListingBudget};
use super::partitions::{is_fat, u32_at};

/// Bytes read of one folder: the most that the specification allows.
const MAX_FOLDER: usize = 65_536 * 32;
/// Records of a long name: room for the 255 characters that one may have.
const MAX_LONG: u8 = 20;
/// Marks the record that a long name begins with: the one of its end.
const BEGINS: u8 = 0x40;
/// Attributes of a directory entry.
const VOLUME: u8 = 0x08;
const FOLDER: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// A FAT file system in an image.
#[derive(Debug, Clone)]
pub(super) struct Fat<R> {
    image: R,
    width: Width,
    /// Bytes of a cluster.
    cluster: u64,
    /// Where the first allocation table begins, in bytes.
    table: u64,
    /// Where cluster 2 begins.
    data: u64,
    /// Clusters that there are; a chain cannot be longer.
    clusters: u64,
    root: FatNode,
    budget: ListingBudget,
}

/// Bits of an entry of the allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// A file or folder of a FAT file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FatNode {
    place: Place,
    size: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The root folder of FAT12 and FAT16, at a place of its own.
    Fixed(u64),
    /// First cluster of a chain.
    Chain(u32),
}

impl<R: Read + Seek> Fat<R> {
    /// Reads the boot sector; `None` where the image does not begin with one that makes sense.
    pub(super) fn open(mut image: R) -> io::Result<Option<Self>> {
        let sector = read_at(&mut image, 0, 512)?;
        if !is_fat(&sector) {
            return Ok(None);
        }
        let word = |place: usize| u64::from(u16::from_le_bytes([sector[place], sector[place + 1]]));
        let (bytes, per_cluster, reserved, tables) = (word(11), u64::from(sector[13]), word(14), sector[16]);
        let root_size = word(17) * 32;
        let total = if word(19) == 0 { u64::from(u32_at(&sector, 32)) } else { word(19) };
        let table_sectors = if word(22) == 0 { u64::from(u32_at(&sector, 36)) } else { word(22) };
        let root = (reserved + u64::from(tables) * table_sectors) * bytes;
        let data = root + root_size.div_ceil(bytes) * bytes;
        let Some(room) = (total * bytes).checked_sub(data) else { return Ok(None) };
        if per_cluster == 0 {
            return Ok(None);
        }
        let cluster = per_cluster * bytes;
        let clusters = room / cluster;
        let (width, root) = match clusters {
            _ if word(22) == 0 => (Width::ThirtyTwo, Place::Chain(u32_at(&sector, 44))),
            0..4085 => (Width::Twelve, Place::Fixed(root)),
            _ => (Width::Sixteen, Place::Fixed(root)),
        };
        let root = FatNode { place: root, size: root_size as u32 };
        let (table, budget) = (reserved * bytes, ListingBudget::default());
        Ok(Some(Self { image, width, cluster, table, data, clusters, root, budget }))
    }

    /// The cluster after this one; `None` at the end of a chain.
    fn next(&mut self, cluster: u32) -> io::Result<Option<u32>> {
        let number = u64::from(cluster);
        let (offset, bytes) = match self.width {
            Width::Twelve => (number + number / 2, 2),
            Width::Sixteen => (number * 2, 2),
            Width::ThirtyTwo => (number * 4, 4),
        };
        let mut entry = read_at(&mut self.image, self.table + offset, bytes)?;
        if entry.len() < bytes {
            return Ok(None);
        }
        entry.resize(4, 0);
        let entry = u32_at(&entry, 0);
        let next = match self.width {
            Width::Twelve if number % 2 == 1 => entry >> 4,
            Width::Twelve => entry & 0xfff,
            Width::Sixteen => entry,
            Width::ThirtyTwo => entry & 0x0fff_ffff,
        };
        Ok(self.is_data(next).then_some(next))
    }

    /// Whether a number is that of a cluster and not a mark.
    fn is_data(&self, cluster: u32) -> bool {
        cluster >= 2 && u64::from(cluster) < self.clusters + 2
    }

    fn bytes(&mut self, node: FatNode, most: usize) -> io::Result<Vec<u8>> {
        let mut at = match node.place {
            Place::Fixed(place) => return read_at(&mut self.image, place, most.min(node.size as usize)),
            Place::Chain(first) => Some(first).filter(|first| self.is_data(*first)),
        };
        let mut bytes = Vec::new();
        // A chain that leads in a circle ends here at the latest.
        for _ in 0..self.clusters {
            let (Some(cluster), true) = (at, bytes.len() < most) else { break };
            let place = self.data + u64::from(cluster - 2) * self.cluster;
            let part = read_at(&mut self.image, place, (self.cluster as usize).min(most - bytes.len()))?;
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
            at = self.next(cluster)?;
        }
        Ok(bytes)
    }
}

impl<R: Read + Seek> Files for Fat<R> {
    type Node = FatNode;

    fn root(&mut self) -> io::Result<FatNode> {
        Ok(self.root)
    }

    fn list(&mut self, folder: &FatNode) -> io::Result<Vec<Entry<FatNode>>> {
        let bytes = self.bytes(*folder, MAX_FOLDER)?;
        self.budget.spend(bytes.len())?;
        let mut entries = Vec::new();
        let mut long = LongName::default();
        for record in bytes.chunks_exact(32) {
            match (record[0], record[11]) {
                (0, _) => break,
                (0xe5, _) => long = LongName::default(),
                (_, LONG_NAME) => long.add(record),
                (b'.', _) => long = LongName::default(),
                (_, attributes) if attributes & VOLUME != 0 => long = LongName::default(),
                (_, attributes) => {
                    let name = long.take().unwrap_or_else(|| short_name(record));
                    let high = if self.width == Width::ThirtyTwo { [record[20], record[21]] } else { [0, 0] };
                    let first = u32::from_le_bytes([record[26], record[27], high[0], high[1]]);
                    let node = FatNode { place: Place::Chain(first), size: u32_at(record, 28) };
                    let kind = if attributes & FOLDER == 0 { Kind::File } else { Kind::Folder };
                    entries.push(Entry { name, kind, node });
                }
            }
        }
        Ok(entries)
    }

    fn target(&mut self, _: &FatNode) -> io::Result<String> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn size(&mut self, file: &FatNode) -> io::Result<u64> {
        Ok(u64::from(file.size))
    }

    fn read(&mut self, file: &FatNode, most: usize) -> io::Result<Vec<u8>> {
        self.bytes(*file, most.min(file.size as usize))
    }

    fn same(&self, a: &str, b: &str) -> bool {
        a.eq_ignore_ascii_case(b)
    }
}

/// A long name as far as its records have come.
#[derive(Debug, Default)]
struct LongName {
    units: Vec<u16>,
    /// Number of the record that must come next: they count down, after the first the name is whole.
    next: u8,
}

impl LongName {
    /// Takes the next record. What is out of turn is no name.
    fn add(&mut self, record: &[u8]) {
        let number = record[0] & !BEGINS;
        if record[0] & BEGINS != 0 {
            *self = Self { units: Vec::new(), next: number };
        }
        if number != self.next || !(1..=MAX_LONG).contains(&number) {
            *self = Self::default();
            return;
        }
        let units = [&record[1..11], &record[14..26], &record[28..32]].concat();
        let units = units.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        self.units.splice(0..0, units.take_while(|unit| *unit != 0));
        self.next = number - 1;
    }

    /// The name, if all of it has come.
    fn take(&mut self) -> Option<String> {
        let Self { units, next } = std::mem::take(self);
        (next == 0 && !units.is_empty()).then(|| String::from_utf16_lossy(&units))
    }
}

fn short_name(record: &[u8]) -> String {
    // Windows and mtools mark a name, or its extension, that is in lower case only.
    let text = |bytes: &[u8], lower: u8| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if record[12] & lower == 0 { text } else { text.to_lowercase() }
    };
    let (name, extension) = (text(&record[..8], 0x08), text(&record[8..11], 0x10));
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn short(name: &[u8; 11], attributes: u8, cluster: u16, size: u32) -> [u8; 32] {
        let mut record = [0; 32];
        record[..11].copy_from_slice(name);
        record[11] = attributes;
        record[26..28].copy_from_slice(&cluster.to_le_bytes());
        record[28..32].copy_from_slice(&size.to_le_bytes());
        record
    }

    /// A FAT12 of 60 sectors: `EFI/` in cluster 2, in it `grub.config` of two clusters, 3 and 5.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 60 * 512];
        image[0] = 0xeb;
        image[12] = 2; // 512 bytes a sector
        image[13] = 1; // one sector a cluster
        image[14] = 1;
        image[16] = 2;
        image[17] = 16; // the root folder: one sector
        image[19] = 60;
        image[22] = 1;
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        // Clusters 2: end; 3: 5; 4: free; 5: end.
        image[512..521].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0x5f, 0x00, 0x00, 0xf0, 0xff]);
        image[3 * 512..][..32].copy_from_slice(&short(b"ISOKILN    ", VOLUME, 0, 0));
        image[3 * 512 + 32..][..32].copy_from_slice(&short(b"EFI        ", FOLDER, 2, 0));
        let mut long = [0xff; 32];
        long[0] = 0x41;
        long[11] = LONG_NAME;
        let units: Vec<u8> = "grub.config\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        long[1..11].copy_from_slice(&units[..10]);
        long[14..26].copy_from_slice(&units[10..22]);
        long[28..30].copy_from_slice(&units[22..24]);
        image[4 * 512..][..32].copy_from_slice(&short(b".          ", FOLDER, 2, 0));
        image[4 * 512 + 32..][..32].copy_from_slice(&long);
        image[4 * 512 + 64..][..32].copy_from_slice(&short(b"GRUB~1  CON", 0x20, 3, 600));
        image[5 * 512..][..512].fill(b'a');
        image[7 * 512..][..512].fill(b'b');
        image
    }

    #[test]
    fn reads_long_names_and_files_in_pieces() {
        let mut fat = Fat::open(Cursor::new(image())).unwrap().unwrap();
        let names: Vec<_> = fat.list_at("efi").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["grub.config"]);
        let text = fat.read_at("/EFI/GRUB.CONFIG", 9999).unwrap().unwrap();
        assert_eq!((text.len(), text[511], text[512]), (600, b'a', b'b'));
        assert_eq!(fat.read_at("/EFI/none", 9).unwrap(), None);
        let mut lower = short(b"GRUB    CFG", 0x20, 3, 600);
        assert_eq!(short_name(&lower), "GRUB.CFG");
        lower[12] = 0x18;
        assert_eq!(short_name(&lower), "grub.cfg");
    }

    #[test]
    fn a_long_name_is_whole_or_none() {
        let record = |number: u8, unit: u8| {
            let mut record = [0; 32];
            (record[0], record[11]) = (number, LONG_NAME);
            for place in [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30] {
                record[place] = unit;
            }
            record
        };
        let name = |records: &[[u8; 32]]| {
            let mut name = LongName::default();
            records.iter().for_each(|record| name.add(record));
            assert!(name.units.len() <= 20 * 13, "{}", name.units.len());
            name.take()
        };
        let whole = format!("{}{}", "a".repeat(13), "b".repeat(13));
        assert_eq!(name(&[record(0x42, b'b'), record(1, b'a')]), Some(whole.clone()));
        assert_eq!(name(&[record(0x43, b'x'), record(0x42, b'b'), record(1, b'a')]), Some(whole));
        assert_eq!(name(&[record(0x43, b'c'), record(1, b'a')]), None, "one is missing");
        assert_eq!(name(&[record(0x42, b'b')]), None, "it is cut off");
        assert_eq!(name(&[record(0x55, b'x')]), None, "it is too long");
        assert_eq!(name(&[record(1, b'x'); 1000]), None, "it has no beginning");
    }

    #[test]
    fn circles_and_lies_end() {
        let mut circle = image();
        // Cluster 3 leads to itself, and its file claims 4 GB.
        circle[516] = 0x3f;
        circle[4 * 512 + 64 + 28..][..4].fill(0xff);
        let mut fat = Fat::open(Cursor::new(circle)).unwrap().unwrap();
        assert!(fat.read_at("efi/grub.config", usize::MAX).unwrap().unwrap().len() <= 60 * 512);
        fat.budget = ListingBudget(10_000);
        assert!((0..20).any(|_| fat.list_at("/").is_err()), "folders are read for ever");
        assert!(Fat::open(Cursor::new(vec![0; 4096])).unwrap().is_none());
        let mut lies = image();
        lies[13] = 0;
        assert!(Fat::open(Cursor::new(lies.clone())).unwrap().is_none());
        lies[13] = 128;
        lies[16] = 255;
        lies[22..24].fill(0xff);
        assert!(Fat::open(Cursor::new(lies)).unwrap().is_none());
    }

    #[test]
    fn any_boot_sector_and_folder_are_read_without_harm() {
        use proptest::prelude::*;
        proptest!(ProptestConfig::with_cases(300), |(head: [u8; 32], more: [u8; 32], name: [u8; 32])| {
            let mut image = image();
            image[11..43].copy_from_slice(&head);
            image[12] = 2;
            image[11] = 0;
            image[512..544].copy_from_slice(&more);
            image[3 * 512 + 64..][..32].copy_from_slice(&name);
            if let Some(mut fat) = Fat::open(Cursor::new(image)).unwrap() {
                for entry in fat.list_at("/").unwrap() {
                    prop_assert!(fat.read(&entry.node, 1 << 20).is_ok());
                }
            }
        });
    }
}
