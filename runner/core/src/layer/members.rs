//! Reading and writing a tar archive member by member, with every extension kept.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::pax::Records;
use super::rewrite::LayerError;

const BLOCK: usize = 512;
/// Extended headers hold names and attributes; the kernel limits one attribute to 64 KiB.
const MAX_EXTENSION: u64 = 16 << 20;
/// Size of the buffer that file contents pass through, in bytes.
const COPY_BUFFER: usize = 256 << 10;

/// One file of an archive, without its contents.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) header: Header,
    pub(super) pax: Records,
    /// Bytes of contents that follow in the archive.
    pub(super) size: u64,
}

impl Member {
    /// An empty regular file, owned by root, without permissions and from 1970.
    pub(super) fn empty_file(path: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let mut member = Self { header, pax: Records::default(), size: 0 };
        member.set_path(path);
        member
    }

    /// The full path as stored, for example `./usr/bin/`.
    pub(super) fn path(&self) -> Vec<u8> {
        match self.pax.get("GNU.sparse.name").or_else(|| self.pax.get("path")) {
            Some(path) => path.to_vec(),
            None => self.header.path_bytes().into_owned(),
        }
    }

    pub(super) fn set_path(&mut self, path: &[u8]) {
        let fits = path.len() <= 100 && path.iter().all(|b| b.is_ascii() && *b != 0);
        if let Some(ustar) = self.header.as_ustar_mut() {
            ustar.prefix = [0; 155];
        }
        let name = &mut self.header.as_old_mut().name;
        name.fill(0);
        let kept = path.len().min(name.len());
        name[..kept].copy_from_slice(&path[..kept]);
        self.pax.retain(|key| key != b"path");
        if !fits {
            self.pax.set("path", path);
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.header.entry_type().is_dir()
    }

    /// Character device 0:0, overlay's sign for "deleted".
    pub(super) fn is_overlay_whiteout(&self) -> bool {
        self.header.entry_type().is_character_special()
            && matches!(self.header.device_major(), Ok(Some(0)))
            && matches!(self.header.device_minor(), Ok(Some(0)))
    }
}

pub(super) struct MemberReader<R> {
    inner: R,
    buffer: Vec<u8>,
}

impl<R: Read> MemberReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, buffer: vec![0; COPY_BUFFER] }
    }

    /// The next file, or `None` at the end-of-archive marker. Its contents must be read before the next call.
    pub(super) fn next(&mut self) -> Result<Option<Member>, LayerError> {
        let mut pax = Records::default();
        loop {
            let mut block = [0; BLOCK];
            self.inner.read_exact(&mut block).map_err(cut_short)?;
            if block == [0; BLOCK] {
                self.drain()?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block).clone();
            check_sum(&header)?;
            let size = header.entry_size().map_err(|_| LayerError::BadHeader("size"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    pax = Records::parse(&self.extension(size)?).map_err(|_| LayerError::BadHeader("pax"))?;
                }
                EntryType::GNULongName => pax.set("path", until_zero(self.extension(size)?)),
                EntryType::GNULongLink => pax.set("linkpath", until_zero(self.extension(size)?)),
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                EntryType::GNUSparse => return Err(LayerError::OldSparse),
                _ => {
                    let size = match pax.get("size") {
                        Some(text) => std::str::from_utf8(text)
                            .ok()
                            .and_then(|text| text.parse().ok())
                            .ok_or(LayerError::BadHeader("size"))?,
                        None => size,
                    };
                    return Ok(Some(Member { header, pax, size }));
                }
            }
        }
    }

    /// Copies a member's contents to `sink`, without the padding.
    pub(super) fn copy_contents(&mut self, size: u64, sink: &mut impl Write) -> Result<(), LayerError> {
        let mut left = size;
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(COPY_BUFFER).min(COPY_BUFFER);
            self.inner.read_exact(&mut self.buffer[..chunk]).map_err(cut_short)?;
            sink.write_all(&self.buffer[..chunk]).map_err(LayerError::Write)?;
            left -= chunk as u64;
        }
        self.inner.read_exact(&mut [0; BLOCK][..padding(size)]).map_err(cut_short)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_EXTENSION {
            return Err(LayerError::BadHeader("length of an extended header"));
        }
        let mut payload = Vec::new();
        self.copy_contents(size, &mut payload)?;
        Ok(payload)
    }

    /// Reads to the end, so that whoever writes the archive into a pipe is never cut off.
    fn drain(&mut self) -> Result<(), LayerError> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop).map_err(LayerError::Read)
    }
}

pub(super) struct MemberWriter<W> {
    pub(super) inner: W,
}

impl<W: Write> MemberWriter<W> {
    /// Writes a member's headers; `member.size` bytes of contents must follow through `inner`, then
    /// [`MemberWriter::pad`].
    pub(super) fn put(&mut self, mut member: Member) -> Result<(), LayerError> {
        member.pax.sort_attributes();
        if !member.pax.is_empty() {
            let payload = member.pax.encode();
            let mut header = Member::empty_file(b"././@PaxHeader").header;
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(payload.len() as u64);
            header.set_cksum();
            self.write(header.as_bytes())?;
            self.write(&payload)?;
            self.pad(payload.len() as u64)?;
        }
        member.header.set_cksum();
        self.write(member.header.as_bytes())
    }

    /// Fills the last block after `size` bytes of contents.
    pub(super) fn pad(&mut self, size: u64) -> Result<(), LayerError> {
        self.write(&[0; BLOCK][..padding(size)])
    }

    /// Writes the end-of-archive marker.
    pub(super) fn finish(mut self) -> Result<(), LayerError> {
        self.write(&[0; 2 * BLOCK])?;
        self.inner.flush().map_err(LayerError::Write)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.inner.write_all(bytes).map_err(LayerError::Write)
    }
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    bytes
}

fn cut_short(error: io::Error) -> LayerError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LayerError::CutShort,
        _ => LayerError::Read(error),
    }
}

fn check_sum(header: &Header) -> Result<(), LayerError> {
    let stated = header.cksum().map_err(|_| LayerError::BadHeader("checksum"))?;
    let mut expected = header.clone();
    expected.set_cksum();
    match expected.cksum() {
        Ok(sum) if sum == stated => Ok(()),
        _ => Err(LayerError::BadHeader("checksum")),
    }
}
