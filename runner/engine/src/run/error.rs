//! Everything that can end a command, with its exit code and what to do next.

use std::fs;
use std::path::{Path, PathBuf};

use isokiln_core::boot::{NotAnIso, UnknownCheck};
use isokiln_core::diagnostic::Diagnostics;
use isokiln_core::digest::Digest;
use isokiln_core::exit;
use isokiln_core::names::{RunId, StageName};
use isokiln_core::review::RuleSetError;
use isokiln_core::suggest::nearest;
use isokiln_core::units::show_size;

use super::checkpoints::Which;
use super::room::is_disk_full;
use crate::archive::ArchiveError;
use crate::boot::BootError;
use crate::definition::DefinitionError;
use crate::kinds::KindError;
use crate::review::ConfigError;
use crate::rules::RulesError;
use crate::sandbox::SandboxError;
use crate::sandbox::docker::InputError;
use crate::store::StoreError;

/// What ended a command.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The pipeline file cannot be read.
    #[error("cannot read the pipeline file {}", path.display())]
    ReadPipeline {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The pipeline file is wrong.
    #[error("the pipeline file {} has {} mistake(s)", path.display(), diagnostics.0.len())]
    Pipeline {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it.
        diagnostics: Diagnostics,
    },
    /// A stage kind is wrong.
    #[error(transparent)]
    Kind(#[from] KindError),
    /// A file of the project that a stage needs cannot be read.
    #[error("stage {stage} needs {path:?}")]
    Input {
        /// The stage.
        stage: StageName,
        /// The path as the pipeline file has it.
        path: String,
        /// Why not.
        source: InputError,
    },
    /// A name on the command line is not one of the pipeline's.
    #[error("there is no stage {given:?}")]
    NoSuchStage {
        /// As given.
        given: String,
        /// The nearest that there is.
        meant: Option<String>,
    },
    /// A checkpoint on the command line is not there.
    #[error("there is no checkpoint {}", told(which))]
    NoSuchCheckpoint {
        /// As given.
        which: Which,
        /// Stages that would do.
        known: Vec<String>,
    },
    /// Several checkpoints are meant by what is on the command line.
    #[error("several checkpoints of a stage {:?} are meant", stage.as_str())]
    ManyCheckpoints {
        /// The stage.
        stage: StageName,
        /// Pipelines that have one.
        pipelines: Vec<String>,
    },
    /// A shell on the command line cannot be had while a build works on the stage.
    #[error("stage {stage} is being run by run {run}")]
    StageAtWork {
        /// The stage.
        stage: StageName,
        /// The run.
        run: RunId,
    },
    /// A stage kind on the command line is not known.
    #[error("there is no stage kind {given:?}")]
    NoSuchKind {
        /// As given.
        given: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A machine profile, a check or a rule of the project is wrong.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The rules for reviews cannot be used together.
    #[error(transparent)]
    Rules(RuleSetError),
    /// The configuration of agents is wrong.
    #[error("the configuration of agents cannot be used")]
    Agents(#[source] ConfigError),
    /// A log on the command line cannot be read.
    #[error("cannot read the log {}", path.display())]
    ReadLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A check on the command line is not known.
    #[error(transparent)]
    NoSuchCheck(#[from] UnknownCheck),
    /// A picture to compare screens with cannot be used.
    #[error(transparent)]
    Picture(BootError),
    /// Two checks on the command line have the same name.
    #[error("two checks are called {name:?}")]
    SameCheck {
        /// The name.
        name: String,
    },
    /// A check can be asked on none of the machines.
    #[error("the check {check} can be asked on none of the machines")]
    NoMachineFor {
        /// Its name.
        check: String,
    },
    /// A machine profile on the command line is not known.
    #[error("there is no machine profile {given:?}")]
    NoSuchProfile {
        /// As given.
        given: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A file given as an ISO is none.
    #[error("{}", path.display())]
    Iso {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: NotAnIso,
    },
    /// The archive cannot be used.
    #[error("stage {stage} cannot be planned")]
    Archive {
        /// The first stage that needs the archive.
        stage: StageName,
        /// Why not.
        source: ArchiveError,
    },
    /// The engine failed outside of a stage's own script.
    #[error("{what}")]
    Sandbox {
        /// What was being done.
        what: String,
        /// What happened.
        source: SandboxError,
    },
    /// The store failed.
    #[error("{what}")]
    Store {
        /// What was being done.
        what: String,
        /// What happened.
        source: StoreError,
    },
    /// A blob was found damaged and set aside; the build plans again.
    #[error("blob {blob} in the store is damaged")]
    DamagedCheckpoint {
        /// The blob.
        blob: Digest,
    },
    /// A stage failed, and the one before it is run again too; the build plans again.
    #[error("stage {stage} rolls back to {to}")]
    RolledBack {
        /// The stage.
        stage: StageName,
        /// The stage before it.
        to: StageName,
    },
    /// A stage failed.
    #[error("stage {stage} failed: {cause}")]
    Stage {
        /// The stage.
        stage: StageName,
        /// Why, in one line.
        cause: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A stage found no room on a file system.
    #[error("stage {stage} cannot go on: {what}")]
    NoRoom {
        /// The stage.
        stage: StageName,
        /// Which file system, and what is left there.
        what: String,
        /// What would make room, with sizes.
        advice: String,
        /// What could not be done for want of it.
        source: Box<RunError>,
    },
    /// Two stages leave a file of the same name.
    #[error("stages {first} and {second} both leave a file {name:?}")]
    SameArtifact {
        /// The stage whose file was there first.
        first: StageName,
        /// The other stage.
        second: StageName,
        /// The file's name.
        name: String,
    },
    /// A file of the run cannot be written or read.
    #[error("cannot write {}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No run was ever begun in the folder.
    #[error("there is no run here yet")]
    NoRuns,
    /// A run on the command line is not known, or not the only one that is called so.
    #[error("{} {given:?}", if *several { "several runs begin with" } else { "there is no run" })]
    NoSuchRun {
        /// As given.
        given: String,
        /// Those that may be meant, newest first.
        known: Vec<String>,
        /// Whether more than one fits.
        several: bool,
    },
    /// A run that is to be followed or stopped has ended.
    #[error("run {run} is not running")]
    NotRunning {
        /// Its id.
        run: String,
    },
    /// A run goes on, but does not answer.
    #[error("run {run} does not answer")]
    NoAnswer {
        /// Its id.
        run: String,
        /// Its process, where it is known.
        pid: Option<u32>,
        /// What the system said.
        source: std::io::Error,
    },
    /// The supervisor could not be started.
    #[error("the build's supervisor cannot be started")]
    Supervisor(#[source] std::io::Error),
    /// The supervisor has ended without a word.
    #[error("the supervisor of {} has ended without a word: {how}", run.as_ref().map_or("the build".to_owned(), |run| format!("run {run}")))]
    SupervisorGone {
        /// The run, if it had begun.
        run: Option<String>,
        /// How, as far as is known.
        how: String,
    },
    /// A stage on the command line has no log in the run.
    #[error("{} has run in run {run}{}", stage.as_ref().map_or("no stage".to_owned(), |stage| format!("no stage {stage}")), if known.is_empty() { ": it found all checkpoints, or has not come to them" } else { "" })]
    NoLog {
        /// The stage, if one was named.
        stage: Option<String>,
        /// The run.
        run: String,
        /// Stages that have.
        known: Vec<String>,
    },
    /// The network client cannot be set up.
    #[error("cannot set up the network client: {0}")]
    Network(String),
    /// The user asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<RulesError> for RunError {
    fn from(error: RulesError) -> Self {
        match error {
            RulesError::Definition(error) => Self::Definition(error),
            RulesError::Set(error) => Self::Rules(error),
        }
    }
}

impl RunError {
    pub(super) fn sandbox(what: impl Into<String>) -> impl FnOnce(SandboxError) -> Self {
        let what = what.into();
        move |source| Self::Sandbox { what, source }
    }

    pub(super) fn store(what: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let what = what.into();
        move |source| Self::Store { what, source }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ReadPipeline { .. }
            | Self::Pipeline { .. }
            | Self::Kind(_)
            | Self::Definition(_)
            | Self::Rules(_)
            | Self::Agents(_)
            | Self::ReadLog { .. }
            | Self::NoSuchCheck(_)
            | Self::SameCheck { .. }
            | Self::NoMachineFor { .. }
            | Self::Picture(_)
            | Self::Input { .. }
            | Self::NoSuchStage { .. }
            | Self::NoSuchCheckpoint { .. }
            | Self::ManyCheckpoints { .. }
            | Self::NoSuchKind { .. }
            | Self::NoSuchProfile { .. }
            | Self::NoRuns
            | Self::NoSuchRun { .. }
            | Self::NotRunning { .. }
            | Self::NoLog { .. }
            | Self::SameArtifact { .. }
            | Self::Iso { .. } => exit::USAGE,
            Self::Archive { source, .. } if !source.is_network() => exit::USAGE,
            Self::Stage { .. } => exit::STAGE_FAILED,
            Self::Archive { .. }
            | Self::Sandbox { .. }
            | Self::Store { .. }
            | Self::DamagedCheckpoint { .. }
            | Self::RolledBack { .. }
            | Self::NoRoom { .. }
            | Self::StageAtWork { .. }
            | Self::Folder { .. }
            | Self::NoAnswer { .. }
            | Self::Supervisor(_)
            | Self::SupervisorGone { .. }
            | Self::Network(_) => exit::NOT_READY,
            Self::Cancelled => exit::CANCELLED,
        }
    }

    /// The error's sources, the nearest first, without those that say what another has said already.
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut source = std::error::Error::source(self);
        while let Some(inner) = source {
            let text = inner.to_string();
            if !self.to_string().contains(&text) && !causes.iter().any(|cause| cause.contains(&text)) {
                causes.push(text);
            }
            source = inner.source();
        }
        causes
    }

    /// Whether the engine has gone away.
    pub(super) fn is_engine_gone(&self) -> bool {
        matches!(
            self,
            Self::Sandbox {
                source: SandboxError::HungUp { .. }
                    | SandboxError::Unreachable { .. }
                    | SandboxError::ContainerGone { .. },
                ..
            }
        )
    }

    /// What the user can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Stage { hint, .. } => hint.clone(),
            Self::NoSuchStage { meant: Some(meant), .. } => Some(format!("did you mean {meant:?}?")),
            Self::NoSuchStage { .. } => Some("isokiln plan FILE lists the stages".to_owned()),
            Self::NoSuchCheckpoint { known, .. } if known.is_empty() => {
                Some("isokiln build makes checkpoints".to_owned())
            }
            Self::NoSuchCheckpoint { which, known }
                if known.iter().any(|name| name == which.stage.as_str()) =>
            {
                Some("isokiln checkpoint list shows those that there are".to_owned())
            }
            Self::NoSuchCheckpoint { which, known } => Some(nearest_of(which.stage.as_str(), known)),
            Self::ManyCheckpoints { pipelines, .. } if pipelines.len() > 1 => {
                Some(format!("say --pipeline {}", pipelines.join(" or --pipeline ")))
            }
            Self::ManyCheckpoints { .. } => Some("give more digits of the digest".to_owned()),
            Self::StageAtWork { .. } => {
                Some("wait until the build has ended, or give --digest for an earlier checkpoint".to_owned())
            }
            Self::NoSuchKind { given, known } | Self::NoSuchProfile { given, known } => {
                Some(nearest_of(given, known))
            }
            Self::NoRuns => Some("isokiln build FILE begins one; --dir names the folder that holds them".to_owned()),
            Self::NoSuchRun { known, .. } if known.is_empty() => None,
            Self::NoSuchRun { known, .. } => Some(format!("valid: {}", known[..known.len().min(5)].join(", "))),
            Self::NotRunning { .. } => Some("isokiln runs lists them all".to_owned()),
            Self::NoAnswer { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("it is another user's; ask that user, or become root".to_owned())
            }
            Self::NoAnswer { pid: Some(pid), .. } => {
                Some(format!("its process is {pid}; kill -TERM {pid} asks it to stop at once"))
            }
            Self::SupervisorGone { .. } => Some(
                "build again: it removes what is left and goes on from the last checkpoint; isokiln runs says what became of the run"
                    .to_owned(),
            ),
            Self::NoLog { known, .. } if known.is_empty() => {
                Some("isokiln logs --run RUN prints those of an earlier run; isokiln runs lists them".to_owned())
            }
            Self::NoLog { known, .. } => Some(format!("valid: {}", known.join(", "))),
            Self::SameArtifact { .. } => {
                Some("give one of them another name; the kind iso has the option name for that".to_owned())
            }
            Self::Picture(_) => {
                Some("give a PNG file; of a pipeline file, the path starts at its folder".to_owned())
            }
            Self::SameCheck { .. } => {
                Some("leave one out; a pipeline file can give it another name: name = \"…\"".to_owned())
            }
            Self::NoMachineFor { .. } => Some(
                "add a machine with Secure Boot: the profile uefi-secureboot, or one of your own".to_owned(),
            ),
            Self::ReadPipeline { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Some(match sibling_like(path, path) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "give the path of a pipeline file".to_owned(),
                })
            }
            Self::Input { .. } => Some("paths are relative to the pipeline file's folder".to_owned()),
            Self::Iso { source: NotAnIso::NoVolume, .. } => Some("give the path of an ISO image".to_owned()),
            Self::Agents(_) => Some(
                "correct the variable, in the environment or in .env; .env.example explains each".to_owned(),
            ),
            Self::Archive { source, .. } => Some(archive_hint(source)),
            Self::Sandbox { source, .. } => sandbox_hint(source),
            Self::Store { source, .. } => store_hint(source),
            Self::DamagedCheckpoint { .. } | Self::RolledBack { .. } => {
                Some("build again: it makes anew what is damaged".to_owned())
            }
            Self::NoRoom { advice, .. } => Some(advice.clone()),
            Self::Folder { source, .. } if is_disk_full(source) => Some(full_disk_hint()),
            Self::ReadPipeline { .. }
            | Self::Pipeline { .. }
            | Self::Kind(_)
            | Self::Definition(_)
            | Self::Rules(_)
            | Self::ReadLog { .. }
            | Self::NoSuchCheck(_)
            | Self::Iso { .. }
            | Self::Folder { .. }
            | Self::NoAnswer { .. }
            | Self::Supervisor(_)
            | Self::Network(_)
            | Self::Cancelled => None,
        }
    }
}

/// What was probably meant, and everything that could have been.
fn nearest_of(given: &str, known: &[String]) -> String {
    let near = nearest(given, known.iter().map(String::as_str));
    let meant = near.map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
    format!("{meant}valid: {}", known.join(", "))
}

/// A checkpoint as the user names it.
fn told(which: &Which) -> String {
    let Which { stage, pipeline, digest } = which;
    let digest = digest.as_ref().map(|digest| format!("{digest} ")).unwrap_or_default();
    let pipeline = pipeline.as_ref().map(|pipeline| format!(" in {pipeline}")).unwrap_or_default();
    format!("{digest}of a stage {:?}{pipeline}", stage.as_str())
}

/// What was probably meant by a path that is not there, the nearest name in its folder; `written` is how the
/// user has it, `path` where it is looked for.
pub(super) fn sibling_like(written: &Path, path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names: Vec<String> =
        fs::read_dir(here).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(written.with_file_name(near).display().to_string())
}

fn archive_hint(error: &ArchiveError) -> String {
    match error {
        ArchiveError::NoMirror { .. } => "name one: mirrors = [\"http://…\"] in [system]".to_owned(),
        ArchiveError::Unreachable { .. } => {
            "check the network, or name another archive: mirrors = [\"http://…\"] in [system]".to_owned()
        }
        ArchiveError::NoSuite { .. } => {
            "check the suite's name, or name an archive that has it: mirrors = [\"http://…\"] in [system]"
                .to_owned()
        }
        ArchiveError::NoComponent { meant: Some(meant), .. } => format!("did you mean {meant:?}?"),
        ArchiveError::NoComponent { .. } => "correct components in [system]".to_owned(),
    }
}

fn sandbox_hint(error: &SandboxError) -> Option<String> {
    Some(match error {
        SandboxError::Unreachable { .. } => {
            "start the engine, or point DOCKER_HOST at one; on Debian: apt install docker.io, then as root: dockerd"
                .to_owned()
        }
        SandboxError::Forbidden { .. } => {
            "join the group that owns the socket (usually: sudo usermod -aG docker $USER, then log in again)".to_owned()
        }
        SandboxError::BadAddress(_) => "write unix:///path/to/socket or tcp://host:port".to_owned(),
        SandboxError::TooFewRights(_) => {
            "isokiln doctor says what is missing; engines without root need more set up".to_owned()
        }
        SandboxError::Image(_) => {
            "isokiln image build --route mirror|dockerfile tries another way; isokiln doctor checks the engine".to_owned()
        }
        full if full.is_disk_full() => {
            "the engine's disk is full: free some space there (docker system df), or isokiln clean, then build again"
                .to_owned()
        }
        SandboxError::HungUp { .. }
        | SandboxError::ContainerGone { .. }
        | SandboxError::Refused { .. }
        | SandboxError::Helper { .. } => {
            "isokiln doctor says how the engine is; then try again: a build continues from its last checkpoint"
                .to_owned()
        }
        SandboxError::Io { .. } => return None,
    })
}

fn store_hint(error: &StoreError) -> Option<String> {
    Some(match error {
        full if full.is_disk_full() => full_disk_hint(),
        StoreError::Damaged { .. } | StoreError::Missing { .. } => {
            "isokiln verify says which checkpoints are damaged; isokiln build makes them anew".to_owned()
        }
        StoreError::BadDocument { .. } => {
            "isokiln checkpoint rm STAGE removes a checkpoint; isokiln build makes it anew".to_owned()
        }
        StoreError::BadIndex { .. } => {
            "isokiln verify writes the index anew from the checkpoints themselves".to_owned()
        }
        StoreError::NoSuchCheckpoint { .. } => {
            "isokiln checkpoint list shows those that there are".to_owned()
        }
        StoreError::Io { .. } | StoreError::Layer(_) => return None,
    })
}

fn full_disk_hint() -> String {
    "the disk is full: isokiln gc --keep 1 frees what old builds hold; then build again, it continues from the last checkpoint"
        .to_owned()
}

/// Room left, in words.
pub(super) fn room(bytes: u64, inodes: u64) -> String {
    format!("{} and {inodes} inodes are left", show_size(bytes))
}
