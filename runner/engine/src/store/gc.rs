//! `isokiln gc`: what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};

use isokiln_core::digest::Digest;
use isokiln_core::image::{Entry, Role};
use serde::Serialize;

use super::{IoContext, Store, StoreError};

/// Which checkpoints stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepRule {
    /// This many of the newest of each stage of each pipeline. Pinned ones stay besides.
    pub newest: usize,
}

/// What a collection removed, or would remove.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Entries taken out of the index, as `PIPELINE/STAGE`.
    pub entries: Vec<String>,
    /// Blobs and unfinished files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Folders of old runs.
    pub runs: Vec<String>,
    /// Digests of the layers that no checkpoint has any more.
    #[serde(skip)]
    pub blobs: Vec<Digest>,
}

impl Store {
    /// Forgets checkpoints that the rule does not keep or that are damaged, with their artifacts and reports,
    /// and deletes the blobs that nothing refers to. The caller holds the writer lock.
    pub fn collect(&self, rule: KeepRule, dry_run: bool) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let (entries, damaged) = self.sorted_out()?;
        let name = |entry: &Entry| format!("{}/{}", entry.note.pipeline, entry.note.stage);
        let keeps: Vec<bool> = entries
            .iter()
            .rev()
            .map(|entry| {
                let note = &entry.note;
                match note.role {
                    Role::Checkpoint => {
                        let count = counts.entry(name(entry)).or_default();
                        *count += 1;
                        *count <= rule.newest || note.pinned
                    }
                    // Decided by their checkpoints, below.
                    Role::Artifacts | Role::Circumstances => true,
                    // Reports are per ISO and machine, and small: as many again as machines there may be.
                    Role::BootReport => true,
                }
            })
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let with_checkpoint: BTreeSet<_> = entries
            .iter()
            .zip(&keeps)
            .filter(|(entry, keep)| **keep && entry.note.role == Role::Checkpoint)
            .map(|(entry, _)| (name(entry), entry.note.key))
            .collect();
        let keeps = keeps.into_iter().zip(&entries).map(|(keep, entry)| {
            keep && (!entry.note.role.is_of_a_checkpoint()
                || with_checkpoint.contains(&(name(entry), entry.note.key)))
        });
        let keeps: Vec<bool> = keeps.collect();
        let (kept, gone): (Vec<_>, Vec<_>) = entries.into_iter().zip(keeps).partition(|(_, keep)| *keep);
        let kept: Vec<Entry> = kept.into_iter().map(|(entry, _)| entry).collect();
        let gone: Vec<Entry> = damaged
            .into_iter()
            .map(|(entry, _)| entry)
            .chain(gone.into_iter().map(|(entry, _)| entry))
            .collect();
        report.entries = gone.iter().map(name).collect();

        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        for entry in &kept {
            needed.insert(entry.manifest);
            needed.extend(self.references(entry)?.into_iter().map(|(digest, _)| digest));
        }
        if !dry_run && !gone.is_empty() {
            self.write_entries(&kept)?;
        }
        for file in self.blob_files()? {
            if file.digest.is_some_and(|digest| needed.contains(&digest)) {
                continue;
            }
            report.files += 1;
            report.bytes += file.size;
            report.blobs.extend(file.digest);
            if !dry_run {
                self.disk.remove(&file.path).on("remove", &file.path)?;
            }
        }
        Ok(report)
    }
}
