//! `isokiln gc`: what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};

use isokiln_core::digest::Digest;
use isokiln_core::image::{Checkpoint, Entry, Role};
use serde::Serialize;

use super::blobs::BlobFile;
use super::{IoContext, Store, StoreError};

/// Which checkpoints stay. Besides, the newest of each stage and the pinned ones always do, with all that they rest on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepRule {
    /// This many of the newest of each stage of each pipeline.
    pub newest: usize,
    /// Those made since then, in seconds since 1970.
    pub since: Option<i64>,
    /// Of the others only so many that the blobs take no more bytes than this; the oldest go first.
    pub max_bytes: Option<u64>,
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
    /// Bytes of the blobs that stay.
    pub kept_bytes: u64,
    /// Who holds more bytes than the rule allows; empty where it is kept.
    pub held_by: Vec<Holding>,
}

/// Bytes that cannot be freed, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The first stage whose newest or pinned checkpoint, or boot report, needs them, as `PIPELINE/STAGE`.
    pub stage: String,
    /// Bytes.
    pub bytes: u64,
}

/// What a collection will do.
struct Collection {
    /// Files that nothing in the index refers to.
    garbage: Vec<BlobFile>,
    /// The index afterwards.
    kept: Vec<Entry>,
    /// Files that nothing refers to then.
    freed: Vec<BlobFile>,
    report: GcReport,
}

impl Store {
    /// Forgets checkpoints that the rule does not keep or that are damaged, with their artifacts and reports,
    /// and deletes the blobs that nothing refers to. The caller holds the writer lock alone.
    ///
    /// On a full disk there is no room to write the shorter index: what frees some without it goes first, and if that is
    /// not enough, the store's reserve does.
    pub fn collect(&self, rule: KeepRule, dry_run: bool) -> Result<GcReport, StoreError> {
        let _guard = self.guard().on("lock", self.root())?;
        let Collection { garbage, kept, freed, report } = self.plan_collection(rule)?;
        if dry_run {
            return Ok(report);
        }
        self.delete(&garbage)?;
        if !report.entries.is_empty() {
            self.write_fewer_entries(&kept)?;
        }
        self.delete(&freed)?;
        self.keep_reserve();
        Ok(report)
    }

    /// The checkpoints that stay, or would stay, by that rule.
    pub fn kept_by(&self, rule: KeepRule) -> Result<Vec<Checkpoint>, StoreError> {
        let kept = self.plan_collection(rule)?.kept.into_iter();
        let checkpoints = kept.filter(|entry| entry.note.role == Role::Checkpoint);
        checkpoints.map(|entry| self.checkpoint(&entry)).collect()
    }

    fn delete(&self, files: &[BlobFile]) -> Result<(), StoreError> {
        files.iter().try_for_each(|file| self.disk.remove(&file.path).on("remove", &file.path))
    }

    fn plan_collection(&self, rule: KeepRule) -> Result<Collection, StoreError> {
        let (usable, damaged) = self.sorted_out()?;
        let mut references = BTreeMap::new();
        for entry in &usable {
            let mut blobs = self.references(entry)?;
            blobs.push((entry.manifest, entry.size));
            references.insert(entry.manifest, blobs);
        }
        let entries = usable.iter().map(|entry| (entry, references[&entry.manifest].as_slice())).collect();
        let (keeps, held_by) = Choice::new(entries).decide(rule);
        let (kept, gone): (Vec<_>, Vec<_>) = usable.into_iter().zip(keeps).partition(|(_, keep)| *keep);
        let kept: Vec<Entry> = kept.into_iter().map(|(entry, _)| entry).collect();
        let gone = gone.into_iter().map(|(entry, _)| entry);
        let damaged: Vec<Entry> = damaged.into_iter().map(|(entry, _)| entry).collect();

        // What is damaged may still refer to something, as far as can be told.
        let of_damaged = damaged.iter().flat_map(|entry| {
            let blobs = self.references(entry).unwrap_or_default().into_iter().map(|(digest, _)| digest);
            blobs.chain([entry.manifest])
        });
        let of_usable = references.values().flatten().map(|(digest, _)| *digest);
        let before: BTreeSet<Digest> = of_damaged.chain(of_usable).collect();
        let after: BTreeSet<Digest> = kept
            .iter()
            .flat_map(|entry| {
                references.get(&entry.manifest).into_iter().flatten().map(|(digest, _)| *digest)
            })
            .collect();
        let has =
            |set: &BTreeSet<Digest>, file: &BlobFile| file.digest.is_some_and(|digest| set.contains(&digest));
        let (stays, goes): (Vec<_>, Vec<_>) =
            self.blob_files()?.into_iter().partition(|file| has(&after, file));
        let report = GcReport {
            entries: damaged.iter().cloned().chain(gone).map(|entry| name(&entry)).collect(),
            files: goes.len(),
            bytes: goes.iter().map(|file| file.size).sum(),
            kept_bytes: stays.iter().map(|file| file.size).sum(),
            held_by,
        };
        let (freed, garbage) = goes.into_iter().partition(|file| has(&before, file));
        Ok(Collection { garbage, kept, freed, report })
    }
}

fn name(entry: &Entry) -> String {
    format!("{}/{}", entry.note.pipeline, entry.note.stage)
}

/// Entries with the blobs that they refer to, oldest first, and which of them stay.
struct Choice<'e> {
    entries: Vec<(&'e Entry, &'e [(Digest, u64)])>,
    keeps: Vec<bool>,
    /// The newest checkpoint of each stage and the pinned ones: what a next build goes on from.
    live: Vec<bool>,
}

impl<'e> Choice<'e> {
    fn new(entries: Vec<(&'e Entry, &'e [(Digest, u64)])>) -> Self {
        let mut seen = BTreeSet::new();
        let mut live: Vec<bool> = entries
            .iter()
            .rev()
            .map(|(entry, _)| {
                let is_newest = entry.note.role == Role::Checkpoint && seen.insert(name(entry));
                is_newest || entry.note.pinned
            })
            .collect();
        live.reverse();
        // Reports are per ISO and machine, and small: as many again as machines there may be.
        let keeps = vec![true; entries.len()];
        Self { entries, keeps, live }
    }

    fn decide(mut self, rule: KeepRule) -> (Vec<bool>, Vec<Holding>) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for index in self.checkpoints().into_iter().rev() {
            let (entry, _) = self.entries[index];
            let count = counts.entry(name(entry)).or_default();
            *count += 1;
            let is_young = rule.since.is_some_and(|since| entry.note.created >= since);
            if *count > rule.newest && !is_young && !self.live[index] {
                self.forget(index);
            }
        }
        self.forget_what_lost_its_checkpoint();
        let Some(limit) = rule.max_bytes else { return (self.keeps, Vec::new()) };
        for index in self.checkpoints() {
            if self.bytes() <= limit {
                break;
            }
            if self.keeps[index] && !self.live[index] {
                self.forget(index);
                self.forget_what_lost_its_checkpoint();
            }
        }
        let held_by = if self.bytes() > limit { self.holdings() } else { Vec::new() };
        (self.keeps, held_by)
    }

    fn forget(&mut self, index: usize) {
        self.keeps[index] = false;
    }

    /// Places of the checkpoints, oldest first.
    fn checkpoints(&self) -> Vec<usize> {
        let roles = self.entries.iter().map(|(entry, _)| entry.note.role).enumerate();
        roles.filter(|(_, role)| *role == Role::Checkpoint).map(|(index, _)| index).collect()
    }

    fn kept(&self) -> impl Iterator<Item = &(&'e Entry, &'e [(Digest, u64)])> {
        self.entries.iter().zip(&self.keeps).filter(|(_, keep)| **keep).map(|(entry, _)| entry)
    }

    fn forget_what_lost_its_checkpoint(&mut self) {
        let kept = self.kept().filter(|(entry, _)| entry.note.role == Role::Checkpoint);
        let kept: BTreeSet<_> = kept.map(|(entry, _)| (name(entry), entry.note.key)).collect();
        for ((entry, _), keep) in self.entries.iter().zip(&mut self.keeps) {
            *keep &= !entry.note.role.is_of_a_checkpoint() || kept.contains(&(name(entry), entry.note.key));
        }
    }

    /// Bytes of all blobs that are needed.
    fn bytes(&self) -> u64 {
        let blobs: BTreeMap<_, _> = self.kept().flat_map(|(_, blobs)| blobs.iter().copied()).collect();
        blobs.values().sum()
    }

    /// Who needs the blobs, each counted once, for the oldest that does; the most first.
    fn holdings(&self) -> Vec<Holding> {
        let mut seen = BTreeSet::new();
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for (entry, blobs) in self.kept() {
            let own = blobs.iter().filter(|(digest, _)| seen.insert(*digest)).map(|(_, size)| size);
            *bytes.entry(name(entry)).or_default() += own.sum::<u64>();
        }
        let mut holdings: Vec<_> = bytes.into_iter().map(|(stage, bytes)| Holding { stage, bytes }).collect();
        holdings.sort_by_key(|holding| std::cmp::Reverse(holding.bytes));
        holdings
    }
}
