//! Layers in the engine: brought back from the store where a stage needs them and they are not there.

use std::collections::BTreeSet;
use std::time::Instant;

use isokiln_core::digest::DiffId;
use isokiln_core::event::Event;
use isokiln_core::image::{Checkpoint, LayerBlob};
use isokiln_core::layer::LayerError;
use isokiln_core::pipeline::Stage;

use super::build::Build;
use super::error::RunError;
use super::events::Events;
use crate::sandbox::{Sandbox, SandboxError};
use crate::store::{Store, StoreError};

/// Layers that are known to lie in the engine.
#[derive(Default)]
pub(super) struct Unpacked {
    pub(super) layers: BTreeSet<DiffId>,
    /// Whether the engine has been tidied, and asked for those of earlier runs.
    tidied: bool,
}

impl Build {
    /// Brings the layers that a stage starts from back into the engine, where they are not there.
    pub(super) async fn unpack(&self, stage: &Stage, layers: &[LayerBlob]) -> Result<(), RunError> {
        let what = || format!("the layers for stage {} cannot be unpacked", stage.name);
        // One at a time: two stages may need the same layer.
        let mut unpacked = self.unpacked.lock().await;
        self.tidy_once(&mut unpacked).await?;
        for layer in layers {
            if unpacked.layers.contains(&layer.diff_id) {
                continue;
            }
            match unpack_layer(&*self.sandbox, &self.store, &self.events, layer).await {
                Ok(()) => {}
                Err(Trouble::Sandbox(error)) => return Err(RunError::sandbox(what())(error)),
                Err(Trouble::Store(error)) => return Err(self.damaged(what(), error)),
            }
            unpacked.layers.insert(layer.diff_id);
        }
        Ok(())
    }

    /// Removes what failed stages of earlier runs left, unless somebody is about to.
    pub(super) async fn tidy_early(&self) -> Result<(), RunError> {
        match self.unpacked.try_lock() {
            Ok(mut unpacked) => self.tidy_once(&mut unpacked).await,
            // Nobody has to wait for layers that another stage needs.
            Err(_) => Ok(()),
        }
    }

    async fn tidy_once(&self, unpacked: &mut Unpacked) -> Result<(), RunError> {
        if !unpacked.tidied {
            unpacked.layers = self.tidy(&unpacked.layers).await?;
            unpacked.tidied = true;
        }
        Ok(())
    }

    /// The error for something in the store that cannot be read. A damaged blob is set aside, so that the
    /// build can plan again without it.
    pub(super) fn damaged(&self, what: String, error: StoreError) -> RunError {
        let Some(blob) = error.broken_blob() else { return RunError::store(what)(error) };
        match self.store.set_aside(blob) {
            Ok(()) => RunError::DamagedCheckpoint { blob },
            Err(error) => RunError::store(what)(error),
        }
    }

    /// Deletes from the engine what no checkpoint needs, but for the layers that this run has `made` and
    /// may not have stored yet, and what failed stages of earlier runs left; gives the layers that lie
    /// unpacked. Another run may rest on layers that are in no checkpoint: while one lives, all stay.
    async fn tidy(&self, made: &BTreeSet<DiffId>) -> Result<BTreeSet<DiffId>, RunError> {
        let _none_begins = self.home.hold_runs()?;
        let mut living = self.home.living_runs();
        // Also where the file system knows no locks of folders.
        living.insert(self.run.id.clone());
        let is_alone = living.len() == 1;
        let checkpoints = self.store.checkpoints().map_err(RunError::store("the store cannot be read"))?;
        let needed = checkpoints.iter().flat_map(Checkpoint::diff_ids).chain(made.iter().copied()).collect();
        self.sandbox
            .keep_only(&living, Some(&needed).filter(|_| is_alone))
            .await
            .map_err(RunError::sandbox("the engine could not be tidied up"))
    }
}

/// Why a layer cannot be unpacked.
pub(super) enum Trouble {
    Sandbox(SandboxError),
    Store(StoreError),
}

/// Brings a layer back into the engine.
pub(super) async fn unpack_layer(
    sandbox: &dyn Sandbox,
    store: &Store,
    events: &Events,
    layer: &LayerBlob,
) -> Result<(), Trouble> {
    let started = Instant::now();
    let short = layer.diff_id.0.short();
    events.emit(Event::Working { text: format!("unpacking layer {short}") });
    let flow = sandbox.restore(layer.diff_id).await.map_err(Trouble::Sandbox)?;
    let (store, blob) = (store.clone(), layer.clone());
    let written = tokio::task::spawn_blocking(move || store.restore_layer(&blob, flow.bytes));
    let written = written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let done = flow.done.await;
    match (written, done) {
        (Ok(_), Ok(())) => {}
        // tar stops reading when it fails, and says why.
        (Ok(_) | Err(StoreError::Layer(LayerError::Write(_))), Err(error)) => {
            return Err(Trouble::Sandbox(error));
        }
        (Err(error), _) => return Err(Trouble::Store(error)),
    }
    sandbox.settle(layer.diff_id).await.map_err(Trouble::Sandbox)?;
    events.emit(Event::LayerRestored { diff_id: layer.diff_id, seconds: started.elapsed().as_secs_f64() });
    Ok(())
}
