//! The index: which checkpoints, artifacts and boot reports the store holds.

use std::fs;
use std::io;
use std::time::UNIX_EPOCH;

use isokiln_core::digest::Digest;
use isokiln_core::image::{Artifact, Checkpoint, Documents, Entry, EntryNote, Role};
use isokiln_core::names::{PipelineName, StageName};

use super::blobs::ASIDE;
use super::disk::rename_durably;
use super::{IoContext, Store, StoreError};

/// Larger than any manifest, in bytes: larger blobs are not read in search of one.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// An entry that is not usable, and why.
pub type DamagedEntry = (Entry, StoreError);

impl Store {
    /// Every entry, oldest first.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let path = self.index_path();
        let bad = |reason| StoreError::BadIndex { path: path.clone(), reason };
        match fs::read(&path) {
            Ok(document) => Entry::read_index(&document).map_err(bad),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(bad("it is missing".to_owned())),
            Err(error) => Err(error).on("read", &path),
        }
    }

    pub(super) fn write_entries(&self, entries: &[Entry]) -> Result<(), StoreError> {
        self.replace(&self.index_path(), &Entry::write_index(entries))
    }

    /// Changes the index as no other process does at the same time. It is written if `change` gives other entries.
    fn update<T>(
        &self,
        change: impl FnOnce(Vec<Entry>) -> Result<(Vec<Entry>, T), StoreError>,
    ) -> Result<T, StoreError> {
        let _guard = self.guard().on("lock", &self.root)?;
        let before = self.entries()?;
        let (after, outcome) = change(before.clone())?;
        if after.len() < before.len() {
            self.write_fewer_entries(&after)?;
        } else if after != before {
            self.write_entries(&after)?;
        }
        self.keep_reserve();
        Ok(outcome)
    }

    /// Stores a manifest and what it is made of, then enters it in the index. An older entry with the
    /// same key and role gives way, and a stage that has a new checkpoint is no longer rolled back.
    pub fn add(&self, documents: &Documents, note: EntryNote) -> Result<Entry, StoreError> {
        for blob in &documents.blobs {
            self.put(blob)?;
        }
        let manifest = self.put(&documents.manifest)?;
        let entry = Entry { manifest, size: documents.manifest.len() as u64, note };
        let of_stage =
            |note: &EntryNote| (&note.pipeline, &note.stage) == (&entry.note.pipeline, &entry.note.stage);
        self.update(|mut entries| {
            entries.retain(|other| {
                !of_stage(&other.note)
                    || (other.note.role, other.note.key) != (entry.note.role, entry.note.key)
            });
            if entry.note.role == Role::Checkpoint {
                // A stage that was rolled back to and has been run again goes on from its new checkpoint.
                entries
                    .iter_mut()
                    .filter(|other| of_stage(&other.note))
                    .for_each(|other| other.note.pinned = false);
            }
            entries.push(entry.clone());
            Ok((entries, ()))
        })?;
        Ok(entry)
    }

    /// Keeps the entries that pass; gives those that went.
    pub fn retain(&self, mut keep: impl FnMut(&Entry) -> bool) -> Result<Vec<Entry>, StoreError> {
        self.update(|entries| Ok(entries.into_iter().partition(|entry| keep(entry))))
    }

    /// Changes entries in place.
    pub fn edit(&self, mut edit: impl FnMut(&mut Entry)) -> Result<(), StoreError> {
        self.update(|mut entries| {
            entries.iter_mut().for_each(&mut edit);
            Ok((entries, ()))
        })
    }

    /// The newest entry with that role and key.
    pub fn find(&self, role: Role, key: Digest) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries()?.into_iter().rev().find(|entry| entry.note.role == role && entry.note.key == key))
    }

    /// The checkpoint behind an entry, its documents checked.
    pub fn checkpoint(&self, entry: &Entry) -> Result<Checkpoint, StoreError> {
        let manifest = self.get(entry.manifest)?;
        let bad = |reason| StoreError::BadDocument { path: self.blob_path(entry.manifest), reason };
        let (config, _) = Entry::references(&manifest).map_err(bad)?.remove(0);
        entry.checkpoint(&manifest, &self.get(config)?).map_err(bad)
    }

    /// The files behind an entry for artifacts or a boot report.
    pub fn files(&self, entry: &Entry) -> Result<Vec<Artifact>, StoreError> {
        let manifest = self.get(entry.manifest)?;
        Entry::files(&manifest)
            .map_err(|reason| StoreError::BadDocument { path: self.blob_path(entry.manifest), reason })
    }

    /// The blobs that an entry's manifest refers to, with their bytes.
    pub(super) fn references(&self, entry: &Entry) -> Result<Vec<(Digest, u64)>, StoreError> {
        Entry::references(&self.get(entry.manifest)?)
            .map_err(|reason| StoreError::BadDocument { path: self.blob_path(entry.manifest), reason })
    }

    /// Whether everything that an entry rests on is there, as far as can be told without reading layers and
    /// files: documents are read, the rest need only have its size.
    pub fn usable(&self, entry: &Entry) -> Result<(), StoreError> {
        for (digest, size) in self.references(entry)? {
            let path = self.blob_path(digest);
            match fs::metadata(&path) {
                Ok(facts) if facts.len() == size => {}
                Ok(_) => return Err(StoreError::Damaged { digest }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Missing { digest });
                }
                Err(error) => return Err(error).on("read", &path),
            }
        }
        match entry.note.role {
            Role::Checkpoint => self.checkpoint(entry).map(drop),
            Role::Artifacts | Role::Circumstances | Role::BootReport => Ok(()),
        }
    }

    /// The entries that are [`usable`](Self::usable), and those that are not with the reason; oldest first.
    pub fn sorted_out(&self) -> Result<(Vec<Entry>, Vec<DamagedEntry>), StoreError> {
        self.sort_out(self.entries()?)
    }

    fn sort_out(&self, entries: Vec<Entry>) -> Result<(Vec<Entry>, Vec<DamagedEntry>), StoreError> {
        let (mut usable, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            match self.usable(&entry) {
                Ok(()) => usable.push(entry),
                Err(error) if error.is_damage() => damaged.push((entry, error)),
                Err(error) => return Err(error),
            }
        }
        Ok((usable, damaged))
    }

    /// Every checkpoint that is usable, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        let (usable, _) = self.sorted_out()?;
        let checkpoints = usable.iter().filter(|entry| entry.note.role == Role::Checkpoint);
        checkpoints.map(|entry| self.checkpoint(entry)).collect()
    }

    /// The newest checkpoint of a stage; of any pipeline where none is given.
    pub fn newest(
        &self,
        pipeline: Option<&PipelineName>,
        stage: &StageName,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let entry = self.entries()?.into_iter().rev().find(|entry| {
            entry.note.role == Role::Checkpoint
                && entry.note.stage == *stage
                && pipeline.is_none_or(|pipeline| entry.note.pipeline == *pipeline)
        });
        entry.map(|entry| self.checkpoint(&entry)).transpose()
    }

    /// Takes everything out of the index that is not usable, so that a build makes it anew; gives what went.
    pub fn forget_damaged(&self) -> Result<Vec<DamagedEntry>, StoreError> {
        self.update(|entries| self.sort_out(entries))
    }

    /// Puts a blob out of the way if its bytes are wrong: what rests on it is no longer usable. The bytes stay
    /// until the next collection.
    pub fn set_aside(&self, broken: Digest) -> Result<(), StoreError> {
        let path = self.blob_path(broken);
        let _guard = self.guard().on("lock", &self.root)?;
        match self.check(broken) {
            Ok(false) => {}
            // Another process has set it aside, or has made it anew.
            Ok(true) | Err(StoreError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let aside = self.blob_folder().join(format!("{ASIDE}{}", broken.hex()));
        rename_durably(&*self.disk, &path, &aside).on("rename", &path)
    }

    /// The entries that the manifests among the blobs tell of, for when the index is lost.
    pub(super) fn recovered_entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut documents = Vec::new();
        for (digest, size) in self.blobs()? {
            if size <= LARGEST_MANIFEST
                && let Ok(document) = self.get(digest)
            {
                let path = self.blob_path(digest);
                let written = fs::metadata(&path).and_then(|facts| facts.modified()).on("read", &path)?;
                let since = written.duration_since(UNIX_EPOCH).unwrap_or_default();
                documents.push((since, digest, document));
            }
        }
        documents.sort();
        let mut entries: Vec<Entry> = Vec::new();
        // What belongs to a checkpoint was written before it.
        for _ in 0..2 {
            for (written, digest, document) in &documents {
                let created = i64::try_from(written.as_secs()).unwrap_or_default();
                if !entries.iter().any(|entry| entry.manifest == *digest) {
                    entries.extend(Entry::recovered(*digest, document, created, &entries));
                }
            }
        }
        Ok(entries)
    }
}
