//! The files of an ISO: directory records of ISO 9660 (ECMA-119, chapter 9) with the names and links that
//! Rock Ridge (IEEE P1282, over SUSP 1.12) adds.
//!
//! Without Rock Ridge, names are shown in lower case and without their version number.

use std::io::{self, Read, Seek, SeekFrom};

use super::extents::{Extent, ExtentReader, read_at};
use super::facts::{NotAnIso, SECTOR};
use super::files::{Entry, Files, Kind, ListingBudget, push_within};
use super::partitions::u32_at;

/// Bytes read of one folder: room for some 30,000 names.
const MAX_FOLDER: usize = 4 << 20;
/// Continuation areas followed for one name, and bytes of all of a folder.
const MAX_CONTINUATIONS: usize = 32;
const MAX_CONTINUED: usize = 8 << 20;
/// Pieces of one file, 4 GiB each at most; every read counts them anew.
const MAX_EXTENTS: usize = 256;
/// Bytes of a name and of a link's target; Linux's own limits.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4096;
/// Where the root's directory record lies in the primary volume descriptor.
const ROOT_RECORD: usize = 156;

/// The tree of files of an ISO.
#[derive(Debug, Clone)]
pub struct IsoTree<R> {
    iso: R,
    root: IsoNode,
    /// Bytes that the primary volume descriptor promises.
    promised: u64,
    /// Bytes to skip in each system use area; `None` without Rock Ridge.
    skip: Option<usize>,
    budget: ListingBudget,
}

/// A file, folder or link of an ISO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IsoNode {
    /// Where its bytes lie.
    pub extents: Vec<Extent>,
    link: String,
}

impl<R: Read + Seek + Clone> IsoTree<R> {
    /// Finds the root folder.
    pub fn open(mut iso: R) -> Result<Self, NotAnIso> {
        let descriptor = read_at(&mut iso, 16 * SECTOR, SECTOR as usize)?;
        if descriptor.len() < SECTOR as usize || &descriptor[1..6] != b"CD001" {
            return Err(NotAnIso::NoVolume);
        }
        let root = IsoNode { extents: vec![extent(&descriptor[ROOT_RECORD..])], link: String::new() };
        // The root's own record, the first in it, says whether there is Rock Ridge.
        let first = read_at(&mut iso, root.extents[0].start, SECTOR as usize)?;
        let skip = Record::parse(&first).and_then(|record| {
            let area = record.system_use;
            let marked = area.len() >= 7 && area.starts_with(b"SP") && area[4..6] == [0xbe, 0xef];
            marked.then(|| usize::from(area[6]))
        });
        let promised = u64::from(u32_at(&descriptor, 80)) * SECTOR;
        Ok(Self { iso, root, promised, skip, budget: ListingBudget::default() })
    }

    /// What is wrong with the ISO as a whole.
    pub fn complaint(&mut self) -> io::Result<Option<String>> {
        let (promised, size) = (self.promised, self.iso.seek(SeekFrom::End(0))?);
        Ok((promised > size)
            .then(|| format!("the ISO is cut off: it promises {promised} bytes, there are {size}")))
    }

    /// Reads a file from its beginning to its end.
    pub fn reader(&self, file: &IsoNode) -> ExtentReader<R> {
        ExtentReader::new(self.iso.clone(), file.extents.clone())
    }

    /// Adds what the system use area says: the name, and where a link leads. `room` is what the continuation areas of the
    /// folder may still have, in bytes.
    fn rock_ridge(&mut self, area: &[u8], found: &mut RockRidge, room: &mut usize) -> io::Result<()> {
        let Some(skip) = self.skip else { return Ok(()) };
        let mut area = area.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..MAX_CONTINUATIONS {
            let Some((place, size)) = found.add(&area) else { return Ok(()) };
            let Some(left) = room.checked_sub(size) else { return Ok(()) };
            *room = left;
            self.budget.spend(size)?;
            area = read_at(&mut self.iso, place, size)?;
        }
        Ok(())
    }
}

impl<R: Read + Seek + Clone> Files for IsoTree<R> {
    type Node = IsoNode;

    fn root(&mut self) -> io::Result<IsoNode> {
        Ok(self.root.clone())
    }

    fn list(&mut self, folder: &IsoNode) -> io::Result<Vec<Entry<IsoNode>>> {
        let mut bytes = Vec::new();
        self.reader(folder).take(MAX_FOLDER as u64).read_to_end(&mut bytes)?;
        self.budget.spend(bytes.len())?;
        let mut entries: Vec<Entry<IsoNode>> = Vec::new();
        let (mut unfinished, mut room) = (false, MAX_CONTINUED);
        for sector in bytes.chunks(SECTOR as usize) {
            let mut rest = sector;
            // Records do not cross sectors; a zero ends a sector's.
            while let Some(record) = Record::parse(rest) {
                rest = &rest[record.length..];
                if matches!(record.name, [0] | [1]) {
                    continue;
                }
                if unfinished && let Some(last) = entries.last_mut() {
                    if last.node.extents.len() < MAX_EXTENTS {
                        last.node.extents.push(record.extent);
                    }
                } else {
                    let mut found = RockRidge::default();
                    self.rock_ridge(record.system_use, &mut found, &mut room)?;
                    let kind = match (record.folder, &found.link) {
                        (true, _) => Kind::Folder,
                        (false, Some(_)) => Kind::Link,
                        (false, None) => Kind::File,
                    };
                    let name = found.name.unwrap_or_else(|| plain_name(record.name));
                    let link = found.link.unwrap_or_default();
                    entries.push(Entry { name, kind, node: IsoNode { extents: vec![record.extent], link } });
                }
                unfinished = record.unfinished;
            }
        }
        Ok(entries)
    }

    fn target(&mut self, link: &IsoNode) -> io::Result<String> {
        Ok(link.link.clone())
    }

    fn size(&mut self, file: &IsoNode) -> io::Result<u64> {
        Ok(self.reader(file).size())
    }

    fn read(&mut self, file: &IsoNode, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader(file).take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn same(&self, a: &str, b: &str) -> bool {
        if self.skip.is_some() { a == b } else { a.eq_ignore_ascii_case(b) }
    }
}

/// One directory record.
struct Record<'b> {
    length: usize,
    extent: Extent,
    folder: bool,
    /// The next record continues the same file.
    unfinished: bool,
    name: &'b [u8],
    system_use: &'b [u8],
}

impl<'b> Record<'b> {
    fn parse(bytes: &'b [u8]) -> Option<Self> {
        let length = usize::from(*bytes.first()?);
        let bytes = bytes.get(..length).filter(|bytes| bytes.len() > 33)?;
        let name = bytes.get(33..33 + usize::from(bytes[32]))?;
        // A name of even length is followed by a byte of padding.
        let system_use = bytes.get(33 + name.len() + (name.len() + 1) % 2..).unwrap_or_default();
        let (folder, unfinished) = (bytes[25] & 0x02 != 0, bytes[25] & 0x80 != 0);
        Some(Self { length, extent: extent(bytes), folder, unfinished, name, system_use })
    }
}

/// Where a directory record, at least 14 bytes of it, says that its file lies.
fn extent(record: &[u8]) -> Extent {
    Extent { start: u64::from(u32_at(record, 2)) * SECTOR, size: u64::from(u32_at(record, 10)) }
}

fn plain_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).to_lowercase();
    name.split(';').next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// What Rock Ridge says of one file.
#[derive(Debug, Default)]
struct RockRidge {
    name: Option<String>,
    link: Option<String>,
    /// The link's last part is not whole yet.
    continued: bool,
}

impl RockRidge {
    /// Reads a system use area; gives place and size of the next, if one continues it.
    fn add(&mut self, mut area: &[u8]) -> Option<(u64, usize)> {
        let mut next = None;
        while let [a, b, length, _, ..] = *area {
            let Some(body) = area.get(4..usize::from(length)) else { break };
            match (&[a, b], body) {
                (b"NM", [flags, name @ ..]) if flags & 0x06 == 0 => {
                    push_within(self.name.get_or_insert_default(), &String::from_utf8_lossy(name), MAX_NAME);
                }
                (b"SL", [_, components @ ..]) => self.add_link(components),
                (b"CE", body) if body.len() >= 24 => {
                    let place = u64::from(u32_at(body, 0)) * SECTOR + u64::from(u32_at(body, 8));
                    next = Some((place, (u32_at(body, 16) as usize).min(SECTOR as usize)));
                }
                (b"ST", _) => break,
                _ => {}
            }
            area = &area[usize::from(length)..];
        }
        next
    }

    fn add_link(&mut self, mut components: &[u8]) {
        let link = self.link.get_or_insert_default();
        while let [flags, length, rest @ ..] = components {
            let Some(text) = rest.get(..usize::from(*length)) else { return };
            if !self.continued && !link.is_empty() && !link.ends_with('/') {
                push_within(link, "/", MAX_TARGET);
            }
            let text = String::from_utf8_lossy(text);
            let part = match flags & 0x0e {
                0x02 => ".",
                0x04 => "..",
                0x08 => "/",
                _ => &text,
            };
            push_within(link, part, MAX_TARGET);
            self.continued = flags & 0x01 != 0;
            components = &rest[usize::from(*length)..];
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
