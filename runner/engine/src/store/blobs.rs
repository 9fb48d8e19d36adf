//! Blobs: files named by the digest of their bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use isokiln_core::digest::{Digest, Hasher};

use super::disk::{DiskFile, rename_durably};
use super::{IoContext, Store, StoreError};

/// Begins the names of files that are still being written. A writer that died leaves them behind;
/// the next one takes them away.
const TEMPORARY: &str = ".tmp-";
/// Begins the names of damaged blobs; the next garbage collection takes them away too.
pub(super) const ASIDE: &str = ".damaged-";

/// A file where blobs lie.
pub(super) struct BlobFile {
    pub(super) path: PathBuf,
    /// Absent for what is left of writing and of damage.
    pub(super) digest: Option<Digest>,
    pub(super) size: u64,
}

/// A blob being written; without [`BlobWriter::finish`] nothing remains of it.
pub(super) struct BlobWriter<'s> {
    store: &'s Store,
    temporary: PathBuf,
    file: Option<BufWriter<Box<dyn DiskFile>>>,
    hasher: Hasher,
    size: u64,
}

impl Store {
    pub(super) fn blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let folder = self.blob_folder();
        let (temporary, file) = self.create_temporary(&folder).on("write", &folder)?;
        Ok(BlobWriter {
            store: self,
            temporary,
            file: Some(BufWriter::with_capacity(256 << 10, file)),
            hasher: Hasher::new(),
            size: 0,
        })
    }

    /// Stores bytes; gives their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let folder = self.blob_folder();
        let _guard = self.guard().on("lock", &self.root)?;
        // What is there may be damaged; writing it again makes it whole.
        match self.get(digest) {
            // Whoever gave it its name may have been killed before the name was safe.
            Ok(_) => self.disk.sync_folder(&folder).on("write", &folder)?,
            Err(_) => self.replace(&self.blob_path(digest), bytes)?,
        }
        Ok(digest)
    }

    /// Stores everything that `source` gives; gives its digest and its number of bytes.
    pub fn put_stream(&self, mut source: impl Read) -> Result<(Digest, u64), StoreError> {
        let mut writer = self.blob_writer()?;
        io::copy(&mut source, &mut writer).on("write", &self.blob_folder())?;
        writer.finish()
    }

    /// A small blob, checked.
    pub fn get(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(_) => Err(StoreError::Damaged { digest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing { digest }),
            Err(source) => Err(StoreError::Io { action: "read", path, source }),
        }
    }

    /// A blob of any size. The last read fails if the bytes are not those of the digest.
    pub fn reader(&self, digest: Digest) -> Result<BlobReader, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(BlobReader { file, hasher: Hasher::new(), digest, finished: false }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing { digest }),
            Err(source) => Err(StoreError::Io { action: "read", path, source }),
        }
    }

    /// Makes sure that a blob is whole.
    pub fn expect_whole(&self, digest: Digest) -> Result<(), StoreError> {
        if self.check(digest)? { Ok(()) } else { Err(StoreError::Damaged { digest }) }
    }

    /// Gives a blob a name outside of the store, unchecked. The file shares the blob's bytes where the file
    /// system allows; it is read-only, and whoever changes it all the same is found out at the next check.
    pub fn materialise(&self, digest: Digest, path: &Path) -> Result<(), StoreError> {
        let blob = self.blob_path(digest);
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).on("replace", path),
            _ => {}
        }
        if fs::hard_link(&blob, path).is_ok() {
            return Ok(());
        }
        let copied = fs::copy(&blob, path);
        if copied.is_err() {
            // A part of a file must not be taken for the file.
            drop(fs::remove_file(path));
        }
        copied.map(drop).on("write", path)
    }

    /// Every file where blobs lie, with its bytes: blobs by digest, and what is left of writing and of damage.
    pub(super) fn blob_files(&self) -> Result<Vec<BlobFile>, StoreError> {
        let folder = self.blob_folder();
        let mut files = Vec::new();
        for file in fs::read_dir(&folder).on("read", &folder)? {
            let file = file.on("read", &folder)?;
            let path = file.path();
            let size = match file.metadata() {
                Ok(facts) => facts.len(),
                // A writer has just given it its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).on("read", &path),
            };
            let name = file.file_name().to_string_lossy().into_owned();
            let digest = format!("sha256:{name}").parse().ok();
            let leftover = [TEMPORARY, ASIDE].iter().any(|start| name.starts_with(start));
            if digest.is_none() && !leftover {
                tracing::warn!("{} is not a blob", path.display());
                continue;
            }
            files.push(BlobFile { path, digest, size });
        }
        Ok(files)
    }

    /// Deletes what writers that died have left. The caller holds the writer lock: nobody is writing now.
    pub fn drop_unfinished(&self) -> Result<(), StoreError> {
        for folder in [self.blob_folder(), self.root.clone()] {
            for file in fs::read_dir(&folder).on("read", &folder)? {
                let file = file.on("read", &folder)?;
                if file.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    let path = file.path();
                    self.disk.remove(&path).on("remove", &path)?;
                }
            }
        }
        Ok(())
    }

    /// Every blob with its bytes.
    pub(super) fn blobs(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        Ok(self.blob_files()?.iter().filter_map(|file| Some((file.digest?, file.size))).collect())
    }

    /// A new file with a name that no blob has.
    fn create_temporary(&self, folder: &Path) -> io::Result<(PathBuf, Box<dyn DiskFile>)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMPORARY}{}-{count}", std::process::id()));
            match self.disk.create(&path) {
                Ok(file) => return Ok((path, file)),
                // A writer that was killed had the same process id, as the first process of a container always has.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Replaces a file in one step.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.root);
        let (temporary, mut file) = self.create_temporary(folder).on("write", path)?;
        let written = (|| {
            file.write_all(bytes)?;
            file.sync()?;
            drop(file);
            rename_durably(&*self.disk, &temporary, path)
        })();
        if written.is_err() {
            // The first error is the one to tell; what is left is a file that the collector knows.
            drop(self.disk.remove(&temporary));
        }
        written.on("write", path)
    }
}

impl BlobWriter<'_> {
    /// Gives the blob its name; returns its digest and its number of bytes.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), StoreError> {
        let digest = std::mem::take(&mut self.hasher).finish();
        let path = self.store.blob_path(digest);
        let file = self.file.take();
        let renamed = (|| {
            if let Some(file) = file {
                let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync()?;
            }
            // Nobody may set this blob aside for the damage that the one before it had.
            let _guard = self.store.guard()?;
            rename_durably(&*self.store.disk, &self.temporary, &path)
        })();
        renamed.on("write", &path)?;
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // After `finish` the name is gone and this does nothing.
        drop(self.store.disk.remove(&self.temporary));
    }
}

/// Reads a blob and checks it at its end.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    hasher: Hasher,
    digest: Digest,
    finished: bool,
}

/// Carried by the `io::Error` of a read that found a damaged blob.
#[derive(Debug, thiserror::Error)]
#[error("blob {0} in the store is damaged")]
pub(super) struct DamagedBlob(pub(super) Digest);

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count > 0 {
            self.hasher.update(&buffer[..count]);
        } else if !buffer.is_empty() && !self.finished {
            self.finished = true;
            if std::mem::take(&mut self.hasher).finish() != self.digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, DamagedBlob(self.digest)));
            }
        }
        Ok(count)
    }
}

impl StoreError {
    /// Recognises a damaged blob in an error that went through `std::io`.
    pub fn from_read(error: io::Error, path: &Path) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<DamagedBlob>()) {
            Some(DamagedBlob(digest)) => Self::Damaged { digest: *digest },
            None => Self::Io { action: "read", path: path.to_owned(), source: error },
        }
    }
}
