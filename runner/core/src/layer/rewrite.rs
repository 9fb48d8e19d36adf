//! The two rewritings.

use std::io::{self, Read, Write};

use tar::EntryType;

use super::members::{Member, MemberReader, MemberWriter};

/// What a rewriting cannot carry on from.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The source failed.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The sink failed, for example because its disk is full.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// The archive ends in the middle of a member or without its end marker.
    #[error("the layer is cut short")]
    CutShort,
    /// A header field that cannot be right.
    #[error("not a tar archive, or a damaged one: bad {0}")]
    BadHeader(&'static str),
    /// Old GNU sparse members keep their map in the header; isokiln writes the pax form.
    #[error("the layer holds a sparse file in the old GNU format; re-create it with tar --format=posix")]
    OldSparse,
    /// A real file whose name OCI layers reserve.
    #[error("{0} cannot be kept in an OCI layer: names that begin with .wh. mark deleted files")]
    ReservedName(String),
    /// A path that no file system call takes, so that the layer could not be unpacked.
    #[error("a path of {0} bytes cannot be kept in a layer: the limit is {MAX_PATH}; it begins with {1}")]
    LongPath(usize, String),
    /// `.wh..wh..opq` somewhere else than right after its directory.
    #[error("{0} does not follow its directory, which this reader needs")]
    StrayOpaque(String),
}

impl LayerError {
    /// Whether the files themselves are at fault: no layer can hold them.
    pub fn is_about_contents(&self) -> bool {
        matches!(self, Self::ReservedName(_) | Self::LongPath(..))
    }
}

/// What a layer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Files, directories and so on, without whiteouts.
    pub members: u64,
    /// Names deleted by the layer.
    pub deleted: u64,
    /// Directories whose earlier contents the layer hides.
    pub replaced: u64,
}

/// Longest path that Linux takes in one call, in bytes (PATH_MAX without its final zero).
const MAX_PATH: usize = 4095;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OVERLAY_ATTRIBUTES: &[u8] = b"SCHILY.xattr.trusted.overlay.";
const OVERLAY_OPAQUE: &str = "SCHILY.xattr.trusted.overlay.opaque";

/// Rewrites the tar of an overlay upper directory into an OCI layer.
///
/// Overlay's own bookkeeping attributes (`origin`, `impure`, `uuid` …) are dropped: they differ from
/// one machine to the next and mean nothing elsewhere.
pub fn overlay_to_oci(source: impl Read, sink: impl Write) -> Result<Census, LayerError> {
    let mut reader = MemberReader::new(source);
    let mut writer = MemberWriter { inner: sink };
    let mut census = Census::default();
    while let Some(mut member) = reader.next()? {
        let path = member.path();
        let (parent, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return Err(LayerError::ReservedName(String::from_utf8_lossy(&path).into_owned()));
        }
        if path.len() > MAX_PATH {
            let start = String::from_utf8_lossy(&path[..80]).into_owned();
            return Err(LayerError::LongPath(path.len(), start));
        }
        if member.is_overlay_whiteout() {
            census.deleted += 1;
            writer.put(Member::empty_file(&[parent, WHITEOUT, name].concat()))?;
            continue;
        }
        let replaced = member.is_dir() && member.pax.get(OVERLAY_OPAQUE) == Some(b"y");
        member.pax.retain(|key| !key.starts_with(OVERLAY_ATTRIBUTES));
        census.members += 1;
        pass(&mut reader, &mut writer, member)?;
        if replaced {
            census.replaced += 1;
            let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
            writer.put(Member::empty_file(&[path.as_slice(), slash, OPAQUE].concat()))?;
        }
    }
    writer.finish()?;
    Ok(census)
}

/// Rewrites an OCI layer into a tar that, unpacked, is an overlay lower directory.
pub fn oci_to_overlay(source: impl Read, sink: impl Write) -> Result<Census, LayerError> {
    let mut reader = MemberReader::new(source);
    let mut writer = MemberWriter { inner: sink };
    let mut census = Census::default();
    // A directory waits for the member after it, which may say that it is opaque.
    let mut waiting: Option<Member> = None;
    while let Some(member) = reader.next()? {
        let path = member.path();
        let (parent, name) = split(&path);
        if name == OPAQUE {
            match waiting.take() {
                Some(mut directory) if without_slash(&directory.path()) == without_slash(parent) => {
                    census.replaced += 1;
                    directory.pax.set(OVERLAY_OPAQUE, *b"y");
                    writer.put(directory)?;
                }
                _ => return Err(LayerError::StrayOpaque(String::from_utf8_lossy(&path).into_owned())),
            }
            reader.copy_contents(member.size, &mut io::sink())?;
            continue;
        }
        if let Some(directory) = waiting.take() {
            writer.put(directory)?;
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            census.deleted += 1;
            reader.copy_contents(member.size, &mut io::sink())?;
            writer.put(overlay_whiteout(&[parent, gone].concat())?)?;
            continue;
        }
        census.members += 1;
        if member.is_dir() && member.size == 0 {
            waiting = Some(member);
        } else {
            pass(&mut reader, &mut writer, member)?;
        }
    }
    if let Some(directory) = waiting {
        writer.put(directory)?;
    }
    writer.finish()?;
    Ok(census)
}

fn overlay_whiteout(path: &[u8]) -> Result<Member, LayerError> {
    let mut member = Member::empty_file(path);
    member.header.set_entry_type(EntryType::Char);
    member.header.set_device_major(0).map_err(|_| LayerError::BadHeader("device"))?;
    member.header.set_device_minor(0).map_err(|_| LayerError::BadHeader("device"))?;
    Ok(member)
}

/// Copies one member with its contents.
fn pass<R: Read, W: Write>(
    reader: &mut MemberReader<R>,
    writer: &mut MemberWriter<W>,
    member: Member,
) -> Result<(), LayerError> {
    let size = member.size;
    writer.put(member)?;
    reader.copy_contents(size, &mut writer.inner)?;
    writer.pad(size)
}

/// `a/b/c/` into `a/b/` and `c`.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = without_slash(path);
    let start = end.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    (&path[..start], &end[start..])
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}
