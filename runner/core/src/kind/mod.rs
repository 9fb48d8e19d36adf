//! Stage kinds: what a kind declares about itself, and the options that a stage gives it.
//!
//! A kind is a folder with `kind.toml` and `run.sh`; adding one needs no Rust. This module reads the
//! declaration; the folder itself is found and loaded by the engine.

mod manifest;
mod options;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::KindName;

pub use manifest::{OptionSpec, OptionType};
pub(crate) use options::read_options;
pub use options::{InputPath, StageOptions};

/// What a stage kind says of itself in `kind.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// Name of its folder.
    pub name: KindName,
    /// One line.
    pub summary: String,
    /// Paragraphs for `isokiln kinds NAME`; may be empty.
    pub description: String,
    /// What it does with the root file system.
    pub rootfs: RootfsUse,
    /// What its container may do.
    pub privilege: Privilege,
    /// Whether its container has a network.
    pub network: bool,
    /// Whether its result depends on the package archive, whose state then is part of the stage key.
    pub archive: bool,
    /// In the order of the file.
    pub options: Vec<OptionSpec>,
    /// Digest of the kind's folder: `kind.toml`, `run.sh` and whatever lies beside them.
    pub digest: Digest,
}

/// What a kind does with the root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootfsUse {
    /// Makes a new one: the stage has no parent.
    New,
    /// Changes its parent's.
    Change,
    /// Only reads its parent's, to make artifacts from it.
    Read,
}

/// What a stage's container may do; each level includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// Write any file in the root file system.
    None,
    /// Run programs of the root file system in it, as any user.
    Chroot,
    /// Everything that the engine can grant, mounting included.
    Full,
}

/// The kinds that a pipeline can use, by name.
#[derive(Debug, Clone, Default)]
pub struct KindCatalog(pub BTreeMap<KindName, Kind>);

impl KindCatalog {
    /// The kind of that name.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.0.values().find(|kind| kind.name.as_str() == name)
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(KindName::as_str).collect()
    }
}
