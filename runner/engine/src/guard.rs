//! Folders that one process at a time changes. The locks are the kernel's: they end with their process, however
//! that ends, and there is nothing to remove by hand.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Held while a process changes what lies in a folder, or while a run lives in it.
#[derive(Debug)]
pub(crate) struct FolderGuard {
    folder: File,
}

impl FolderGuard {
    /// Waits until nobody else has the folder. Only for what takes moments.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        let file = File::open(folder)?;
        match file.lock() {
            Err(error) if !is_unlockable(&error) => Err(error),
            _ => Ok(Self { folder: file }),
        }
    }

    /// Whether this is still what is found by that path.
    pub(crate) fn is_of(&self, folder: &Path) -> bool {
        has_name(&self.folder, folder)
    }

    /// Whether somebody has the folder now. One that is gone, or that cannot be looked at, nobody has.
    pub(crate) fn is_taken(folder: &Path) -> bool {
        // Shared, so that two who ask at the same time do not take each other for the holder.
        let asked = File::open(folder).map(|file| file.try_lock_shared());
        matches!(asked, Ok(Err(TryLockError::WouldBlock)))
    }
}

/// Whether an opened file or folder is still what is found by that path: a lock on one that is not keeps nobody out.
pub(crate) fn has_name(file: &File, path: &Path) -> bool {
    let identity = |facts: Metadata| (facts.dev(), facts.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}

/// Network file systems lock only what can be written to, which a folder cannot.
fn is_unlockable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EBADF as i32)
        || error.kind() == io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_until_its_holder_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!FolderGuard::is_taken(folder.path()));
        let guard = FolderGuard::take(folder.path()).unwrap();
        assert!(FolderGuard::is_taken(folder.path()));
        assert!(guard.is_of(folder.path()) && !guard.is_of(Path::new("/")));
        drop(guard);
        assert!(!FolderGuard::is_taken(folder.path()));
        assert!(!FolderGuard::is_taken(&folder.path().join("gone")));
    }

    #[test]
    fn who_comes_second_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("count");
        std::fs::write(&path, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _guard = FolderGuard::take(folder.path()).unwrap();
                        let count: u32 = std::fs::read_to_string(&path).unwrap().parse().unwrap();
                        std::fs::write(&path, (count + 1).to_string()).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "200");
    }
}
