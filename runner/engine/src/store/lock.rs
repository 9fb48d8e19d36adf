//! One writer per store. The lock is the kernel's, so it ends with its process, however that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{IoContext, StoreError};

/// Held while a process writes to a store.
#[derive(Debug)]
pub struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Takes the lock at `path`, waiting for whoever has it; `waiting` is told once who that is, in words.
    pub fn take(path: &Path, waiting: impl FnOnce(&str)) -> Result<Self, StoreError> {
        let mut waiting = Some(waiting);
        loop {
            let mut file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waiting) = waiting.take() {
                        waiting(&holder(&mut file));
                    }
                    file.lock().on("lock", path)?;
                }
                Err(TryLockError::Error(source)) => {
                    return Err(StoreError::Io { action: "lock", path: path.to_owned(), source });
                }
            }
            // Whoever had it may have removed the whole folder: a lock without a name keeps nobody out.
            if !has_name(&file, path) {
                continue;
            }
            // For the next one who has to wait; of no other use.
            file.set_len(0).on("write", path)?;
            file.rewind().on("write", path)?;
            writeln!(file, "{}", std::process::id()).on("write", path)?;
            return Ok(Self { _file: file });
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).on("make", folder)?;
    }
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).on("open", path)
}

/// Who has the lock. It is taken a moment before its holder has written who that is.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read: io::Result<usize> = file.read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

fn has_name(file: &File, path: &Path) -> bool {
    let identity = |facts: fs::Metadata| (facts.dev(), facts.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}
