//! The folder of a boot test: logs, events and pictures.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::BootError;

/// Writes the evidence of one boot.
pub(super) struct Evidence {
    folder: PathBuf,
    pictures: usize,
}

impl Evidence {
    pub(super) fn new(folder: &Path) -> Result<Self, BootError> {
        let screens = folder.join("screens");
        fs::create_dir_all(&screens).map_err(|source| BootError::Evidence { path: screens, source })?;
        Ok(Self { folder: folder.to_owned(), pictures: 0 })
    }

    /// Adds bytes to a log.
    pub(super) fn append(&self, name: &str, bytes: &[u8]) -> Result<(), BootError> {
        self.write(name, |path| OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes))
    }

    /// Keeps a picture, numbered in order of time.
    pub(super) fn picture(&mut self, label: &str, png: &[u8]) -> Result<(), BootError> {
        self.pictures += 1;
        let name = format!("screens/{:02}-{label}.png", self.pictures);
        self.write(&name, |path| File::create(path)?.write_all(png))
    }

    /// Writes a whole file.
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<(), BootError> {
        self.write(name, |path| fs::write(path, bytes))
    }

    fn write(&self, name: &str, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), BootError> {
        let path = self.folder.join(name);
        write(&path).map_err(|source| BootError::Evidence { path, source })
    }
}
