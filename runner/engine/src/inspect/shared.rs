//! One open file, read at several places at once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file whose clones share the descriptor and have a position each.
#[derive(Debug, Clone)]
pub(super) struct SharedFile {
    file: Arc<File>,
    position: u64,
}

impl SharedFile {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file), position: 0 }
    }
}

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        // The system counts places in files with a sign.
        let place = place.filter(|place| i64::try_from(*place).is_ok());
        self.position = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
