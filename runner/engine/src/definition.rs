//! Definitions in TOML files: those inside the binary, and those of a project.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isokiln_core::diagnostic::Diagnostics;

/// Why a definition of the project cannot be used: a profile, a check, a rule.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// Its file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file is wrong.
    #[error("{} is not valid", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it.
        diagnostics: Diagnostics,
    },
}

/// A file with a definition in it.
pub(crate) struct Definition {
    /// Its file's name without the end.
    name: String,
    path: PathBuf,
    text: String,
}

impl Definition {
    /// One that comes with isokiln.
    pub(crate) fn bundled(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), path: PathBuf::from(format!("{name}.toml")), text: text.to_owned() }
    }

    /// One of the project; `None` where there is no such file.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>, DefinitionError> {
        match fs::read_to_string(path) {
            Ok(text) => {
                let name =
                    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
                Ok(Some(Self { name, path: path.to_owned(), text }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DefinitionError::Read { path: path.to_owned(), source }),
        }
    }

    /// What it says.
    pub(crate) fn read<T>(
        self,
        parse: impl FnOnce(&str, &str) -> Result<T, Diagnostics>,
    ) -> Result<T, DefinitionError> {
        parse(&self.name, &self.text).map_err(|diagnostics| DefinitionError::Wrong {
            path: self.path,
            text: self.text,
            diagnostics,
        })
    }
}

/// The TOML files of a folder, in the order of their names; none where there is no such folder.
pub(crate) fn own(folder: &Path) -> Result<Vec<Definition>, DefinitionError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| DefinitionError::Read { path, source }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(read(folder))? {
        let path = entry.map_err(read(folder))?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().filter_map(|path| Definition::at(path).transpose()).collect()
}
