//! Which stage runs when.
//!
//! Every stage is a future of its own. It waits for its parent, decides whether its checkpoint is there,
//! runs if not, and is saved. A child need not wait until its parent is saved: where no checkpoint of the
//! child could be a hit whatever the parent's layer turns out to be, it starts on the parent's changed
//! tree as soon as the parent's script has ended. A stage whose kind prepares layers has that done for each as
//! soon as it is there, while others run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use isokiln_core::event::Event;
use isokiln_core::image::{Checkpoint, Role};
use isokiln_core::names::StageName;
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::{Checkpoints, Step, decide, stage_inputs};
use tokio::sync::{Semaphore, watch};

use super::build::Build;
use super::checkpoints::Shelf;
use super::error::RunError;
use crate::sandbox::{Cancel, CancelWatch, Tree};

/// Something may have been started a moment before it was ended with everything else.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);
/// After so many, what has not ended yet is not waited for: an engine that hangs must not keep the user.
const ATTEMPTS: u32 = 10;

/// How far a stage is, for its children.
#[derive(Clone)]
enum Progress {
    Waiting,
    /// Its script has ended; this is what it ran on and what it changed, bottom to top.
    Ran(Vec<Tree>),
    Saved(Arc<Saved>),
}

/// A stage whose checkpoint is in the store.
pub(super) struct Saved {
    pub(super) checkpoint: Checkpoint,
    /// The stages that led to it, with whether they added a layer.
    pub(super) chain: Vec<(StageName, bool)>,
    /// Whether this run has made it, so that its layer lies in the engine.
    is_new: bool,
}

/// What stages share while they run.
struct Schedule<'b> {
    build: &'b Build,
    shelf: Shelf,
    forced: BTreeSet<StageName>,
    slots: Semaphore,
    preparing: Semaphore,
    stop: CancelWatch,
}

impl Build {
    pub(super) async fn run_stages(&self) -> Result<(), RunError> {
        let stages = self.wanted_stages()?;
        let (stop_sender, stop) = watch::channel(*self.cancel.borrow());
        let schedule = Schedule {
            build: self,
            shelf: self.load_shelf()?,
            forced: self.forced(&stages)?,
            slots: Semaphore::new(self.options.parallel.unwrap_or(1).max(1)),
            preparing: Semaphore::new(1),
            stop,
        };
        let mut lines: BTreeMap<StageName, Vec<watch::Receiver<Progress>>> = BTreeMap::new();
        let mut running = FuturesUnordered::new();
        for stage in &stages {
            let (sender, receiver) = watch::channel(Progress::Waiting);
            // Bottom to top.
            let mut line: Vec<_> =
                stage.parent.iter().filter_map(|parent| lines.get(parent)).flatten().cloned().collect();
            let work = schedule.process(stage, line.clone(), sender);
            running.push(async move {
                match work.await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.with_room(&stage.name, error).await),
                }
            });
            line.push(receiver);
            lines.insert(stage.name.clone(), line);
        }
        let mut wish = self.cancel.clone();
        let mut first_error = None;
        let mut again = tokio::time::interval(AGAIN);
        let mut attempts = 0;
        loop {
            let ends_now = *wish.borrow() == Cancel::Now;
            tokio::select! {
                // Without its containers, whatever is being moved or saved breaks off.
                _ = again.tick(), if ends_now => {
                    attempts += 1;
                    if attempts > ATTEMPTS {
                        first_error = Some(RunError::Cancelled);
                        break;
                    }
                    if let Err(error) = self.sandbox.destroy().await {
                        tracing::debug!("cannot stop at once: {error}");
                    }
                }
                ended = running.next() => match ended {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        // What runs is stopped; what has run is still saved.
                        stop_sender.send_replace(Cancel::Now);
                        // Stages that end because another did are not the reason.
                        if matches!(first_error, None | Some(RunError::Cancelled)) {
                            first_error = Some(error);
                        }
                    }
                },
                lost = self.events.lost() => {
                    // A run whose record has a gap would be taken for something that it was not.
                    stop_sender.send_replace(Cancel::Now);
                    let stage = lost.stage.as_ref().or_else(|| stages.first().map(|stage| &stage.name));
                    let error = lost.error;
                    first_error = Some(match stage {
                        Some(stage) => self.with_room(stage, error).await,
                        None => error,
                    });
                }
                Ok(()) = wish.changed() => {
                    let wish = *wish.borrow_and_update();
                    stop_sender.send_if_modified(|stop| {
                        let grows = wish > *stop;
                        *stop = wish.max(*stop);
                        grows
                    });
                }
            }
        }
        match first_error {
            // What broke off because the user said so is no error.
            Some(_) if *self.cancel.borrow() == Cancel::Now => Err(RunError::Cancelled),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The checkpoints that are usable; those that are not are forgotten first.
    fn load_shelf(&self) -> Result<Shelf, RunError> {
        self.forget_damaged()?;
        Shelf::load(&self.store)
    }

    /// Takes out of the index what the store no longer has whole, and says so.
    pub(super) fn forget_damaged(&self) -> Result<(), RunError> {
        let mut gone =
            self.store.forget_damaged().map_err(RunError::store("the store cannot be repaired"))?;
        // Nothing rests on a record; without one, a shell in the checkpoint lacks some things, and tells.
        gone.retain(|(entry, _)| entry.note.role != Role::Circumstances);
        if let Some((_, reason)) = gone.first() {
            let mut stages: Vec<_> = gone.iter().map(|(entry, _)| entry.note.stage.to_string()).collect();
            stages.dedup();
            self.events.warn(format!("{reason}; what rests on it is made anew: {}", stages.join(", ")));
        }
        Ok(())
    }
}

impl Schedule<'_> {
    async fn process(
        &self,
        stage: &Stage,
        ancestors: Vec<watch::Receiver<Progress>>,
        progress: watch::Sender<Progress>,
    ) -> Result<(), RunError> {
        let build = self.build;
        if build.project.kinds.prepares_layers(&stage.kind) {
            self.prepare_layers(stage, &ancestors).await?;
        }
        let parent = ancestors.last().cloned();
        let parent_saved = match self.parent_for(stage, parent.clone()).await? {
            Parent::Unsaved(trees) => {
                return self.run_and_save(stage, self.changed(stage), trees, parent, progress).await;
            }
            Parent::Saved(saved) => saved,
        };
        self.stop_if_asked()?;
        let below = parent_saved.as_ref().map(|parent| parent.checkpoint.diff_ids()).unwrap_or_default();
        let step = decide(&build.project.pipeline, stage, &below, &build.context(), &self.shelf);
        let changed = match step {
            Step::Hit(checkpoint) if !self.forced.contains(&stage.name) => {
                if let Some(saved) = self.take(stage, *checkpoint, parent_saved.as_deref())? {
                    progress.send_replace(Progress::Saved(Arc::new(saved)));
                    return Ok(());
                }
                Vec::new()
            }
            Step::Miss { changes, .. } => {
                changes.unwrap_or_default().into_iter().map(|change| change.input).collect()
            }
            Step::Hit(_) | Step::AfterParent(_) => Vec::new(),
        };
        let trees = below.iter().map(|layer| Tree::Layer(*layer)).collect();
        self.run_and_save(stage, changed, trees, parent, progress).await
    }

    /// Names of the inputs that differ from the newest checkpoint's, that of the parent among them: it is
    /// being made anew.
    fn changed(&self, stage: &Stage) -> Vec<String> {
        let pipeline = &self.build.project.pipeline;
        let Some(newest) = self.shelf.newest(pipeline, &stage.name) else { return Vec::new() };
        let inputs = stage_inputs(pipeline, stage, &[], &self.build.context());
        inputs.changes_since(&newest.inputs).into_iter().map(|change| change.input).collect()
    }

    /// Has the layers beneath a stage prepared as they come. The last is left to the stage itself, which can begin by then.
    async fn prepare_layers(
        &self,
        stage: &Stage,
        ancestors: &[watch::Receiver<Progress>],
    ) -> Result<(), RunError> {
        let Some((_, below)) = ancestors.split_last() else { return Ok(()) };
        let mut prepared = BTreeSet::new();
        for ancestor in below {
            let ancestor = saved(ancestor.clone()).await?;
            let Some(layer) = ancestor.checkpoint.diff_ids().last().copied() else { continue };
            // What an earlier run has made was prepared then, and need not lie in the engine.
            if !ancestor.is_new || !prepared.insert(layer) {
                continue;
            }
            // One at a time: what many compress at once needs memory that no slot stands for. The semaphore is never closed.
            let _turn = self.preparing.acquire().await.map_err(|_| RunError::Cancelled)?;
            // Who stops is told by the stage's own turn; stages that run now may still end well.
            if self.stop_if_asked().is_ok() {
                self.build.prepare_layer(stage, layer, self.stop.clone()).await;
            }
        }
        Ok(())
    }

    /// Waits for the parent as long as it can make a difference.
    async fn parent_for(
        &self,
        stage: &Stage,
        parent: Option<watch::Receiver<Progress>>,
    ) -> Result<Parent, RunError> {
        let Some(mut parent) = parent else { return Ok(Parent::Saved(None)) };
        let could_hit = !self.forced.contains(&stage.name) && {
            let inputs = stage_inputs(&self.build.project.pipeline, stage, &[], &self.build.context());
            self.shelf.could_hit(&self.build.project.pipeline, stage, &inputs)
        };
        // What is prepared for a layer is found by the layer's identity.
        let needs_layers = self.build.project.kinds.prepares_layers(&stage.kind);
        loop {
            match &*parent.borrow_and_update() {
                Progress::Waiting => {}
                Progress::Ran(_) if could_hit || needs_layers => {}
                Progress::Ran(trees) => return Ok(Parent::Unsaved(trees.clone())),
                Progress::Saved(saved) => return Ok(Parent::Saved(Some(saved.clone()))),
            }
            // A parent that has failed says nothing more; its own error is the one that counts.
            parent.changed().await.map_err(|_| RunError::Cancelled)?;
        }
    }

    async fn run_and_save(
        &self,
        stage: &Stage,
        changed: Vec<String>,
        trees: Vec<Tree>,
        parent: Option<watch::Receiver<Progress>>,
        progress: watch::Sender<Progress>,
    ) -> Result<(), RunError> {
        let build = self.build;
        // The semaphore is never closed.
        let slot = self.slots.acquire().await.map_err(|_| RunError::Cancelled)?;
        self.stop_if_asked()?;
        if let Some(Progress::Saved(saved)) = parent.as_ref().map(|parent| parent.borrow().clone()) {
            build.unpack(stage, &saved.checkpoint.layers).await?;
        }
        let ran = build.run_until_well(stage, changed, trees.clone(), self.stop.clone()).await?;
        drop(slot);
        let mut own = trees;
        if build.adds_layer(stage) {
            own.push(Tree::Work(stage.name.clone()));
        }
        progress.send_replace(Progress::Ran(own));
        let parent = match parent {
            Some(parent) => Some(saved(parent).await?),
            None => None,
        };
        let (checkpoint, files) = build.save(stage, ran, parent.as_deref()).await?;
        build.recovery.made(&stage.name);
        let chain = build.chain(stage, parent.as_deref());
        progress.send_replace(Progress::Saved(Arc::new(Saved { checkpoint, chain, is_new: true })));
        build.count_artifacts(build.deliver(stage, &files)?);
        Ok(())
    }

    /// Uses a checkpoint that is there; `None` where its artifacts are not.
    fn take(
        &self,
        stage: &Stage,
        checkpoint: Checkpoint,
        parent: Option<&Saved>,
    ) -> Result<Option<Saved>, RunError> {
        let build = self.build;
        let what = || format!("the artifacts of stage {} cannot be read", stage.name);
        let entry =
            build.store.find(Role::Artifacts, checkpoint.inputs.key()).map_err(RunError::store(what()))?;
        let Some(entry) = entry else { return Ok(None) };
        let files = build.store.files(&entry).map_err(|error| build.damaged(what(), error))?;
        for file in &files {
            build.store.expect_whole(file.digest).map_err(|error| build.damaged(what(), error))?;
        }
        build.events.emit(Event::StageHit {
            stage: stage.name.clone(),
            manifest: checkpoint.manifest,
            pinned: checkpoint.pinned,
        });
        build.count_artifacts(build.deliver(stage, &files)?);
        let chain = build.chain(stage, parent);
        Ok(Some(Saved { checkpoint, chain, is_new: false }))
    }

    fn stop_if_asked(&self) -> Result<(), RunError> {
        // The user's wish may not have been passed on yet.
        let wish = *self.build.cancel.borrow();
        match wish.max(*self.stop.borrow()) {
            Cancel::No => Ok(()),
            Cancel::Gracefully | Cancel::Now => Err(RunError::Cancelled),
        }
    }
}

/// What a stage starts from.
enum Parent {
    /// A checkpoint, or nothing.
    Saved(Option<Arc<Saved>>),
    /// Trees that are still being saved.
    Unsaved(Vec<Tree>),
}

/// Waits until a stage is saved.
async fn saved(mut progress: watch::Receiver<Progress>) -> Result<Arc<Saved>, RunError> {
    loop {
        if let Progress::Saved(saved) = &*progress.borrow_and_update() {
            return Ok(saved.clone());
        }
        progress.changed().await.map_err(|_| RunError::Cancelled)?;
    }
}
