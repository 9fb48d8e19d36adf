//! A build from its first stage to the last verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use isokiln_core::kind::Kind;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::BuildContext;
use tokio::sync::Mutex;

use super::clock::Clock;
use super::error::RunError;
use super::events::Events;
use super::home::{Home, RunFolder};
use super::project::Project;
use super::unpack::Unpacked;
use crate::sandbox::{CancelWatch, Sandbox};
use crate::store::{Compression, Store};

/// What the caller wants of a build besides what the pipeline says.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Stop after this stage.
    pub until: Option<StageName>,
    /// Run this stage and those after it though their checkpoints are there.
    pub from: Option<StageName>,
    /// How layers are compressed.
    pub compression: Compression,
    /// Scripts that may run at the same time; `None` for as many as the engine has room for.
    pub parallel: Option<usize>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { until: None, from: None, compression: Compression::Zstd, parallel: None }
    }
}

/// A build in progress.
pub struct Build {
    pub(super) store: Store,
    pub(super) run: RunFolder,
    pub(super) project: Project,
    pub(super) context: BuildContext,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) events: Events,
    pub(super) cancel: CancelWatch,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: BuildOptions,
    pub(super) unpacked: Mutex<Unpacked>,
    /// Files in the run folder, and seconds that stages' own scripts took.
    outcome: std::sync::Mutex<Outcome>,
}

/// What a build leaves.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files in the run folder, ISO among them.
    pub artifacts: Vec<PathBuf>,
    /// The stage that left each of them.
    pub makers: BTreeMap<PathBuf, StageName>,
    /// Seconds that stages' own scripts took.
    pub script_seconds: f64,
}

impl Build {
    /// Puts a build together.
    #[expect(clippy::too_many_arguments, reason = "each is an edge of its own, given once")]
    pub fn new(
        home: &Home,
        run: RunFolder,
        project: Project,
        context: BuildContext,
        sandbox: Arc<dyn Sandbox>,
        events: Events,
        cancel: CancelWatch,
        clock: Arc<dyn Clock>,
        options: BuildOptions,
    ) -> Result<Self, RunError> {
        let store = home.store()?;
        Ok(Self {
            store,
            run,
            project,
            context,
            sandbox,
            events,
            cancel,
            clock,
            options,
            unpacked: Mutex::default(),
            outcome: std::sync::Mutex::default(),
        })
    }

    /// Runs every stage whose checkpoint is not there. What runs in the engine is gone afterwards,
    /// whatever happened.
    pub async fn run(self) -> Result<Outcome, RunError> {
        let result = loop {
            match self.run_stages().await {
                // The blob is out of the way; the next round does without what rests on it.
                Err(RunError::DamagedCheckpoint { blob }) => {
                    self.events.warn(format!("blob {blob} in the store is damaged"));
                }
                result => break result,
            }
        };
        let destroyed = self.sandbox.destroy().await;
        if let (Err(_), Err(error)) = (&result, &destroyed) {
            // The first error is the one to end with.
            self.events.warn(format!("the engine could not be tidied up: {error}"));
        }
        result?;
        destroyed.map_err(RunError::sandbox("the engine could not be tidied up"))?;
        Ok(self.outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn count_script(&self, seconds: f64) {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).script_seconds += seconds;
    }

    /// Makes a path in the run folder a stage's own: no other may put a file there.
    pub(super) fn claim(&self, stage: &Stage, path: &Path) -> Result<(), RunError> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let maker = outcome.makers.entry(path.to_owned()).or_insert_with(|| stage.name.clone());
        if *maker == stage.name {
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Err(RunError::SameArtifact { first: maker.clone(), second: stage.name.clone(), name })
    }

    pub(super) fn count_artifacts(&self, paths: Vec<PathBuf>) {
        let artifacts = &mut self.outcome.lock().unwrap_or_else(PoisonError::into_inner).artifacts;
        for path in paths {
            // A second round delivers again what it finds.
            if !artifacts.contains(&path) {
                artifacts.push(path);
            }
        }
    }

    /// The stages up to the one that the caller wants, each after its parent.
    pub(super) fn wanted_stages(&self) -> Result<Vec<Stage>, RunError> {
        let stages = &self.project.pipeline.stages;
        let Some(until) = &self.options.until else { return Ok(stages.clone()) };
        let mut wanted = vec![self.named(until)?.name.clone()];
        while let Some(parent) =
            wanted.last().and_then(|name| self.project.pipeline.stage(name.as_str())?.parent.clone())
        {
            wanted.push(parent);
        }
        Ok(stages.iter().filter(|stage| wanted.contains(&stage.name)).cloned().collect())
    }

    /// The stages that run though their checkpoints are there.
    pub(super) fn forced(&self, stages: &[Stage]) -> Result<BTreeSet<StageName>, RunError> {
        let mut forced = BTreeSet::new();
        if let Some(from) = &self.options.from {
            forced.insert(self.named(from)?.name.clone());
            for stage in stages {
                if stage.parent.as_ref().is_some_and(|parent| forced.contains(parent)) {
                    forced.insert(stage.name.clone());
                }
            }
        }
        Ok(forced)
    }

    fn named(&self, name: &StageName) -> Result<&Stage, RunError> {
        self.project.pipeline.stage(name.as_str()).ok_or_else(|| {
            let names = self.project.pipeline.stages.iter().map(|stage| stage.name.as_str());
            let meant = isokiln_core::suggest::nearest(name.as_str(), names).map(str::to_owned);
            RunError::NoSuchStage { given: name.to_string(), meant }
        })
    }

    pub(super) fn kind(&self, stage: &Stage) -> Option<&Kind> {
        self.project.kinds.catalog.get(stage.kind.as_str())
    }
}
