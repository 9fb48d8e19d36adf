//! One writer per store. The lock is the kernel's, so it ends with its process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::{IoContext, StoreError};

/// Held while a process writes to a store.
#[derive(Debug)]
pub struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Takes the lock at `path`, waiting for whoever has it; `waiting` is told once who that is.
    pub fn take(path: &Path, waiting: impl FnOnce(&str)) -> Result<Self, StoreError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .on("open", path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).on("read", path)?;
                waiting(holder.trim());
                file.lock().on("lock", path)?;
            }
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Io { action: "lock", path: path.to_owned(), source });
            }
        }
        // For the next one who has to wait; of no other use.
        file.set_len(0).on("write", path)?;
        file.rewind().on("write", path)?;
        writeln!(file, "{}", std::process::id()).on("write", path)?;
        Ok(Self { _file: file })
    }
}
