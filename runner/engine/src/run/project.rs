//! A pipeline file with everything that it refers to on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use isokiln_core::boot::MachineProfile;
use isokiln_core::diagnostic::{Diagnostic, Diagnostics};
use isokiln_core::digest::Digest;
use isokiln_core::pipeline::{Pipeline, Vocabulary};

use super::error::{RunError, sibling_like};
use crate::kinds::Kinds;
use crate::library::MACHINE_PROFILES;
use crate::sandbox::docker::digest_input;

/// A pipeline that was read, with its kinds and the folder that its paths start from.
#[derive(Debug, Clone)]
pub struct Project {
    /// The pipeline file.
    pub file: PathBuf,
    /// What it says.
    pub pipeline: Pipeline,
    /// The kinds that it can use.
    pub kinds: Kinds,
}

/// The machines that ISOs can be booted on.
pub fn machine_profiles() -> Result<Vec<MachineProfile>, Diagnostics> {
    MACHINE_PROFILES
        .iter()
        .map(|(name, text)| {
            let name = name.parse().map_err(|_| Diagnostics::default())?;
            MachineProfile::parse(name, text)
        })
        .collect()
}

impl Project {
    /// Reads a pipeline file.
    pub fn load(file: &Path) -> Result<Self, RunError> {
        let bytes =
            fs::read(file).map_err(|source| RunError::ReadPipeline { path: file.to_owned(), source })?;
        let wrong = |text, diagnostics| RunError::Pipeline { path: file.to_owned(), text, diagnostics };
        let text = String::from_utf8(bytes).map_err(|error| {
            let start = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            // What is not UTF-8 has become one replacement character.
            let span = start..start + char::REPLACEMENT_CHARACTER.len_utf8();
            let mistake = Diagnostic::new("this is not UTF-8", span).help("save the file as UTF-8 text");
            wrong(text, Diagnostics(vec![mistake]))
        })?;
        let kinds = Kinds::for_pipeline(file)?;
        let profiles = machine_profiles().map_err(|diagnostics| RunError::Pipeline {
            path: PathBuf::from("qemu/profiles"),
            text: String::new(),
            diagnostics,
        })?;
        let names: Vec<_> = profiles.into_iter().map(|profile| profile.name).collect();
        let vocabulary = Vocabulary { kinds: &kinds.catalog, profiles: &names };
        let project = match Pipeline::parse(&text, vocabulary) {
            Ok(pipeline) => Self { file: file.to_owned(), pipeline, kinds },
            Err(diagnostics) => return Err(wrong(text, diagnostics)),
        };
        project.missing_inputs().or(|| Some(())).map_err(|diagnostics| wrong(text, diagnostics))?;
        Ok(project)
    }

    /// Files and folders that stages name and that are not there.
    fn missing_inputs(&self) -> Diagnostics {
        let mut out = Diagnostics::default();
        for stage in &self.pipeline.stages {
            for input in &stage.options.inputs {
                let path = self.resolve(&input.path);
                if path.exists() {
                    continue;
                }
                let message = format!("stage {} needs {:?}, which is not there", stage.name, input.path);
                let mistake = Diagnostic::new(message, input.span.clone())
                    .help("paths are relative to the pipeline file's folder");
                let near = sibling_like(Path::new(&input.path), &path);
                out.push(match near {
                    Some(near) => mistake.label(format!("did you mean {near:?}?")),
                    None => mistake,
                });
            }
        }
        out
    }

    /// A path of the pipeline file, on this machine.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Digests of every file and folder that stages name.
    pub(super) fn digest_inputs(&self) -> Result<BTreeMap<String, Digest>, RunError> {
        let mut digests = BTreeMap::new();
        for stage in &self.pipeline.stages {
            for input in &stage.options.inputs {
                if !digests.contains_key(&input.path) {
                    let digest = digest_input(&self.resolve(&input.path)).map_err(|source| {
                        RunError::Input { stage: stage.name.clone(), path: input.path.clone(), source }
                    })?;
                    digests.insert(input.path.clone(), digest);
                }
            }
        }
        Ok(digests)
    }
}
