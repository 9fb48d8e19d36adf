//! What a checkpoint is to the rest of the program.

use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Digest};
use crate::names::{PipelineName, RunId, StageName};
use crate::plan::StageInputs;

/// The root file system after a stage: layers from bottom to top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Pipeline that made it.
    pub pipeline: PipelineName,
    /// Stage that made it.
    pub stage: StageName,
    /// The stages that led to it, itself last.
    pub chain: Vec<StageName>,
    /// What it depended on.
    pub inputs: StageInputs,
    /// Bottom to top.
    pub layers: Vec<LayerBlob>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Run that made it.
    pub run: RunId,
    /// Whether the user rolled back to it.
    pub pinned: bool,
}

impl Checkpoint {
    /// Identities of the layers, bottom to top.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// Bytes of all layers as stored.
    pub fn size_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// One layer as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// OCI media type, which names the compression.
    pub media_type: String,
}

/// A file that left the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// File name.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}
