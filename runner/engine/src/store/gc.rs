//! `isokiln gc`: what nobody needs any more.

use std::collections::BTreeMap;
use std::fs;

use isokiln_core::digest::Digest;
use isokiln_core::image::{Entry, Role};
use serde::Serialize;

use super::blobs::TEMPORARY;
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
    /// Forgets checkpoints that the rule does not keep, with their artifacts, and deletes the blobs that
    /// nothing refers to. Reports of boot tests stay. The caller holds the writer lock.
    pub fn collect(&self, rule: KeepRule, dry_run: bool) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        let mut counts: BTreeMap<(u8, String), usize> = BTreeMap::new();
        let entries = self.entries()?;
        let keeps: Vec<bool> = entries
            .iter()
            .rev()
            .map(|entry| {
                let note = &entry.note;
                let role = match note.role {
                    Role::Checkpoint => 0,
                    Role::Artifacts => 1,
                    // Reports are per ISO and machine, and small: as many again as machines there may be.
                    Role::BootReport => return true,
                };
                let count = counts.entry((role, format!("{}/{}", note.pipeline, note.stage))).or_default();
                *count += 1;
                *count <= rule.newest || note.pinned
            })
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let (kept, gone): (Vec<_>, Vec<_>) = entries.into_iter().zip(keeps).partition(|(_, keep)| *keep);
        let kept: Vec<Entry> = kept.into_iter().map(|(entry, _)| entry).collect();
        report.entries =
            gone.iter().map(|(entry, _)| format!("{}/{}", entry.note.pipeline, entry.note.stage)).collect();

        let mut needed: Vec<Digest> = Vec::new();
        for entry in &kept {
            needed.push(entry.manifest);
            // A manifest that cannot be read protects nothing, but neither does it stop the collection.
            if let Ok(manifest) = self.get(entry.manifest)
                && let Ok(blobs) = Entry::references(&manifest)
            {
                needed.extend(blobs.into_iter().map(|(digest, _)| digest));
            }
        }
        needed.sort();
        if !dry_run && !gone.is_empty() {
            let manifests: Vec<_> = kept.iter().map(|entry| entry.manifest).collect();
            self.retain(|entry| manifests.contains(&entry.manifest))?;
        }
        let folder = self.blob_folder();
        for file in fs::read_dir(&folder).on("read", &folder)? {
            let file = file.on("read", &folder)?;
            let name = file.file_name().to_string_lossy().into_owned();
            let digest: Option<Digest> = format!("sha256:{name}").parse().ok();
            let unneeded = match digest {
                Some(digest) => needed.binary_search(&digest).is_err(),
                None => name.starts_with(TEMPORARY),
            };
            if unneeded {
                report.files += 1;
                report.bytes += file.metadata().on("read", &file.path())?.len();
                report.blobs.extend(digest);
                if !dry_run {
                    self.disk.remove(&file.path()).on("remove", &file.path())?;
                }
            }
        }
        Ok(report)
    }
}
