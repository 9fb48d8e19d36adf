//! The compressions of squashfs.

use std::io::{self, Read};

/// How a squashfs is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// zlib's format, though everybody says gzip.
    Gzip,
    Xz,
    Lz4,
    Zstd,
}

/// Memory that a decoder of xz may use; blocks are at most 1 MiB.
const XZ_MEMORY: u64 = 32 << 20;

impl Compression {
    /// By the number in the superblock.
    pub(super) fn from_number(number: u16) -> io::Result<Self> {
        let unknown = |name: &str| {
            let text = format!("it is compressed with {name}, which cannot be read");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        };
        match number {
            1 => Ok(Self::Gzip),
            2 => unknown("lzma"),
            3 => unknown("lzo"),
            4 => Ok(Self::Xz),
            5 => Ok(Self::Lz4),
            6 => Ok(Self::Zstd),
            other => unknown(&format!("method {other}")),
        }
    }

    /// Unpacks a block; one that is larger than `most` bytes is an error.
    pub(super) fn unpack(self, packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
        self.try_unpack(packed, most).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("a compressed block is damaged: {error}"))
        })
    }

    fn try_unpack(self, packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => limited(flate2::bufread::ZlibDecoder::new(packed), most),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                limited(liblzma::bufread::XzDecoder::new_stream(packed, stream), most)
            }
            Self::Lz4 => {
                let mut block = vec![0; most];
                let size = lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
                block.truncate(size);
                Ok(block)
            }
            Self::Zstd => zstd::bulk::decompress(packed, most),
        }
    }
}

fn limited(decoder: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    decoder.take(most as u64 + 1).read_to_end(&mut block)?;
    if block.len() > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a block is too large"));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_compression_unpacks_within_its_bound() {
        let text = b"squashfs ".repeat(500);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&text).unwrap();
        for (number, packed) in [
            (1, zlib.finish().unwrap()),
            (4, xz.finish().unwrap()),
            (5, lz4_flex::block::compress(&text)),
            (6, zstd::bulk::compress(&text, 3).unwrap()),
        ] {
            let compression = Compression::from_number(number).unwrap();
            assert_eq!(compression.unpack(&packed, text.len()).unwrap(), text, "{compression:?}");
            assert!(compression.unpack(&packed, text.len() - 1).is_err(), "{compression:?}");
            assert!(compression.unpack(&packed[..packed.len() / 2], text.len()).is_err(), "{compression:?}");
            assert!(
                compression.unpack(b"nonsense that is no stream", text.len()).is_err(),
                "{compression:?}"
            );
        }
        assert!(Compression::from_number(3).unwrap_err().to_string().contains("lzo"));
    }
}
