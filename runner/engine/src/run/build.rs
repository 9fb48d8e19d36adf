//! A build from its first stage to the last verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use isokiln_core::digest::DiffId;
use isokiln_core::event::Event;
use isokiln_core::image::{Checkpoint, Role};
use isokiln_core::kind::Kind;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::{BuildContext, Step, decide};

use super::checkpoints::Shelf;
use super::clock::Clock;
use super::error::RunError;
use super::events::Events;
use super::home::{Home, RunFolder};
use super::project::Project;
use crate::sandbox::{Cancel, CancelWatch, Sandbox};
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
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { until: None, from: None, compression: Compression::Zstd }
    }
}

/// A build in progress.
pub struct Build {
    pub(super) home: Home,
    pub(super) store: Store,
    pub(super) run: RunFolder,
    pub(super) project: Project,
    pub(super) context: BuildContext,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) events: Events,
    pub(super) cancel: CancelWatch,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: BuildOptions,
    /// Layers in the engine, once they have been asked for.
    pub(super) unpacked: Option<BTreeSet<DiffId>>,
    /// The stages that led to each, with whether they added a layer.
    pub(super) chains: BTreeMap<StageName, Vec<(StageName, bool)>>,
    /// Files in the run folder.
    pub(super) delivered: Vec<PathBuf>,
    /// Seconds that stages' own scripts took.
    pub(super) script_seconds: f64,
}

/// What a build leaves.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files in the run folder, ISO among them.
    pub artifacts: Vec<PathBuf>,
    /// Seconds that stages' own scripts took.
    pub script_seconds: f64,
}

impl Build {
    /// Puts a build together.
    #[expect(clippy::too_many_arguments, reason = "each is an edge of its own, given once")]
    pub fn new(
        home: Home,
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
            home,
            store,
            run,
            project,
            context,
            sandbox,
            events,
            cancel,
            clock,
            options,
            unpacked: None,
            chains: BTreeMap::new(),
            delivered: Vec::new(),
            script_seconds: 0.0,
        })
    }

    /// Runs every stage whose checkpoint is not there. What runs in the engine is gone afterwards,
    /// whatever happened.
    pub async fn run(mut self) -> Result<Outcome, RunError> {
        let outcome = self.run_stages().await;
        let destroyed = self.sandbox.destroy().await;
        outcome?;
        destroyed.map_err(RunError::sandbox("the engine could not be tidied up"))?;
        Ok(Outcome { artifacts: self.delivered, script_seconds: self.script_seconds })
    }

    async fn run_stages(&mut self) -> Result<(), RunError> {
        let stages = self.wanted_stages()?;
        let forced = self.forced(&stages)?;
        let mut shelf = Shelf::load(&self.store)?;
        for blob in std::mem::take(&mut shelf.broken) {
            let gone =
                self.store.forget_blob(blob).map_err(RunError::store("the store cannot be repaired"))?;
            let names: Vec<_> = gone.iter().map(|entry| entry.note.stage.to_string()).collect();
            self.events.warn(format!(
                "{blob} is damaged or missing; forgot the checkpoints of {}",
                names.join(", ")
            ));
        }
        let mut done: BTreeMap<StageName, Checkpoint> = BTreeMap::new();
        for stage in &stages {
            self.stop_if_asked()?;
            let parent = stage.parent.as_ref().and_then(|parent| done.get(parent)).cloned();
            let below = parent.as_ref().map(Checkpoint::diff_ids).unwrap_or_default();
            let step = decide(&self.project.pipeline, stage, &below, &self.context, &shelf);
            let checkpoint = match step {
                Step::Hit(checkpoint) if !forced.contains(&stage.name) => {
                    match self.take_checkpoint(stage, *checkpoint)? {
                        Some(checkpoint) => checkpoint,
                        None => self.run_anew(stage, &below, parent.as_ref()).await?,
                    }
                }
                Step::Miss { inputs, changes } => {
                    self.run_stage(stage, inputs, changes.as_deref(), parent.as_ref()).await?
                }
                Step::Hit(_) | Step::AfterParent(_) => self.run_anew(stage, &below, parent.as_ref()).await?,
            };
            done.insert(stage.name.clone(), checkpoint);
        }
        Ok(())
    }

    async fn run_anew(
        &mut self,
        stage: &Stage,
        below: &[DiffId],
        parent: Option<&Checkpoint>,
    ) -> Result<Checkpoint, RunError> {
        let inputs = isokiln_core::plan::stage_inputs(&self.project.pipeline, stage, below, &self.context);
        self.run_stage(stage, inputs, Some(&[]), parent).await
    }

    /// Uses a checkpoint that is there; `None` where its artifacts are not.
    fn take_checkpoint(
        &mut self,
        stage: &Stage,
        checkpoint: Checkpoint,
    ) -> Result<Option<Checkpoint>, RunError> {
        let what = || format!("the artifacts of stage {} cannot be read", stage.name);
        let key = checkpoint.inputs.key();
        let entry = self.store.find(Role::Artifacts, key).map_err(RunError::store(what()))?;
        let Some(entry) = entry else { return Ok(None) };
        let files = match self.store.files(&entry) {
            Ok(files) => files,
            Err(error) => return Err(self.damaged(stage, error)),
        };
        self.events.emit(Event::StageHit {
            stage: stage.name.clone(),
            manifest: checkpoint.manifest,
            pinned: checkpoint.pinned,
        });
        match self.deliver(stage, &files) {
            Ok(paths) => self.delivered.extend(paths),
            Err(RunError::Store { source, .. }) if source.broken_blob().is_some() => {
                return Err(self.damaged(stage, source));
            }
            Err(error) => return Err(error),
        }
        let has_layer =
            self.kind(stage).is_none_or(|kind| kind.rootfs != isokiln_core::kind::RootfsUse::Read);
        let mut chain =
            stage.parent.as_ref().and_then(|parent| self.chains.get(parent)).cloned().unwrap_or_default();
        chain.push((stage.name.clone(), has_layer));
        self.chains.insert(stage.name.clone(), chain);
        Ok(Some(checkpoint))
    }

    /// The stages up to the one that the caller wants, each after its parent.
    fn wanted_stages(&self) -> Result<Vec<Stage>, RunError> {
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
    fn forced(&self, stages: &[Stage]) -> Result<BTreeSet<StageName>, RunError> {
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

    /// Deletes from the engine what no checkpoint needs and what failed stages of earlier runs left.
    pub(super) async fn tidy(&self) -> Result<(), RunError> {
        let checkpoints = self.store.checkpoints().map_err(RunError::store("the store cannot be read"))?;
        let needed = checkpoints.iter().flat_map(Checkpoint::diff_ids).collect();
        self.sandbox.keep_only(&needed).await.map_err(RunError::sandbox("the engine could not be tidied up"))
    }

    fn stop_if_asked(&self) -> Result<(), RunError> {
        match *self.cancel.borrow() {
            Cancel::No => Ok(()),
            Cancel::Gracefully | Cancel::Now => Err(RunError::Cancelled),
        }
    }
}
