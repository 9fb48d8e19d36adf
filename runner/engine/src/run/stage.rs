//! Running one stage's script.

use std::collections::BTreeMap;
use std::time::Instant;

use isokiln_core::digest::DiffId;
use isokiln_core::event::Event;
use isokiln_core::kind::{Privilege, RootfsUse};
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::stage_variables;
use tokio::sync::mpsc;

use super::build::Build;
use super::error::RunError;
use super::failure::explain;
use super::listen::listen;
use super::prepare::PROXY_VARIABLES;
use crate::sandbox::{CancelWatch, ContainerFile, Dismissed, StageExit, StageSpec, Tree};

/// Messages and output that may wait between container and log.
const WAITING: usize = 256;

/// A stage whose script has ended well.
pub(super) struct Ran {
    /// Resolves when its container is gone.
    pub(super) dismissed: Dismissed,
    /// Names of the files that it left.
    pub(super) artifacts: Vec<String>,
}

impl Build {
    /// Runs a stage's script on top of `trees`, bottom to top.
    pub(super) async fn run_stage(
        &self,
        stage: &Stage,
        changed: Vec<String>,
        trees: Vec<Tree>,
        stop: CancelWatch,
    ) -> Result<Ran, RunError> {
        let started = Instant::now();
        self.events.emit(Event::StageStarted { stage: stage.name.clone(), changed });
        let (log_path, log) = self.run.log(&stage.name)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let listening = listen(receiver, log, &stage.name, &self.events);
        // What saves the stage takes a moment to start; it can do so while the script runs.
        let (end, heard, ready) = tokio::join!(
            self.sandbox.run_stage(self.spec(stage, trees), sender, stop),
            listening,
            self.sandbox.prepare()
        );
        let end = end.map_err(RunError::sandbox(format!("stage {} could not be run", stage.name)))?;
        let heard = heard.map_err(|source| self.run.error(&log_path, source))?;
        if end.exit != StageExit::Status(0) {
            let dismissed = end.dismissed.await;
            if end.exit == StageExit::Cancelled {
                return Err(RunError::Cancelled);
            }
            let failure =
                explain(end.exit, heard.failed, end.free, &stage.limits, stage.network, &heard.tail);
            let failed = self.failed(stage, failure.cause, failure.hint, heard.tail);
            dismissed.map_err(RunError::sandbox(format!("stage {} could not be ended", stage.name)))?;
            return Err(failed);
        }
        let remark = ready.map_err(RunError::sandbox("the engine cannot move layers"))?;
        if let Some(text) = remark {
            self.events.emit(Event::Note { stage: None, text });
        }
        let script_seconds = end.script_time.as_secs_f64();
        self.events.emit(Event::StageFinished {
            stage: stage.name.clone(),
            script_seconds,
            seconds: started.elapsed().as_secs_f64(),
            usage: heard.usage,
        });
        self.count_script(script_seconds);
        Ok(Ran { dismissed: end.dismissed, artifacts: end.artifacts })
    }

    pub(super) fn failed(
        &self,
        stage: &Stage,
        cause: String,
        hint: Option<String>,
        tail: Vec<String>,
    ) -> RunError {
        self.events.emit(Event::StageFailed {
            stage: stage.name.clone(),
            cause: cause.clone(),
            hint: hint.clone(),
            log: self.run.log_path(&stage.name).display().to_string(),
            tail,
        });
        RunError::Stage { stage: stage.name.clone(), cause, hint }
    }

    /// Has a stage's kind prepare a layer ahead of the stage. Whatever fails here fails again in the stage itself, where
    /// it is told.
    pub(super) async fn prepare_layer(&self, stage: &Stage, layer: DiffId, stop: CancelWatch) {
        let spec = self.spec(stage, vec![Tree::Layer(layer)]);
        if let Err(error) = self.sandbox.prepare_layer(spec, stop).await {
            tracing::debug!("layer {} is not prepared for stage {}: {error}", layer.0.short(), stage.name);
        }
    }

    fn spec(&self, stage: &Stage, trees: Vec<Tree>) -> StageSpec {
        let kind = self.kind(stage);
        let mut environment: BTreeMap<String, String> = stage_variables(&self.project.pipeline, stage)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        environment.insert("ISOKILN_ENVIRONMENT".to_owned(), stage.environment.join(" "));
        for name in PROXY_VARIABLES {
            if let Ok(value) = std::env::var(name) {
                environment.insert(name.to_owned(), value);
            }
        }
        for name in &stage.environment {
            if let Some(value) = self.context.environment.get(name) {
                environment.insert(name.clone(), value.clone());
            }
        }
        let options = serde_json::to_vec(&stage.options.values).unwrap_or_default();
        let mut files = self.project.kinds.files(&stage.kind);
        files.push(ContainerFile::data("/isokiln/options.json", options));
        files.push(ContainerFile::data("/isokiln/sources.list", self.context.archive.sources_list()));
        StageSpec {
            run: self.run.id.clone(),
            stage: stage.name.clone(),
            trees,
            rootfs: kind.map_or(RootfsUse::Change, |kind| kind.rootfs),
            privilege: kind.map_or(Privilege::Chroot, |kind| kind.privilege),
            network: stage.network,
            archive: stage.archive,
            limits: stage.limits,
            environment,
            files,
            inputs: stage
                .options
                .inputs
                .iter()
                .map(|input| (input.option.clone(), self.project.resolve(&input.path)))
                .collect(),
            epoch: self.context.epoch,
        }
    }
}
