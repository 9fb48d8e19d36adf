//! A file or partition as pieces of a larger image.

use std::io::{self, Read, Seek, SeekFrom};

use serde::Serialize;

/// A piece of an image, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub size: u64,
}

/// Reads pieces of an image as one file.
#[derive(Debug, Clone)]
pub struct ExtentReader<R> {
    image: R,
    extents: Vec<Extent>,
    position: u64,
}

impl<R: Read + Seek> ExtentReader<R> {
    /// The pieces in their order.
    pub fn new(image: R, extents: Vec<Extent>) -> Self {
        Self { image, extents, position: 0 }
    }

    /// Bytes of all pieces together, as they are promised.
    pub fn size(&self) -> u64 {
        self.extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.size))
    }
}

impl<R: Read + Seek> Read for ExtentReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut skip = self.position;
        for extent in &self.extents {
            if skip >= extent.size {
                skip -= extent.size;
                continue;
            }
            let room = usize::try_from(extent.size - skip).unwrap_or(usize::MAX).min(buffer.len());
            self.image.seek(SeekFrom::Start(extent.start.saturating_add(skip)))?;
            let read = self.image.read(&mut buffer[..room])?;
            self.position += read as u64;
            return Ok(read);
        }
        Ok(0)
    }
}

impl<R: Read + Seek> Seek for ExtentReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// Reads at a place, at most so many bytes: fewer where the image ends before.
pub(super) fn read_at(image: &mut (impl Read + Seek), place: u64, most: usize) -> io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(place))?;
    let mut bytes = Vec::new();
    // `take` rather than a buffer of that size: a size that a damaged image claims costs nothing.
    image.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn pieces_read_as_one_and_end_where_the_image_does() {
        let image = Cursor::new(b"0123456789".to_vec());
        let extents = vec![Extent { start: 6, size: 2 }, Extent { start: 1, size: 3 }];
        let mut reader = ExtentReader::new(image.clone(), extents);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), reader.size()), ("67123", 5));
        assert_eq!(reader.seek(SeekFrom::End(-2)).unwrap(), 3);
        text.clear();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "23");
        assert!(reader.seek(SeekFrom::Current(-6)).is_err());
        let mut beyond = ExtentReader::new(image, vec![Extent { start: 8, size: u64::MAX }]);
        assert_eq!(read_at(&mut beyond, 0, 100).unwrap(), b"89");
    }
}
