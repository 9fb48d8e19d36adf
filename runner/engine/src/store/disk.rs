//! The few things that the store asks of a file system, so that tests can make any of them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file system to write to.
pub trait Disk: Send + Sync {
    /// Makes a folder and those above it, durably.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a new file for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file its final name, replacing what has it, durably.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until the names in a folder would survive a power cut.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Deletes a file. After a power cut it may be there again.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A file being written.
pub trait DiskFile: Write + Send {
    /// Waits until what was written would survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        make_folders(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // Read-only for everybody from the start: what is in the store does not change.
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), |folder| self.sync_folder(folder))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// Makes a folder and those above it, and sees to it that they survive a power cut: what is made in them would be lost
/// with them.
pub fn make_folders(path: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    fs::create_dir_all(path)?;
    for folder in missing {
        match folder.parent() {
            Some(above) if !above.as_os_str().is_empty() => File::open(above)?.sync_all()?,
            _ => File::open(".")?.sync_all()?,
        }
    }
    Ok(())
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
