//! Layers: OCI tars, compressed. Their identity is the digest of the tar, not of the blob.

use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use isokiln_core::digest::{DiffId, Hasher};
use isokiln_core::image::LayerBlob;
use isokiln_core::layer::{Census, LayerError, oci_to_overlay, overlay_to_oci};

use super::blobs::BlobReader;
use super::{IoContext, Store, StoreError};

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Fast and small; container engines since 2021 read it.
    Zstd,
    /// For older ones.
    Gzip,
}

impl Compression {
    /// OCI media type of a layer compressed like this.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    fn of(media_type: &str) -> Option<Self> {
        [Self::Zstd, Self::Gzip].into_iter().find(|compression| compression.media_type() == media_type)
    }
}

/// Level that keeps two processors as busy as the tar stream does.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 1;
/// More threads only cost memory: the stream comes through one.
const MAX_THREADS: usize = 4;
/// Bytes that a thread of the compressor takes at once.
const JOB_BYTES: u32 = 2 << 20;
/// Bytes that travel from thread to thread at once, and how many such pieces may wait.
const PIECE: usize = 1 << 20;
const WAITING_PIECES: usize = 4;

/// A layer that has just been stored.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// The blob.
    pub blob: LayerBlob,
    /// Bytes of the tar.
    pub unpacked: u64,
    /// What it holds.
    pub census: Census,
}

impl Store {
    /// Stores the tar of an overlay upper directory as an OCI layer: rewritten, hashed, compressed and
    /// written in one pass, in constant memory.
    pub fn add_layer(
        &self,
        overlay_tar: impl Read + Send,
        compression: Compression,
    ) -> Result<StoredLayer, StoreError> {
        let writer = self.blob_writer()?;
        thread::scope(|scope| {
            let (to_hash, hash_pieces) = sync_channel::<Bytes>(WAITING_PIECES);
            let (to_compress, compress_pieces) = sync_channel::<Bytes>(WAITING_PIECES);
            let hashing = scope.spawn(move || hash(&hash_pieces));
            let compressing = scope.spawn(move || compress(&compress_pieces, writer, compression));

            let mut sink = Pieces { waiting: Vec::with_capacity(PIECE), sinks: [to_hash, to_compress] };
            let census = overlay_to_oci(overlay_tar, &mut sink);
            drop(sink);
            let (diff_id, unpacked) = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let stored = compressing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // If writing failed, that is why the stream broke off.
            let writer = stored?;
            let census = census?;
            let (digest, size) = writer.finish()?;
            let blob = LayerBlob { diff_id, digest, size, media_type: compression.media_type().to_owned() };
            Ok(StoredLayer { blob, unpacked, census })
        })
    }

    /// Writes a layer, checked, to `sink` as the tar of an overlay lower directory. What was written
    /// counts only if this succeeds.
    pub fn restore_layer(&self, layer: &LayerBlob, sink: impl Write) -> Result<Census, StoreError> {
        match oci_to_overlay(self.layer_reader(layer)?, sink) {
            Ok(census) => Ok(census),
            Err(error @ LayerError::Write(_)) => Err(error.into()),
            // Damage shows in many ways before the end is reached: ask the digest.
            Err(error) => match self.check(layer.digest)? {
                true => Err(error.into()),
                false => Err(StoreError::Damaged { digest: layer.digest }),
            },
        }
    }

    /// The tar of a layer; its last read fails if the blob is damaged.
    pub fn layer_reader(&self, layer: &LayerBlob) -> Result<LayerReader, StoreError> {
        let path = self.blob_path(layer.digest);
        let blob = self.reader(layer.digest)?;
        let unsupported = || StoreError::BadDocument {
            path: path.clone(),
            reason: format!("layers of type {} are not supported", layer.media_type),
        };
        Ok(match Compression::of(&layer.media_type).ok_or_else(unsupported)? {
            Compression::Zstd => {
                let blob = BufReader::with_capacity(PIECE, blob);
                LayerReader::Zstd(zstd::stream::read::Decoder::with_buffer(blob).on("read", &path)?)
            }
            Compression::Gzip => {
                LayerReader::Gzip(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(PIECE, blob)))
            }
        })
    }

    /// Whether a blob's bytes are those of its digest.
    pub(super) fn check(&self, digest: isokiln_core::digest::Digest) -> Result<bool, StoreError> {
        match io::copy(&mut self.reader(digest)?, &mut io::sink()) {
            Ok(_) => Ok(true),
            Err(error) => match StoreError::from_read(error, &self.blob_path(digest)) {
                StoreError::Damaged { .. } => Ok(false),
                other => Err(other),
            },
        }
    }
}

/// Decompresses a layer.
#[expect(missing_docs, reason = "one variant a compression")]
pub enum LayerReader {
    Zstd(zstd::stream::read::Decoder<'static, BufReader<BlobReader>>),
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<BlobReader>>),
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

/// Collects what is written into pieces and hands each to every sink.
struct Pieces {
    waiting: Vec<u8>,
    sinks: [SyncSender<Bytes>; 2],
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE)));
        for sink in &self.sinks {
            sink.send(piece.clone()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { self.send() }
    }
}

fn hash(pieces: &Receiver<Bytes>) -> (DiffId, u64) {
    let mut hasher = Hasher::new();
    let mut size = 0;
    for piece in pieces {
        hasher.update(&piece);
        size += piece.len() as u64;
    }
    (DiffId(hasher.finish()), size)
}

fn compress<W: Write>(pieces: &Receiver<Bytes>, sink: W, compression: Compression) -> Result<W, StoreError> {
    let failed = |error| StoreError::Layer(LayerError::Write(error));
    match compression {
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(sink, ZSTD_LEVEL).map_err(failed)?;
            let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
            encoder.multithread(threads as u32).map_err(failed)?;
            // Each thread holds a few of these; the usual size would take 100 MB with four threads.
            encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB_BYTES)).map_err(failed)?;
            for piece in pieces {
                encoder.write_all(&piece).map_err(failed)?;
            }
            encoder.finish().map_err(failed)
        }
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(sink, flate2::Compression::new(GZIP_LEVEL));
            for piece in pieces {
                encoder.write_all(&piece).map_err(failed)?;
            }
            encoder.finish().map_err(failed)
        }
    }
}
