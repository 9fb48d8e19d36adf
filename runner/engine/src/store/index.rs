//! The index: which checkpoints, artifacts and boot reports the store holds.

use std::fs;

use isokiln_core::digest::Digest;
use isokiln_core::image::{Artifact, Checkpoint, Documents, Entry, EntryNote, Role};
use isokiln_core::names::{PipelineName, StageName};

use super::{IoContext, Store, StoreError};

impl Store {
    /// Every entry, oldest first.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let path = self.index_path();
        let document = fs::read(&path).on("read", &path)?;
        Entry::read_index(&document).map_err(|reason| StoreError::BadDocument { path, reason })
    }

    fn write_entries(&self, entries: &[Entry]) -> Result<(), StoreError> {
        self.replace(&self.index_path(), &Entry::write_index(entries))
    }

    /// Stores a manifest and what it is made of, then enters it in the index. An older entry with the
    /// same key and role gives way.
    pub fn add(&self, documents: &Documents, note: EntryNote) -> Result<Entry, StoreError> {
        for blob in &documents.blobs {
            self.put(blob)?;
        }
        let manifest = self.put(&documents.manifest)?;
        let entry = Entry { manifest, size: documents.manifest.len() as u64, note };
        let mut entries = self.entries()?;
        entries.retain(|other| {
            (other.note.role, other.note.key) != (entry.note.role, entry.note.key)
                || other.note.pipeline != entry.note.pipeline
                || other.note.stage != entry.note.stage
        });
        entries.push(entry.clone());
        self.write_entries(&entries)?;
        Ok(entry)
    }

    /// Keeps the entries that pass; gives those that went.
    pub fn retain(&self, mut keep: impl FnMut(&Entry) -> bool) -> Result<Vec<Entry>, StoreError> {
        let (kept, gone): (Vec<_>, Vec<_>) = self.entries()?.into_iter().partition(|entry| keep(entry));
        if !gone.is_empty() {
            self.write_entries(&kept)?;
        }
        Ok(gone)
    }

    /// Changes entries in place.
    pub fn edit(&self, mut edit: impl FnMut(&mut Entry)) -> Result<(), StoreError> {
        let mut entries = self.entries()?;
        entries.iter_mut().for_each(&mut edit);
        self.write_entries(&entries)
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

    /// Every checkpoint, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        self.entries()?
            .iter()
            .filter(|entry| entry.note.role == Role::Checkpoint)
            .map(|entry| self.checkpoint(entry))
            .collect()
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

    /// Takes everything out of the index that rests on a broken blob, so that the next build makes it
    /// anew; gives the entries that went.
    pub fn forget_blob(&self, broken: Digest) -> Result<Vec<Entry>, StoreError> {
        let gone = self.retain(|entry| {
            entry.manifest != broken
                && self
                    .get(entry.manifest)
                    .ok()
                    .and_then(|manifest| Entry::references(&manifest).ok())
                    .is_some_and(|blobs| blobs.iter().all(|(digest, _)| *digest != broken))
        })?;
        let path = self.blob_path(broken);
        if path.exists() {
            self.disk.remove(&path).on("remove", &path)?;
        }
        Ok(gone)
    }
}
