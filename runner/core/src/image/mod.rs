//! Checkpoints as OCI images (OCI image specification 1.1): documents and their meaning.

mod checkpoint;
mod circumstances;
mod documents;
#[cfg(test)]
mod tests;

pub use checkpoint::{Artifact, Checkpoint, LayerBlob};
pub use circumstances::{
    Circumstances, Environment, MountPoint, Process, ReviewMemory, Setting, SettingFile, StageReview,
    Surroundings,
};
pub use documents::{
    ARTIFACTS_TYPE, BOOT_REPORT_TYPE, CIRCUMSTANCES_TYPE, Documents, Entry, EntryNote, Role,
    attachment_documents, canonical_json, checkpoint_documents, empty_index, is_file_name, oci_layout,
};
