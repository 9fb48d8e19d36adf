//! `isokiln verify`: every byte against its digest.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::thread;

use isokiln_core::digest::{DiffId, Digest, Hasher};
use isokiln_core::image::{LayerBlob, Role};
use serde::Serialize;

use super::{Store, StoreError};

/// What `verify` found.
#[derive(Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Blobs read.
    pub blobs: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Checkpoints and other manifests followed.
    pub manifests: usize,
    /// What is wrong with the index; absent where it is well. Manifests are then looked for among the blobs.
    pub index: Option<String>,
    /// What is wrong with blobs; empty where all is well.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.index.is_none() && self.damage.is_empty()
    }
}

/// Something wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// The blob concerned.
    pub blob: Digest,
    /// Stages whose checkpoints rest on it, as `PIPELINE/STAGE`.
    pub stages: Vec<String>,
    /// What is wrong.
    pub problem: String,
}

impl Store {
    /// Reads the whole store: every blob against its name, every manifest against its blobs, every
    /// layer against its diff-id. `progress` is told the bytes read since the last time.
    pub fn verify(&self, progress: impl Fn(u64) + Sync) -> Result<VerifyReport, StoreError> {
        let (entries, index) = match self.entries() {
            Ok(entries) => (entries, None),
            Err(error @ StoreError::BadIndex { .. }) => (self.recovered_entries()?, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let mut layers: BTreeMap<Digest, LayerBlob> = BTreeMap::new();
        let mut report = VerifyReport { manifests: entries.len(), index, ..VerifyReport::default() };
        let mut bad: BTreeMap<Digest, String> = BTreeMap::new();
        for entry in &entries {
            let user = format!("{}/{}", entry.note.pipeline, entry.note.stage);
            let mut use_blob = |digest| {
                let list: &mut Vec<_> = users.entry(digest).or_default();
                if !list.contains(&user) {
                    list.push(user.clone());
                }
            };
            use_blob(entry.manifest);
            match self.references(entry) {
                Ok(blobs) => blobs.iter().for_each(|(digest, _)| use_blob(*digest)),
                Err(error) if error.broken_blob().is_some() => continue,
                Err(error) if error.is_damage() => drop(bad.insert(entry.manifest, error.to_string())),
                Err(error) => return Err(error),
            }
            if entry.note.role == Role::Checkpoint {
                match self.checkpoint(entry) {
                    Ok(checkpoint) => {
                        layers.extend(checkpoint.layers.into_iter().map(|layer| (layer.digest, layer)));
                    }
                    Err(error) if error.broken_blob().is_some() => {}
                    Err(error) => drop(bad.insert(entry.manifest, error.to_string())),
                }
            }
        }
        let mut present = self.blobs()?;
        for digest in users.keys() {
            if !present.iter().any(|(there, _)| there == digest) {
                bad.insert(*digest, "the blob is missing".to_owned());
            }
        }
        // Big blobs first, so that the threads end together.
        present.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        report.blobs = present.len();
        report.bytes = present.iter().map(|(_, size)| size).sum();
        let queue = Mutex::new(present.into_iter());
        let found = Mutex::new(bad);
        let next = || queue.lock().ok().and_then(|mut queue| queue.next());
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((digest, size)) = next() {
                        let problem = self.problem_of(digest, layers.get(&digest));
                        if let (Some(problem), Ok(mut found)) = (problem, found.lock()) {
                            found.entry(digest).or_insert(problem);
                        }
                        progress(size);
                    }
                });
            }
        });
        let found = found.into_inner().unwrap_or_default();
        report.damage = found
            .into_iter()
            .map(|(blob, problem)| Damage { blob, stages: users.remove(&blob).unwrap_or_default(), problem })
            .collect();
        Ok(report)
    }

    /// Sees to it that the next build makes anew what is damaged: blobs with wrong bytes are set aside, and
    /// an index that is lost is written anew from the manifests. The caller holds the writer lock; what
    /// another process has repaired since the report is left alone.
    pub fn repair(&self, report: &VerifyReport) -> Result<(), StoreError> {
        for damage in &report.damage {
            self.set_aside(damage.blob)?;
        }
        match self.entries() {
            Err(StoreError::BadIndex { .. }) => self.write_entries(&self.recovered_entries()?),
            other => other.map(drop),
        }
    }

    fn problem_of(&self, digest: Digest, layer: Option<&LayerBlob>) -> Option<String> {
        match self.check(digest) {
            Ok(true) => {}
            Ok(false) => return Some("the bytes are not those of the digest".to_owned()),
            Err(error) => return Some(error.to_string()),
        }
        let layer = layer?;
        match self.diff_id_of(layer) {
            Ok(diff_id) if diff_id == layer.diff_id => None,
            Ok(other) => Some(format!("the layer unpacks to {other}, not to {}", layer.diff_id)),
            Err(error) => Some(error.to_string()),
        }
    }

    fn diff_id_of(&self, layer: &LayerBlob) -> Result<DiffId, StoreError> {
        let mut reader = self.layer_reader(layer)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(DiffId(hasher.finish())),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) => return Err(StoreError::from_read(error, &self.blob_path(layer.digest))),
            }
        }
    }
}
