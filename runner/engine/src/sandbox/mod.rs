//! The sandbox: where stages run, and where their layers lie unpacked.
//!
//! [`Sandbox`] is the contract; [`docker`] keeps it with a container engine. A fake keeps it in tests.

pub mod docker;
mod flow;
mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use isokiln_core::digest::DiffId;
use isokiln_core::event::Usage;
use isokiln_core::image::{Setting, Surroundings};
use isokiln_core::kind::{Privilege, RootfsUse};
use isokiln_core::names::{RunId, StageName};
use isokiln_core::pipeline::Limits;
use isokiln_core::review::Room;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use flow::{Dismissed, Inflow, Outflow};
pub use messages::Saying;

/// What a sandbox cannot carry on from.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No engine answers.
    #[error("no container engine answers at {address}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The engine is there but not for this user.
    #[error("the container engine at {address} does not let this user in")]
    Forbidden {
        /// Where it is.
        address: String,
    },
    /// `DOCKER_HOST` says something that is not supported.
    #[error("DOCKER_HOST is {0:?}, which isokiln does not understand")]
    BadAddress(String),
    /// The engine refused.
    #[error("the container engine could not {action}: {reason}")]
    Refused {
        /// What was asked of it.
        action: String,
        /// What it said.
        reason: String,
    },
    /// The engine was there and is gone.
    #[error("the connection to the container engine broke off; it could not {action}: {reason}")]
    HungUp {
        /// What was asked of it.
        action: String,
        /// What the system said.
        reason: String,
    },
    /// A container that was needed is gone, and not because of isokiln.
    #[error(
        "a container of this build was removed or killed from outside; the engine could not {action}: {reason}"
    )]
    ContainerGone {
        /// What was asked of it.
        action: String,
        /// What it said.
        reason: String,
    },
    /// The engine grants too little for stages.
    #[error("the container engine grants too few rights for stages: {0}")]
    TooFewRights(String),
    /// A command in a helper container failed.
    #[error("{what} failed in the engine: {reason}")]
    Helper {
        /// What it was for.
        what: String,
        /// The end of what it printed.
        reason: String,
    },
    /// The builder image could not be made.
    #[error("the builder image could not be made: {0}")]
    Image(String),
    /// A local file or pipe failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SandboxError {
    /// Whether the trouble is a full disk in the engine.
    pub fn is_disk_full(&self) -> bool {
        let (Self::Refused { reason, .. } | Self::Helper { reason, .. } | Self::Image(reason)) = self else {
            return false;
        };
        reason.contains("No space left on device") || reason.contains("no space left on device")
    }
}

/// Everything that a stage's container is given.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// The run.
    pub run: RunId,
    /// The stage.
    pub stage: StageName,
    /// What its root file system is made of, bottom to top.
    pub trees: Vec<Tree>,
    /// What it does with it.
    pub rootfs: RootfsUse,
    /// What its script may do.
    pub privilege: Privilege,
    /// Whether it has a network.
    pub network: bool,
    /// Whether it uses the package archive.
    pub archive: bool,
    /// Whether it does without what was fetched before, because that may be broken.
    pub fresh_cache: bool,
    /// What it may use.
    pub limits: Limits,
    /// Environment of its script.
    pub environment: BTreeMap<String, String>,
    /// Files put into the container, under `/isokiln`.
    pub files: Vec<ContainerFile>,
    /// Files and folders of the project put into the container, under `/isokiln/inputs`, by option.
    pub inputs: Vec<(String, PathBuf)>,
    /// Seconds since 1970 that times are set to.
    pub epoch: i64,
}

impl StageSpec {
    /// What a setting comes to, on a tree. `value` gives the values of the variables that it only names.
    pub fn of(
        setting: &Setting,
        (run, stage): (&RunId, &StageName),
        trees: Vec<Tree>,
        files: Vec<ContainerFile>,
        value: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut environment = setting.variables.clone();
        environment.insert("ISOKILN_ENVIRONMENT".to_owned(), setting.environment.join(" "));
        for name in &setting.environment {
            if let Some(value) = value(name) {
                environment.insert(name.clone(), value);
            }
        }
        Self {
            run: run.clone(),
            stage: stage.clone(),
            trees,
            rootfs: setting.rootfs,
            privilege: setting.privilege,
            network: setting.network,
            archive: setting.archive,
            fresh_cache: false,
            limits: setting.limits,
            environment,
            files,
            inputs: setting.inputs.clone().into_iter().collect(),
            epoch: setting.epoch,
        }
    }
}

/// A part of a root file system, as it lies in the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tree {
    /// An unpacked layer.
    Layer(DiffId),
    /// What a stage of this run has changed, whether it has become a layer yet or not.
    Work(StageName),
}

/// A small file for a container.
#[derive(Debug, Clone)]
pub struct ContainerFile {
    /// Absolute path in the container.
    pub path: String,
    /// Whether it can be executed.
    pub executable: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

impl ContainerFile {
    /// A file that is read.
    pub fn data(path: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self { path: path.into(), executable: false, bytes: bytes.into() }
    }

    /// A file that is run.
    pub fn program(path: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self { path: path.into(), executable: true, bytes: bytes.into() }
    }
}

/// What comes out of a stage while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum StageOutput {
    /// Bytes for the log, as they come.
    Log(Bytes),
    /// Something that the stage tells people.
    Said(Saying),
    /// What it has used so far.
    Usage(Usage),
}

/// How a stage ended.
pub struct StageEnd {
    /// How its script ended.
    pub exit: StageExit,
    /// Resolves when its container is gone, with what it used in all. Meanwhile what it changed can
    /// already be captured.
    pub dismissed: Dismissed,
    /// Time that the kind's script took.
    pub script_time: Duration,
    /// What was around its script when that had ended well.
    pub surroundings: Option<Surroundings>,
    /// Names of the files that it leaves.
    pub artifacts: Vec<String>,
    /// Room left on the file systems that it used, where it failed.
    pub rooms: Vec<Room>,
    /// Whether the archive's host had an address in it, where it failed.
    pub resolves: Option<bool>,
}

/// How a stage's script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageExit {
    /// With a status.
    Status(i64),
    /// It was stopped because its time was over.
    TimedOut,
    /// The kernel stopped it because its memory was over.
    OutOfMemory,
    /// It was stopped because the user asked.
    Cancelled,
    /// Its container vanished: killed, or its engine was.
    Lost,
}

/// A wish that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cancel {
    /// Carry on.
    No,
    /// Stop when the stage in progress is done.
    Gracefully,
    /// Stop now.
    Now,
}

/// Where to look for the user's wish to stop.
pub type CancelWatch = tokio::sync::watch::Receiver<Cancel>;

/// Resolves when there is a wish to stop, however soon.
pub async fn cancelled(watch: &mut CancelWatch) {
    if watch.wait_for(|cancel| *cancel != Cancel::No).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the wish is [`Cancel::Now`].
pub async fn cancelled_now(watch: &mut CancelWatch) {
    // If nobody can wish any more, nobody will.
    if watch.wait_for(|cancel| *cancel == Cancel::Now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Where stages run and layers lie unpacked.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Makes ready what moves layers. Everything else does it if need be, but later. The first time it
    /// gives what people should know of this sandbox, if anything.
    async fn prepare(&self) -> Result<Option<String>, SandboxError>;

    /// Unpacks a layer: the tar of an overlay lower directory goes into the flow.
    async fn restore(&self, layer: DiffId) -> Result<Inflow, SandboxError>;

    /// Gives a layer its name, once what was unpacked is known to be whole.
    async fn settle(&self, layer: DiffId) -> Result<(), SandboxError>;

    /// Runs a stage in a container of its own, which is gone when the end's `dismissed` resolves.
    async fn run_stage(
        &self,
        spec: StageSpec,
        output: mpsc::Sender<StageOutput>,
        cancel: CancelWatch,
    ) -> Result<StageEnd, SandboxError>;

    /// Runs the script of the stage's kind for one layer, ahead of the stage itself and with what processor time is left.
    /// The layer is the only one of the spec's trees; what the script leaves in the cache is what it is for.
    async fn prepare_layer(&self, spec: StageSpec, cancel: CancelWatch) -> Result<(), SandboxError>;

    /// What a stage has changed: the tar of its overlay upper directory comes out of the flow.
    async fn capture(&self, run: &RunId, stage: &StageName) -> Result<Outflow, SandboxError>;

    /// Makes what a stage has changed a layer, under the identity that its capture had.
    async fn adopt(&self, run: &RunId, stage: &StageName, layer: DiffId) -> Result<(), SandboxError>;

    /// One of the files that a stage has left.
    async fn artifact(&self, run: &RunId, stage: &StageName, name: &str) -> Result<Outflow, SandboxError>;

    /// Deletes the layers that are not in the list, where there is one, and what the stages of runs left that are not
    /// in `runs` and that nobody looks at; gives the layers that lie unpacked and whole.
    async fn keep_only(
        &self,
        runs: &BTreeSet<RunId>,
        layers: Option<&BTreeSet<DiffId>>,
    ) -> Result<BTreeSet<DiffId>, SandboxError>;

    /// Bytes that [`Sandbox::keep_only`] would free.
    async fn weigh(&self, runs: &BTreeSet<RunId>, layers: &BTreeSet<DiffId>) -> Result<u64, SandboxError>;

    /// Bytes and inodes free where layers lie.
    async fn free_space(&self) -> Result<(u64, u64), SandboxError>;

    /// Another sandbox for the same run, once the engine answers and nothing of this one is left in it.
    async fn again(&self) -> Result<Arc<dyn Sandbox>, SandboxError>;

    /// Removes every container of this run.
    async fn destroy(&self) -> Result<(), SandboxError>;
}
