//! Making what a stage changed and left a checkpoint.

use std::time::Instant;

use isokiln_core::digest::Digest;
use isokiln_core::event::Event;
use isokiln_core::image::{
    Artifact, CIRCUMSTANCES_TYPE, Checkpoint, Circumstances, EntryNote, LayerBlob, Role,
    attachment_documents, canonical_json, checkpoint_documents,
};
use isokiln_core::kind::RootfsUse;
use isokiln_core::layer::LayerError;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::Stage;

use super::artifacts::bad_document;
use super::build::Build;
use super::error::RunError;
use super::failure::Failure;
use super::schedule::Saved;
use super::stage::Ran;
use crate::store::{StoreError, StoredLayer};

impl Build {
    /// Stores the checkpoint of a stage that has run, and what it left.
    pub(super) async fn save(
        &self,
        stage: &Stage,
        ran: Ran,
        parent: Option<&Saved>,
    ) -> Result<(Checkpoint, Vec<Artifact>), RunError> {
        let what = || format!("the checkpoint of stage {} cannot be stored", stage.name);
        let started = Instant::now();
        let below: Vec<LayerBlob> = parent.map(|parent| parent.checkpoint.layers.clone()).unwrap_or_default();
        let diff_ids: Vec<_> = below.iter().map(|layer| layer.diff_id).collect();
        let inputs =
            isokiln_core::plan::stage_inputs(&self.project.pipeline, &ran.stage, &diff_ids, &ran.context);
        let capturing = async {
            if !self.adds_layer(stage) {
                return Ok::<_, RunError>(None);
            }
            let stored = self.capture(stage).await?;
            self.adopt(stage, &stored.blob).await?;
            Ok(Some(stored.blob))
        };
        let fetching = self.fetch_artifacts(stage, ran.artifacts);
        let (stored, files, dismissed) = tokio::join!(capturing, fetching, ran.dismissed);
        let new = stored?;
        let usage =
            dismissed.map_err(RunError::sandbox(format!("stage {} could not be ended", stage.name)))?;
        let files = files?;

        let layers: Vec<LayerBlob> = below.into_iter().chain(new).collect();
        let pipeline = self.project.pipeline.name.clone();
        let chain = self.chain(stage, parent);
        let documents = checkpoint_documents(&pipeline, &chain, &inputs, &layers, ran.context.epoch)
            .map_err(|error| RunError::store(what())(bad_document(self.store.root(), &error)))?;
        let note = EntryNote {
            role: Role::Checkpoint,
            key: inputs.key(),
            pipeline,
            stage: stage.name.clone(),
            run: self.run.id.clone(),
            created: self.clock.seconds(),
            pinned: false,
        };
        let subject = (Digest::of(&documents.manifest), documents.manifest.len() as u64);
        // The checkpoint comes last, because one that is there must have its artifacts.
        self.enter_artifacts(stage, &files, subject, note.clone())?;
        let circumstances = Circumstances {
            stage: stage.name.clone(),
            run: self.run.id.clone(),
            created: note.created,
            manifest: subject.0,
            key: note.key,
            surroundings: ran.surroundings,
            review: self.reviewer.memory(&stage.name),
            setting: ran.setting,
        };
        self.enter_circumstances(&circumstances, subject, note.clone())?;
        let entry = self.store.add(&documents, note).map_err(RunError::store(what()))?;
        let checkpoint = self.store.checkpoint(&entry).map_err(RunError::store(what()))?;
        self.reviewer.kept(self.reviewer.coordination.checkpoint(&stage.name, &circumstances));
        self.run.forget_unfinished(&stage.name);
        self.events.emit(Event::CheckpointStored {
            stage: stage.name.clone(),
            manifest: checkpoint.manifest,
            seconds: started.elapsed().as_secs_f64(),
            usage,
        });
        Ok((checkpoint, files))
    }

    /// Enters the record of a checkpoint's making in the index, attached to the checkpoint's manifest `subject`.
    fn enter_circumstances(
        &self,
        circumstances: &Circumstances,
        subject: (Digest, u64),
        note: EntryNote,
    ) -> Result<(), RunError> {
        let what = || format!("the circumstances of stage {} cannot be stored", circumstances.stage);
        let json = canonical_json(circumstances);
        let name = Circumstances::FILE.to_owned();
        let file = Artifact { name, digest: Digest::of(&json), size: json.len() as u64 };
        let mut documents = attachment_documents(CIRCUMSTANCES_TYPE, &[file], Some(subject))
            .map_err(|error| RunError::store(what())(bad_document(self.store.root(), &error)))?;
        documents.blobs.push(json);
        let note = EntryNote { role: Role::Circumstances, ..note };
        self.store.add(&documents, note).map(drop).map_err(RunError::store(what()))
    }

    /// Whether a stage of this kind changes the root file system.
    pub(super) fn adds_layer(&self, stage: &Stage) -> bool {
        self.kind(stage).is_none_or(|kind| kind.rootfs != RootfsUse::Read)
    }

    /// The stages that led to this one and itself, each with whether it added a layer.
    pub(super) fn chain(&self, stage: &Stage, parent: Option<&Saved>) -> Vec<(StageName, bool)> {
        let mut chain = parent.map(|parent| parent.chain.clone()).unwrap_or_default();
        chain.push((stage.name.clone(), self.adds_layer(stage)));
        chain
    }

    async fn adopt(&self, stage: &Stage, layer: &LayerBlob) -> Result<(), RunError> {
        let what = format!("what stage {} changed cannot be kept in the engine", stage.name);
        // Locked meanwhile, so that nobody tidies away a layer that is not known yet.
        let mut unpacked = self.unpacked.lock().await;
        let adopted = self.sandbox.adopt(&self.run.id, &stage.name, layer.diff_id).await;
        adopted.map_err(RunError::sandbox(what))?;
        unpacked.layers.insert(layer.diff_id);
        Ok(())
    }

    async fn capture(&self, stage: &Stage) -> Result<StoredLayer, RunError> {
        let what = || format!("what stage {} changed cannot be captured", stage.name);
        let started = Instant::now();
        let flow =
            self.sandbox.capture(&self.run.id, &stage.name).await.map_err(RunError::sandbox(what()))?;
        let (store, compression) = (self.store.clone(), self.options.compression);
        let stored = tokio::task::spawn_blocking(move || store.add_layer(flow.bytes, compression));
        let stored = stored.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let done = flow.done.await;
        let stored = match (stored, done) {
            (Ok(stored), Ok(())) => stored,
            // What the script made is at fault, not the store.
            (Err(StoreError::Layer(error)), _) if error.is_about_contents() => {
                let hint = "let the stage remove it or give it another name, then build again".to_owned();
                let failure = Failure { cause: error.to_string(), hint: Some(hint) };
                return Err(self.failed(stage, failure, Vec::new()));
            }
            // A full disk here breaks the pipe there; a tar that fails there cuts the stream short here.
            (Err(error), _) if !matches!(error, StoreError::Layer(LayerError::CutShort)) => {
                return Err(RunError::store(what())(error));
            }
            (_, Err(error)) => return Err(RunError::sandbox(what())(error)),
            (Err(error), Ok(())) => return Err(RunError::store(what())(error)),
        };
        self.events.emit(Event::LayerStored {
            stage: stage.name.clone(),
            diff_id: stored.blob.diff_id,
            unpacked: stored.unpacked,
            stored: stored.blob.size,
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(stored)
    }
}
