//! Finding stage kinds: those inside the binary, and those of the project beside its pipeline files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use isokiln_core::diagnostic::Diagnostics;
use isokiln_core::digest::{Digest, Hasher};
use isokiln_core::kind::{Kind, KindCatalog};
use isokiln_core::names::KindName;
use walkdir::WalkDir;

use crate::library::BUNDLED_KINDS;
use crate::sandbox::ContainerFile;

/// Folder of a project's kinds, beside its pipeline files.
const FOLDER: &str = "stages";
/// The script that prepares a layer, as a stage's container sees it.
const LAYER_SCRIPT: &str = "/isokiln/kind/layer.sh";

/// Why a kind cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// Its folder or one of its files cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its folder's name is not one for a kind.
    #[error("{}: {reason}", path.display())]
    BadName {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Its `kind.toml` is wrong.
    #[error("{} is not a valid kind", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it.
        diagnostics: Diagnostics,
    },
    /// It has no script.
    #[error("{} has no run.sh", folder.display())]
    NoScript {
        /// Its folder.
        folder: PathBuf,
    },
}

/// Kinds with the files that their stages need.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    /// What they declare.
    pub catalog: KindCatalog,
    files: BTreeMap<KindName, Vec<ContainerFile>>,
}

impl Kinds {
    /// The kinds inside the binary.
    pub fn bundled() -> Result<Self, KindError> {
        let mut kinds = Self::default();
        for bundled in &BUNDLED_KINDS {
            let files = bundled.files.iter();
            let files = files.map(|(name, text)| ((*name).to_owned(), Bytes::from_static(text.as_bytes())));
            kinds.add(Path::new(bundled.name), bundled.name, files.collect())?;
        }
        Ok(kinds)
    }

    /// The bundled kinds and those in `stages/` beside the pipeline file; the project's own come first.
    pub fn for_pipeline(pipeline: &Path) -> Result<Self, KindError> {
        let mut kinds = Self::bundled()?;
        let folder = pipeline.parent().unwrap_or(Path::new("")).join(FOLDER);
        if !folder.is_dir() {
            return Ok(kinds);
        }
        let read = |source| KindError::Read { path: folder.clone(), source };
        let mut entries: Vec<_> =
            fs::read_dir(&folder).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if path.join("kind.toml").is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                kinds.add(&path, &name, read_folder(&path)?)?;
            }
        }
        Ok(kinds)
    }

    /// Files of a kind, as a stage's container sees them.
    pub fn files(&self, name: &KindName) -> Vec<ContainerFile> {
        self.files.get(name).cloned().unwrap_or_default()
    }

    /// Whether stages of a kind have a script for each layer beneath them, besides their own.
    pub fn prepares_layers(&self, name: &KindName) -> bool {
        self.files.get(name).is_some_and(|files| files.iter().any(|file| file.path == LAYER_SCRIPT))
    }

    fn add(&mut self, folder: &Path, name: &str, files: BTreeMap<String, Bytes>) -> Result<(), KindError> {
        let bad_name = |error: isokiln_core::names::InvalidName| KindError::BadName {
            path: folder.to_owned(),
            reason: error.to_string(),
        };
        let kind_name: KindName = name.parse().map_err(bad_name)?;
        if !files.contains_key("run.sh") {
            return Err(KindError::NoScript { folder: folder.to_owned() });
        }
        let manifest = files
            .get("kind.toml")
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default();
        let kind = Kind::parse(kind_name.clone(), &manifest, digest(&files)).map_err(|diagnostics| {
            KindError::Manifest { path: folder.join("kind.toml"), text: manifest.clone(), diagnostics }
        })?;
        let files = files.into_iter().map(|(name, bytes)| ContainerFile {
            path: format!("/isokiln/kind/{name}"),
            executable: false,
            bytes,
        });
        self.files.insert(kind_name.clone(), files.collect());
        self.catalog.0.insert(kind_name, kind);
        Ok(())
    }
}

fn read_folder(folder: &Path) -> Result<BTreeMap<String, Bytes>, KindError> {
    let mut files = BTreeMap::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let read = |source: io::Error| KindError::Read { path: folder.to_owned(), source };
        let entry = entry.map_err(|error| read(error.into()))?;
        if entry.file_type().is_file() {
            let relative =
                entry.path().strip_prefix(folder).map_err(|error| read(io::Error::other(error)))?;
            let bytes = fs::read(entry.path())
                .map_err(|source| KindError::Read { path: entry.path().to_owned(), source })?;
            files.insert(relative.display().to_string(), Bytes::from(bytes));
        }
    }
    Ok(files)
}

fn digest(files: &BTreeMap<String, Bytes>) -> Digest {
    let mut hasher = Hasher::new();
    for (name, bytes) in files {
        hasher.update(format!("{name} {}\n", bytes.len()).as_bytes());
        hasher.update(bytes);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_kinds_are_valid_and_documented() {
        let kinds = Kinds::bundled().unwrap();
        assert_eq!(
            kinds.catalog.names(),
            [
                "bootstrap",
                "branding",
                "calamares",
                "desktop",
                "files",
                "iso",
                "live",
                "network",
                "packages",
                "script"
            ]
        );
        for kind in kinds.catalog.0.values() {
            assert!(!kind.description.trim().is_empty(), "{} has no description", kind.name);
            assert!(kind.options.iter().all(|option| option.help.ends_with('.')), "{}", kind.name);
        }
    }

    #[test]
    fn a_project_adds_kinds_and_replaces_bundled_ones() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str, files: &[(&str, &str)]| {
            let kind = folder.path().join("stages").join(name);
            fs::create_dir_all(&kind).unwrap();
            files.iter().for_each(|(file, text)| fs::write(kind.join(file), text).unwrap());
        };
        add("theme", &[("kind.toml", "summary = \"Theme\"\n"), ("run.sh", "true\n"), ("logo.svg", "<svg/>")]);
        add("script", &[("kind.toml", "summary = \"Mine\"\n"), ("run.sh", "true\n")]);
        let pipeline = folder.path().join("x.toml");
        let kinds = Kinds::for_pipeline(&pipeline).unwrap();
        assert_eq!(kinds.catalog.get("script").unwrap().summary, "Mine");
        let theme = &kinds.catalog.get("theme").unwrap().name;
        let files: Vec<_> = kinds.files(theme).into_iter().map(|file| file.path).collect();
        assert_eq!(files, ["/isokiln/kind/kind.toml", "/isokiln/kind/logo.svg", "/isokiln/kind/run.sh"]);

        add("half", &[("kind.toml", "summary = \"No script\"\n")]);
        assert!(matches!(Kinds::for_pipeline(&pipeline), Err(KindError::NoScript { .. })));
        add("half", &[("kind.toml", "sumary = 1\n"), ("run.sh", "")]);
        assert!(matches!(Kinds::for_pipeline(&pipeline), Err(KindError::Manifest { .. })));
    }
}
