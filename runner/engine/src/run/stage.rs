//! Running one stage's script.

use std::sync::Arc;
use std::time::Instant;

use isokiln_core::digest::DiffId;
use isokiln_core::event::Event;
use isokiln_core::image::{Setting, Surroundings};
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::BuildContext;
use isokiln_core::review::{End, Facts, Room};
use tokio::sync::mpsc;

use super::build::Build;
use super::error::RunError;
use super::failure::{Failure, explain};
use super::listen::listen;
use super::room::{RUN_DISK, left_at};
use super::unfinished::Unfinished;
use crate::sandbox::{CancelWatch, Dismissed, StageExit, StageSpec, Tree};

/// Messages and output that may wait between container and log.
const WAITING: usize = 256;

/// A stage whose script has ended well.
pub(super) struct Ran {
    /// Resolves when its container is gone.
    pub(super) dismissed: Dismissed,
    /// Names of the files that it left.
    pub(super) artifacts: Vec<String>,
    /// What its script was given.
    pub(super) setting: Setting,
    /// What was around its script when that had ended.
    pub(super) surroundings: Option<Surroundings>,
    /// The stage as it was run, which may be without an optional package.
    pub(super) stage: Stage,
    /// What it rested on; another mirror may stand in for the archive's by the time it is saved.
    pub(super) context: Arc<BuildContext>,
    /// Seconds from the making of its container until its script was done.
    pub(super) seconds: f64,
}

/// A stage that has failed.
pub(super) struct Failed {
    /// Why, in its own words.
    pub(super) failure: Failure,
    /// What is known besides its log.
    pub(super) facts: Facts,
    /// Its status, or the one that shells have for such an end.
    pub(super) status: i64,
    /// The log's last lines.
    pub(super) tail: Vec<String>,
    /// Seconds from the making of its container until it was gone.
    pub(super) seconds: f64,
}

/// How a stage's script ended.
pub(super) enum Ended {
    Well(Box<Ran>),
    Failed(Failed),
}

/// What shells call the end of a program whose time was over, and that of one that was killed.
const TIMED_OUT: i64 = 124;
const KILLED: i64 = 137;

impl Build {
    /// Runs a stage's script on top of `trees`, bottom to top, for the nth time in this build.
    #[expect(clippy::too_many_arguments, reason = "each differs from one attempt to the next")]
    pub(super) async fn run_stage(
        &self,
        stage: &Stage,
        attempt: usize,
        changed: Vec<String>,
        trees: Vec<Tree>,
        fresh_cache: bool,
        context: &Arc<BuildContext>,
        stop: CancelWatch,
    ) -> Result<Ended, RunError> {
        let started = Instant::now();
        self.events.emit(Event::StageStarted { stage: stage.name.clone(), changed });
        let (log_path, log) = self.run.log(&stage.name, attempt)?;
        let (files, setting) = self.setting(stage, context);
        let unfinished = Unfinished::begun(self.clock.seconds(), &trees, &setting);
        self.run.keep_unfinished(&stage.name, &unfinished);
        let spec = StageSpec { fresh_cache, ..self.spec(stage, trees, files, &setting, context) };
        let (sender, receiver) = mpsc::channel(WAITING);
        let listening = listen(receiver, log, &stage.name, &self.events);
        // What saves the stage takes a moment to start; it can do so while the script runs.
        let (end, heard, ready) =
            tokio::join!(self.sandbox.run_stage(spec, sender, stop), listening, self.make_ready());
        let end = end.map_err(RunError::sandbox(format!("stage {} could not be run", stage.name)))?;
        let heard = heard.map_err(|source| self.run.error(&log_path, source))?;
        if end.exit != StageExit::Status(0) {
            let dismissed = end.dismissed.await;
            if end.exit == StageExit::Cancelled {
                return Err(RunError::Cancelled);
            }
            dismissed.map_err(RunError::sandbox(format!("stage {} could not be ended", stage.name)))?;
            let facts = self.facts(stage, end.exit, end.rooms, end.resolves, context).await;
            let mut failure =
                explain(end.exit, heard.failed, &facts.rooms, &stage.limits, stage.network, &heard.tail);
            if let Some(full) = facts.rooms.iter().find(|room| room.is_full()) {
                failure.hint = Some(self.advice_for(full).await);
            }
            let status = match end.exit {
                StageExit::Status(status) => status,
                StageExit::TimedOut => TIMED_OUT,
                StageExit::OutOfMemory | StageExit::Lost | StageExit::Cancelled => KILLED,
            };
            let seconds = started.elapsed().as_secs_f64();
            return Ok(Ended::Failed(Failed { failure, facts, status, tail: heard.tail, seconds }));
        }
        if let Some(text) = ready? {
            self.events.emit(Event::Note { stage: None, text });
        }
        let script_seconds = end.script_time.as_secs_f64();
        let seconds = started.elapsed().as_secs_f64();
        self.events.emit(Event::StageFinished {
            stage: stage.name.clone(),
            script_seconds,
            seconds,
            usage: heard.usage,
        });
        self.count_script(script_seconds);
        let context = context.clone();
        Ok(Ended::Well(Box::new(Ran {
            dismissed: end.dismissed,
            artifacts: end.artifacts,
            setting,
            surroundings: end.surroundings,
            stage: stage.clone(),
            context,
            seconds,
        })))
    }

    /// Makes ready what saves a stage, and removes what failed stages of earlier runs left; gives what people should
    /// know of the sandbox.
    async fn make_ready(&self) -> Result<Option<String>, RunError> {
        let remark = self.sandbox.prepare().await;
        let remark = remark.map_err(RunError::sandbox("the engine cannot move layers"))?;
        self.tidy_early().await?;
        Ok(remark)
    }

    /// What is known of a stage's end besides its log.
    async fn facts(
        &self,
        stage: &Stage,
        exit: StageExit,
        mut rooms: Vec<Room>,
        resolves: Option<bool>,
        context: &BuildContext,
    ) -> Facts {
        let end = match exit {
            StageExit::Status(status) => End::Status(status),
            StageExit::TimedOut => End::TimedOut,
            StageExit::OutOfMemory => End::OutOfMemory,
            StageExit::Lost | StageExit::Cancelled => End::Lost,
        };
        rooms.extend(left_at(self.run.path()).map(|(bytes, inodes)| Room {
            what: RUN_DISK.to_owned(),
            bytes,
            inodes,
        }));
        let has_archive = stage.archive && stage.network;
        let clock_offset = if has_archive { self.mirrors.clock_offset(&context.archive).await } else { None };
        Facts { end, rooms, clock_offset, resolves, has_network: Some(stage.network) }
    }

    pub(super) fn failed(&self, stage: &Stage, failure: Failure, tail: Vec<String>) -> RunError {
        let Failure { cause, hint } = failure;
        self.run.note_failure(&stage.name, &cause);
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
        let context = self.context();
        let (files, setting) = self.setting(stage, &context);
        let spec = self.spec(stage, vec![Tree::Layer(layer)], files, &setting, &context);
        if let Err(error) = self.sandbox.prepare_layer(spec, stop).await {
            tracing::debug!("layer {} is not prepared for stage {}: {error}", layer.0.short(), stage.name);
        }
    }
}
