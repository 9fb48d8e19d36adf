//! A pipeline file with everything that it refers to on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use isokiln_core::diagnostic::{Diagnostic, Diagnostics};
use isokiln_core::digest::Digest;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::{Pipeline, Stage, Vocabulary};
use isokiln_core::suggest::nearest;

use super::boot_test::have_machines;
use super::error::{RunError, sibling_like};
use crate::boot::can_compare;
use crate::kinds::Kinds;
use crate::sandbox::docker::digest_input;
use crate::testbed::Testbed;

/// A pipeline that was read, with its kinds and the folder that its paths start from.
#[derive(Debug, Clone)]
pub struct Project {
    /// The pipeline file.
    pub file: PathBuf,
    /// What it says.
    pub pipeline: Pipeline,
    /// The kinds that it can use.
    pub kinds: Kinds,
    /// What its ISO can be tested on and for.
    pub testbed: Testbed,
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
        let testbed = Testbed::beside(file.parent().unwrap_or(Path::new("")))?;
        let names = testbed.profile_names();
        let vocabulary = Vocabulary { kinds: &kinds.catalog, profiles: &names, checks: &testbed.checks };
        let mut project = match Pipeline::parse(&text, vocabulary) {
            Ok(pipeline) => Self { file: file.to_owned(), pipeline, kinds, testbed },
            Err(diagnostics) => return Err(wrong(text, diagnostics)),
        };
        project.missing_inputs().or(|| Some(())).map_err(|diagnostics| wrong(text, diagnostics))?;
        if let Some(wanted) = &mut project.pipeline.boot_test {
            let folder = file.parent().unwrap_or(Path::new(""));
            wanted.checks = wanted.checks.drain(..).map(|check| check.beside(folder)).collect();
            can_compare(&wanted.checks).map_err(RunError::Picture)?;
            have_machines(&wanted.checks, &project.testbed.named(&wanted.profiles))?;
        }
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

    /// The stage of this name.
    pub fn stage(&self, name: &StageName) -> Result<&Stage, RunError> {
        self.pipeline.stage(name.as_str()).ok_or_else(|| {
            let names = self.pipeline.stages.iter().map(|stage| stage.name.as_str());
            let meant = nearest(name.as_str(), names).map(str::to_owned);
            RunError::NoSuchStage { given: name.to_string(), meant }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipelines_of_the_repository_are_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let project =
                    Project::load(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                project.digest_inputs().unwrap();
                names.push(project.pipeline.name.to_string());
            }
        }
        names.sort();
        assert_eq!(names, ["ailinux", "ailinux-installer-only", "ailinux-ubuntu", "minimal"]);
    }

    #[test]
    fn a_check_that_no_machine_can_be_asked_is_refused_before_anything_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        let text = "name = \"x\"\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\n\
                    [[stage]]\nname = \"base\"\nuses = \"bootstrap\"\n[[stage]]\nname = \"iso\"\nuses = \"iso\"\n\
                    [boot-test]\nprofiles = [\"uefi-cd\"]\nchecks = [\"secure-boot\"]\n";
        std::fs::write(&path, text).unwrap();
        let error = Project::load(&path).unwrap_err();
        assert!(matches!(&error, RunError::NoMachineFor { check } if check == "secure-boot"), "{error}");
        assert_eq!(error.exit_code(), isokiln_core::exit::USAGE);
        std::fs::write(&path, text.replace("uefi-cd", "uefi-secureboot")).unwrap();
        Project::load(&path).unwrap();
    }
}
