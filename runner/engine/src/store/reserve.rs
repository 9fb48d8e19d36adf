//! Room set aside, so that a full disk does not keep a store from becoming smaller.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use isokiln_core::image::Entry;

use super::{Store, StoreError};

/// Beside the index, on the same file system; no program that reads image layouts looks at it.
const RESERVE: &str = ".reserve";
/// Bytes that it has at least: the index of some hundred checkpoints.
const LEAST: u64 = 64 << 10;

impl Store {
    /// Writes an index that is shorter than the one before it. Where the disk is full, the reserve makes room for it.
    pub(super) fn write_fewer_entries(&self, entries: &[Entry]) -> Result<(), StoreError> {
        match self.write_entries(entries) {
            Err(full) if full.is_disk_full() && fs::remove_file(self.reserve()).is_ok() => {
                self.write_entries(entries)
            }
            written => written,
        }
    }

    /// Makes the reserve, unless it is there or there is no room for it now.
    pub(super) fn keep_reserve(&self) {
        let index = fs::metadata(self.index_path()).map_or(0, |facts| facts.len());
        let wanted = (2 * index).max(LEAST);
        let path = self.reserve();
        if fs::metadata(&path).is_ok_and(|facts| facts.len() > index) {
            return;
        }
        let made =
            OpenOptions::new().write(true).create(true).truncate(true).open(&path).and_then(|mut file| {
                // Written, not only promised: a file with holes takes no room.
                file.write_all(&vec![0x55; usize::try_from(wanted).unwrap_or_default()])
            });
        if let Err(error) = made {
            tracing::debug!("no room is set aside in {}: {error}", path.display());
            drop(fs::remove_file(&path));
        }
    }

    fn reserve(&self) -> PathBuf {
        self.root.join(RESERVE)
    }
}
