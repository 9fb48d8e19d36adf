//! A disk that does not make tests wait, and that can become full.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::{Disk, DiskFile};

/// Files that are not synced: no test cuts the power.
pub(super) struct QuickDisk {
    /// Files that can still be made or named.
    room: AtomicUsize,
}

impl QuickDisk {
    pub(super) fn new(room: usize) -> Self {
        Self { room: AtomicUsize::new(room) }
    }

    fn take_room(&self) -> io::Result<()> {
        let less = |room: usize| room.checked_sub(1);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(ErrorKind::StorageFull.into()),
        }
    }
}

impl Disk for QuickDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.take_room()?;
        Ok(Box::new(QuickFile(OpenOptions::new().write(true).create_new(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.take_room()?;
        fs::rename(from, to)
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

struct QuickFile(fs::File);

impl Write for QuickFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskFile for QuickFile {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
