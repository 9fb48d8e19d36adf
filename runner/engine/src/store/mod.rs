//! The store: an OCI image layout on the user's disk that holds every checkpoint.
//!
//! Builds add to it side by side, and whoever removes something is alone ([`WriterLock`]); readers never wait. Blobs
//! are written to a temporary file, synced and renamed, and the index after them, so that a crash at any instant
//! leaves a store that verifies. Bytes are checked against their digest whenever they are read.

mod blobs;
#[cfg(test)]
mod cuts;
mod disk;
mod export;
mod gc;
mod index;
mod layers;
mod lock;
mod reserve;
#[cfg(test)]
mod tests;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use isokiln_core::digest::Digest;
use isokiln_core::layer::LayerError;

use crate::guard::FolderGuard;

pub use disk::{Disk, DiskFile, RealDisk, make_folders};
pub use gc::{GcReport, Holding, KeepRule};
pub use index::DamagedEntry;
pub use layers::{Compression, LayerReader, StoredLayer};
pub use lock::{Writer, WriterLock};
pub use verify::{Damage, VerifyReport};

/// What the store cannot carry on from.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "read", "write".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A blob's bytes do not have the blob's digest.
    #[error("blob {digest} in the store is damaged")]
    Damaged {
        /// Digest that the bytes should have.
        digest: Digest,
    },
    /// A blob is not there.
    #[error("blob {digest} is missing from the store")]
    Missing {
        /// Its digest.
        digest: Digest,
    },
    /// The index is missing or cannot be understood.
    #[error("{} is damaged: {reason}", path.display())]
    BadIndex {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A document cannot be understood.
    #[error("{} is not a document of this store: {reason}", path.display())]
    BadDocument {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer's stream broke.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// There is no such checkpoint.
    #[error("there is no checkpoint {what}")]
    NoSuchCheckpoint {
        /// As the user named it.
        what: String,
    },
}

impl StoreError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        let is_full = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::Layer(LayerError::Write(source)) => is_full(source),
            _ => false,
        }
    }

    /// The blob that is damaged or missing, if that is the trouble.
    pub fn broken_blob(&self) -> Option<Digest> {
        match self {
            Self::Damaged { digest } | Self::Missing { digest } => Some(*digest),
            _ => None,
        }
    }

    /// Whether something in the store is not as it was written. What rests on it can only be made anew.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::BadDocument { .. })
    }
}

/// Adds what was tried and on what.
trait IoContext<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { action, path: path.to_owned(), source })
    }
}

/// An OCI image layout in a folder.
#[derive(Clone)]
pub struct Store {
    root: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Store {
    /// Opens the store in `root`, making an empty one where there is none.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_on(root, Arc::new(RealDisk))
    }

    /// Opens a store on a disk of the caller's choice.
    pub fn open_on(root: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let store = Self { root: root.into(), disk };
        let blobs = store.blob_folder();
        make_folders(&*store.disk, &blobs).on("make", &blobs)?;
        let layout = store.root.join("oci-layout");
        let index = store.index_path();
        if layout.exists() && index.exists() {
            return Ok(store);
        }
        // Another process may be making the same store, and may have entered something in its index already.
        let _guard = store.guard().on("lock", &store.root)?;
        // Whoever made the folders may have been killed before their names were safe.
        for folder in blobs.ancestors().skip(1).take(3) {
            store.disk.sync_folder(folder).on("write", folder)?;
        }
        if !layout.exists() {
            store.replace(&layout, &isokiln_core::image::oci_layout())?;
        }
        // Where there are blobs the index was lost: an empty one would have all of them collected.
        if !index.exists() && store.blob_files()?.is_empty() {
            store.replace(&index, &isokiln_core::image::empty_index())?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Held while the index is read, changed and written, and while blobs get their names or lose them.
    fn guard(&self) -> std::io::Result<FolderGuard> {
        FolderGuard::take(&self.root)
    }

    fn blob_folder(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blob_folder().join(digest.hex())
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }
}
