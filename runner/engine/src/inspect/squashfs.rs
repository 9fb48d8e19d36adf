//! squashfs 4.0, read only, a block at a time; see Linux's `Documentation/filesystems/squashfs.rst`.
//!
//! Our own, because the library backhand unpacks and keeps all inodes before it answers the first question: 75 MB and
//! half a second for 200,000 files, no bound for a hostile image, and no answer at all where one inode is damaged.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use isokiln_core::boot::iso::{Entry, Files, Kind, ListingBudget};

use super::compression::Compression;

/// Unpacked bytes of a block of metadata, at most.
const METADATA: usize = 8192;
/// Blocks of metadata kept: 2 MB.
const KEPT: usize = 256;
/// Bytes read of one folder: room for some 100,000 names.
const MAX_FOLDER: u32 = 4 << 20;
/// Bytes of a link's target.
const MAX_TARGET: u32 = 4096;
/// Marks a block of data that is stored as it is.
const STORED: u32 = 1 << 24;
/// Marks a file without a fragment.
const NO_FRAGMENT: u32 = u32::MAX;
/// Entries of the fragment table in one block, and bytes of each.
const FRAGMENTS: u64 = 512;

/// A squashfs file system.
#[derive(Debug)]
pub(super) struct Squashfs<R> {
    image: R,
    compression: Compression,
    block_size: u32,
    root: u64,
    inodes: u64,
    folders: u64,
    fragments: u64,
    fragment_count: u32,
    /// Bytes that the superblock promises and that there are.
    promised: u64,
    size: u64,
    /// Blocks of metadata by their place, with the place of the next.
    kept: HashMap<u64, (Arc<Vec<u8>>, u64)>,
    pub(super) budget: ListingBudget,
}

/// What an inode says.
#[derive(Debug)]
enum Inode {
    Folder { block: u64, offset: u16, size: u32 },
    File { start: u64, size: u64, fragment: u32, offset: u32, sizes: Cursor },
    Link { target: String },
    Other,
}

/// A place in a table of metadata.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    block: u64,
    offset: usize,
}

impl<R: Read + Seek> Squashfs<R> {
    pub(super) fn open(mut image: R) -> io::Result<Self> {
        let size = image.seek(SeekFrom::End(0))?;
        image.rewind()?;
        let mut head = [0; 96];
        image.read_exact(&mut head).map_err(|_| damaged("it is shorter than a superblock"))?;
        let block_size = u32_at(&head, 12);
        if !head.starts_with(b"hsqs") || u16_at(&head, 28) != 4 {
            return Err(damaged("it has no superblock of squashfs 4"));
        }
        if !block_size.is_power_of_two() || !(4096..=1 << 20).contains(&block_size) {
            return Err(damaged("its superblock is damaged"));
        }
        Ok(Self {
            image,
            compression: Compression::from_number(u16_at(&head, 20))?,
            block_size,
            root: u64_at(&head, 32),
            inodes: u64_at(&head, 64),
            folders: u64_at(&head, 72),
            fragments: u64_at(&head, 80),
            fragment_count: u32_at(&head, 16),
            promised: u64_at(&head, 40),
            size,
            kept: HashMap::new(),
            budget: ListingBudget::default(),
        })
    }

    /// What is wrong with the file as a whole, after its name.
    pub(super) fn complaint(&self) -> Option<String> {
        (self.promised > self.size).then(|| {
            format!("is cut off: its superblock promises {} bytes, there are {}", self.promised, self.size)
        })
    }

    /// The block of metadata at a place, and the place of the next.
    fn metadata(&mut self, place: u64) -> io::Result<(Arc<Vec<u8>>, u64)> {
        if let Some((block, next)) = self.kept.get(&place) {
            return Ok((block.clone(), *next));
        }
        let bytes = read_at(&mut self.image, place, METADATA + 2)?;
        let header =
            bytes.get(..2).map(|head| u16_at(head, 0)).ok_or_else(|| damaged("a table is cut off"))?;
        let packed = usize::from(header & 0x7fff);
        let body = bytes.get(2..2 + packed).filter(|body| !body.is_empty());
        let body = body.ok_or_else(|| damaged("a block of metadata is damaged"))?;
        let block =
            if header & 0x8000 == 0 { self.compression.unpack(body, METADATA)? } else { body.to_vec() };
        let found = (Arc::new(block), place + 2 + packed as u64);
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept.insert(place, found.clone());
        Ok(found)
    }

    /// Reads so many bytes of metadata from a place on, and moves it.
    fn take(&mut self, at: &mut Cursor, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (block, next) = self.metadata(at.block)?;
            let rest = block.get(at.offset..).unwrap_or_default();
            let part = &rest[..rest.len().min(count - bytes.len())];
            // An empty block would be read for ever.
            if part.is_empty() && block.len() < METADATA {
                return Err(damaged("a table is cut off"));
            }
            bytes.extend_from_slice(part);
            at.offset += part.len();
            if at.offset >= block.len() {
                *at = Cursor { block: next, offset: 0 };
            }
        }
        Ok(bytes)
    }

    /// Reads the inode with this reference: place of its block in the table, and offset there.
    fn inode(&mut self, reference: u64) -> io::Result<Inode> {
        let block =
            self.inodes.checked_add(reference >> 16).ok_or_else(|| damaged("an inode lies nowhere"))?;
        let mut at = Cursor { block, offset: usize::from(reference as u16) };
        let kind = u16_at(&self.take(&mut at, 16)?, 0);
        Ok(match kind {
            1 => {
                let body = self.take(&mut at, 16)?;
                let (block, size) = (u64::from(u32_at(&body, 0)), u32::from(u16_at(&body, 8)));
                Inode::Folder { block, offset: u16_at(&body, 10), size }
            }
            8 => {
                let body = self.take(&mut at, 24)?;
                let (block, size) = (u64::from(u32_at(&body, 8)), u32_at(&body, 4));
                Inode::Folder { block, offset: u16_at(&body, 18), size }
            }
            2 => {
                let body = self.take(&mut at, 16)?;
                let (start, size) = (u64::from(u32_at(&body, 0)), u64::from(u32_at(&body, 12)));
                Inode::File { start, size, fragment: u32_at(&body, 4), offset: u32_at(&body, 8), sizes: at }
            }
            9 => {
                let body = self.take(&mut at, 40)?;
                let (start, size) = (u64_at(&body, 0), u64_at(&body, 8));
                Inode::File { start, size, fragment: u32_at(&body, 28), offset: u32_at(&body, 32), sizes: at }
            }
            3 | 10 => {
                let size = u32_at(&self.take(&mut at, 8)?, 4);
                if size > MAX_TARGET {
                    return Err(damaged("a link is too long"));
                }
                let target = self.take(&mut at, size as usize)?;
                Inode::Link { target: String::from_utf8_lossy(&target).into_owned() }
            }
            4..=7 | 11..=14 => Inode::Other,
            _ => return Err(damaged("an inode is damaged")),
        })
    }

    /// A block of data as the image has it; a size of zero stands for a hole.
    fn data(&mut self, place: u64, size: u32, most: usize) -> io::Result<Vec<u8>> {
        let packed = (size & !STORED) as usize;
        if packed > self.block_size as usize {
            return Err(damaged("a block is too large"));
        }
        if packed == 0 {
            return Ok(vec![0; most]);
        }
        let bytes = read_at(&mut self.image, place, packed)?;
        if bytes.len() < packed {
            return Err(damaged("the file system is cut off"));
        }
        if size & STORED == 0 { self.compression.unpack(&bytes, self.block_size as usize) } else { Ok(bytes) }
    }

    /// The end of a file that shares a block with the ends of others.
    fn fragment(&mut self, number: u32, offset: u32, size: usize) -> io::Result<Vec<u8>> {
        if number >= self.fragment_count {
            return Err(damaged("a fragment is missing"));
        }
        let pointer = self.fragments.saturating_add(u64::from(number) / FRAGMENTS * 8);
        let pointer = read_at(&mut self.image, pointer, 8)?;
        if pointer.len() < 8 {
            return Err(damaged("the table of fragments is cut off"));
        }
        let mut at =
            Cursor { block: u64_at(&pointer, 0), offset: (u64::from(number) % FRAGMENTS) as usize * 16 };
        let entry = self.take(&mut at, 16)?;
        let block = self.data(u64_at(&entry, 0), u32_at(&entry, 8), self.block_size as usize)?;
        let start = offset as usize;
        let end =
            block.get(start..start.saturating_add(size)).ok_or_else(|| damaged("a fragment is damaged"))?;
        Ok(end.to_vec())
    }
}

impl<R: Read + Seek> Files for Squashfs<R> {
    /// Reference to an inode.
    type Node = u64;

    fn root(&mut self) -> io::Result<u64> {
        Ok(self.root)
    }

    fn list(&mut self, folder: &u64) -> io::Result<Vec<Entry<u64>>> {
        let Inode::Folder { block, offset, size } = self.inode(*folder)? else {
            return Err(damaged("a folder is damaged"));
        };
        let mut at = Cursor { block: self.folders.saturating_add(block), offset: usize::from(offset) };
        // The size counts three bytes for `.` and `..`, which are not stored.
        let mut left = size.saturating_sub(3).min(MAX_FOLDER) as usize;
        self.budget.spend(left)?;
        let mut entries = Vec::new();
        while left >= 12 {
            let header = self.take(&mut at, 12)?;
            left -= 12;
            let (count, block) = (u32_at(&header, 0), u64::from(u32_at(&header, 4)));
            for _ in 0..=count.min(255) {
                if left < 8 {
                    break;
                }
                let record = self.take(&mut at, 8)?;
                let length = usize::from(u16_at(&record, 6)) + 1;
                let name = self.take(&mut at, length)?;
                left = left.saturating_sub(8 + length);
                let kind = match u16_at(&record, 4) {
                    1 | 8 => Kind::Folder,
                    2 | 9 => Kind::File,
                    3 | 10 => Kind::Link,
                    _ => Kind::Other,
                };
                let name = String::from_utf8_lossy(&name).into_owned();
                entries.push(Entry { name, kind, node: block << 16 | u64::from(u16_at(&record, 0)) });
            }
        }
        Ok(entries)
    }

    fn target(&mut self, link: &u64) -> io::Result<String> {
        match self.inode(*link)? {
            Inode::Link { target } => Ok(target),
            _ => Err(damaged("a link is damaged")),
        }
    }

    fn size(&mut self, file: &u64) -> io::Result<u64> {
        match self.inode(*file)? {
            Inode::File { size, .. } => Ok(size),
            _ => Err(damaged("a file is damaged")),
        }
    }

    fn read(&mut self, file: &u64, most: usize) -> io::Result<Vec<u8>> {
        let Inode::File { start, size, fragment, offset, mut sizes } = self.inode(*file)? else {
            return Err(damaged("a file is damaged"));
        };
        let wanted = size.min(most as u64);
        let block_size = u64::from(self.block_size);
        // The last block is a fragment or not a whole one.
        let blocks = if fragment == NO_FRAGMENT { size.div_ceil(block_size) } else { size / block_size };
        let mut bytes = Vec::new();
        let mut place = start;
        for number in 0..blocks {
            if bytes.len() as u64 >= wanted {
                break;
            }
            let packed = u32_at(&self.take(&mut sizes, 4)?, 0);
            let room = (size - number * block_size).min(block_size) as usize;
            let block = self.data(place, packed, room)?;
            if block.len() != room {
                return Err(damaged("a block has the wrong size"));
            }
            place = place.saturating_add(u64::from(packed & !STORED));
            bytes.extend(block);
        }
        if (bytes.len() as u64) < wanted && fragment != NO_FRAGMENT {
            bytes.extend(self.fragment(fragment, offset, (size % block_size) as usize)?);
        }
        bytes.truncate(wanted as usize);
        Ok(bytes)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads at a place, at most so many bytes: fewer where the image ends before.
fn read_at(image: &mut (impl Read + Seek), place: u64, most: usize) -> io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(place))?;
    let mut bytes = Vec::with_capacity(most);
    image.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_le_bytes([bytes[place], bytes[place + 1]])
}

fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from(u16_at(bytes, place)) | u32::from(u16_at(bytes, place + 2)) << 16
}

fn u64_at(bytes: &[u8], place: usize) -> u64 {
    u64::from(u32_at(bytes, place)) | u64::from(u32_at(bytes, place + 4)) << 32
}
