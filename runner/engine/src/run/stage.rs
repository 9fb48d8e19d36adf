//! Running one stage: its parent's layers unpacked, its script run, its changes made a checkpoint.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use isokiln_core::event::Event;
use isokiln_core::image::{Checkpoint, EntryNote, LayerBlob, Role, checkpoint_documents};
use isokiln_core::kind::RootfsUse;
use isokiln_core::layer::LayerError;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::Stage;
use isokiln_core::plan::{Change, StageInputs};
use tokio::sync::mpsc;

use super::artifacts::bad_document;
use super::build::Build;
use super::error::RunError;
use super::failure::explain;
use super::prepare::PROXY_VARIABLES;
use crate::sandbox::{ContainerFile, StageExit, StageMessage, StageOutput, StageSpec};
use crate::store::{StoreError, StoredLayer};

/// Lines of a failed stage's log that are shown.
const TAIL: usize = 20;
/// Longest line told to whoever watches, in bytes.
const LONGEST_LINE: usize = 2000;
/// Messages and output that may wait between container and log.
const WAITING: usize = 256;

impl Build {
    /// Runs a stage and stores its checkpoint.
    pub(super) async fn run_stage(
        &mut self,
        stage: &Stage,
        inputs: StageInputs,
        changes: Option<&[Change]>,
        parent: Option<&Checkpoint>,
    ) -> Result<Checkpoint, RunError> {
        let started = Instant::now();
        let changed = changes.unwrap_or_default().iter().map(|change| change.input.clone()).collect();
        let below: Vec<LayerBlob> = parent.map(|parent| parent.layers.clone()).unwrap_or_default();
        self.unpack(stage, &below).await?;
        self.events.emit(Event::StageStarted { stage: stage.name.clone(), changed });

        let (log_path, log) = self.run.log(&stage.name)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let spec = self.spec(stage, &below);
        let listening = listen(receiver, log, &stage.name, &self.events);
        let (end, heard) = tokio::join!(self.sandbox.run_stage(spec, sender, self.cancel.clone()), listening);
        let end = end.map_err(RunError::sandbox(format!("stage {} could not be run", stage.name)))?;
        let heard = heard.map_err(|source| self.run.error(&log_path, source))?;
        if end.exit != StageExit::Status(0) {
            end.dismissed
                .await
                .map_err(RunError::sandbox(format!("stage {} could not be ended", stage.name)))?;
            if end.exit == StageExit::Cancelled {
                return Err(RunError::Cancelled);
            }
            let failure =
                explain(end.exit, heard.failed, end.free, &stage.limits, stage.network, &heard.tail);
            return Err(self.failed(stage, failure.cause, failure.hint, &log_path, heard.tail));
        }
        self.script_seconds += end.script_time.as_secs_f64();

        let keeps_changes = self.kind(stage).is_none_or(|kind| kind.rootfs != RootfsUse::Read);
        let (stored, dismissed) = tokio::join!(self.capture_if(keeps_changes, stage), end.dismissed);
        let mut layers = below;
        layers.extend(stored?.map(|stored| stored.blob));
        let usage =
            dismissed.map_err(RunError::sandbox(format!("stage {} could not be ended", stage.name)))?;
        let checkpoint = self.store_checkpoint(stage, inputs, layers, parent, keeps_changes).await?;
        self.events.emit(Event::StageFinished {
            stage: stage.name.clone(),
            manifest: checkpoint.manifest,
            script_seconds: end.script_time.as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
            usage,
        });
        Ok(checkpoint)
    }

    fn failed(
        &self,
        stage: &Stage,
        cause: String,
        hint: Option<String>,
        log: &Path,
        tail: Vec<String>,
    ) -> RunError {
        self.events.emit(Event::StageFailed {
            stage: stage.name.clone(),
            cause: cause.clone(),
            hint: hint.clone(),
            log: log.display().to_string(),
            tail,
        });
        RunError::Stage { stage: stage.name.clone(), cause, hint }
    }

    fn spec(&self, stage: &Stage, below: &[LayerBlob]) -> StageSpec {
        let kind = self.kind(stage);
        let system = &self.project.pipeline.system;
        let mut environment: BTreeMap<String, String> = [
            ("PIPELINE", self.project.pipeline.name.to_string()),
            ("STAGE", stage.name.to_string()),
            ("DISTRIBUTION", system.distribution.name().to_owned()),
            ("SUITE", system.suite.clone()),
            ("ARCHITECTURE", system.architecture.name().to_owned()),
            ("COMPONENTS", system.components.join(",")),
            ("ISOKILN_ENVIRONMENT", stage.environment.join(" ")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
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
            layers: below.iter().map(|layer| layer.diff_id).collect(),
            rootfs: kind.map_or(RootfsUse::Change, |kind| kind.rootfs),
            privilege: kind.map_or(isokiln_core::kind::Privilege::Chroot, |kind| kind.privilege),
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

    /// Brings the layers that a stage starts from back into the engine, where they are not there.
    async fn unpack(&mut self, stage: &Stage, layers: &[LayerBlob]) -> Result<(), RunError> {
        let what = || format!("the layers for stage {} cannot be unpacked", stage.name);
        if self.unpacked.is_none() {
            self.tidy().await?;
            self.unpacked = Some(self.sandbox.unpacked().await.map_err(RunError::sandbox(what()))?);
        }
        let there = self.unpacked.clone().unwrap_or_default();
        for layer in layers.iter().filter(|layer| !there.contains(&layer.diff_id)) {
            let started = Instant::now();
            let short = layer.diff_id.0.short();
            self.events.emit(Event::Working { text: format!("unpacking layer {short}") });
            let flow = self.sandbox.restore(layer.diff_id).await.map_err(RunError::sandbox(what()))?;
            let (store, blob) = (self.store.clone(), layer.clone());
            let written = tokio::task::spawn_blocking(move || store.restore_layer(&blob, flow.bytes));
            let written = written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            let done = flow.done.await;
            match written {
                // tar stops reading when it fails, and says why.
                Err(StoreError::Layer(LayerError::Write(_))) | Ok(_) => {
                    done.map_err(RunError::sandbox(what()))?
                }
                Err(error) => return Err(self.damaged(stage, error)),
            }
            self.sandbox.settle(layer.diff_id).await.map_err(RunError::sandbox(what()))?;
            self.events.emit(Event::LayerRestored {
                diff_id: layer.diff_id,
                seconds: started.elapsed().as_secs_f64(),
            });
            if let Some(unpacked) = &mut self.unpacked {
                unpacked.insert(layer.diff_id);
            }
        }
        Ok(())
    }

    /// Forgets checkpoints that rest on a broken blob, so that the next build does without them.
    pub(super) fn damaged(&self, stage: &Stage, error: StoreError) -> RunError {
        let what = format!("the layers for stage {} cannot be unpacked", stage.name);
        let Some(blob) = error.broken_blob() else { return RunError::store(what)(error) };
        match self.store.forget_blob(blob) {
            Ok(gone) => {
                let mut forgotten: Vec<_> = gone.iter().map(|entry| entry.note.stage.to_string()).collect();
                forgotten.dedup();
                RunError::DamagedCheckpoint {
                    stage: stage.name.clone(),
                    damaged: blob.to_string(),
                    forgotten,
                }
            }
            Err(error) => RunError::store(what)(error),
        }
    }

    async fn capture_if(&self, keeps_changes: bool, stage: &Stage) -> Result<Option<StoredLayer>, RunError> {
        if keeps_changes { self.capture(stage).await.map(Some) } else { Ok(None) }
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

    async fn store_checkpoint(
        &mut self,
        stage: &Stage,
        inputs: StageInputs,
        layers: Vec<LayerBlob>,
        parent: Option<&Checkpoint>,
        keeps_changes: bool,
    ) -> Result<Checkpoint, RunError> {
        let what = || format!("the checkpoint of stage {} cannot be stored", stage.name);
        let mut chain = parent.and_then(|parent| self.chains.get(&parent.stage)).cloned().unwrap_or_default();
        chain.push((stage.name.clone(), keeps_changes));
        let pipeline = self.project.pipeline.name.clone();
        let documents = checkpoint_documents(&pipeline, &chain, &inputs, &layers, self.context.epoch)
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
        // Artifacts first: a checkpoint that is there must have its artifacts.
        let manifest = isokiln_core::digest::Digest::of(&documents.manifest);
        let subject = (manifest, documents.manifest.len() as u64);
        let files = self.store_artifacts(stage, subject, note.clone()).await?;
        let entry = self.store.add(&documents, note).map_err(RunError::store(what()))?;
        if let (true, Some(top)) = (keeps_changes, layers.last()) {
            self.sandbox
                .adopt(&self.run.id, &stage.name, top.diff_id)
                .await
                .map_err(RunError::sandbox(what()))?;
            if let Some(unpacked) = &mut self.unpacked {
                unpacked.insert(top.diff_id);
            }
        }
        self.chains.insert(stage.name.clone(), chain);
        self.delivered.extend(self.deliver(stage, &files)?);
        self.store.checkpoint(&entry).map_err(RunError::store(what()))
    }
}

/// What a stage said while it ran.
struct Heard {
    failed: Option<(String, String)>,
    tail: Vec<String>,
}

/// Writes the log and passes on what a stage says, until it has ended.
async fn listen(
    mut output: mpsc::Receiver<StageOutput>,
    log: File,
    stage: &StageName,
    events: &super::events::Events,
) -> std::io::Result<Heard> {
    let mut log = BufWriter::new(log);
    let mut lines = Lines::default();
    let mut failed = None;
    let mut broken = None;
    while let Some(item) = output.recv().await {
        match item {
            StageOutput::Log(bytes) => {
                // The stage goes on though its log cannot: draining keeps it from blocking.
                if broken.is_none()
                    && let Err(error) = log.write_all(&bytes)
                {
                    broken = Some(error);
                }
                for text in lines.feed(&bytes) {
                    events.emit(Event::StageLine { stage: stage.clone(), text });
                }
            }
            StageOutput::Message(message) => {
                let stage = stage.clone();
                match message {
                    StageMessage::Note(text) => events.emit(Event::Note { stage: Some(stage), text }),
                    StageMessage::Warning(text) => events.emit(Event::Warning { stage: Some(stage), text }),
                    StageMessage::Progress(text) => events.emit(Event::StageProgress { stage, text }),
                    StageMessage::Failed { cause, hint } => drop(failed.get_or_insert((cause, hint))),
                    StageMessage::Free { .. } | StageMessage::Ended(_) => {}
                }
            }
            StageOutput::Usage(usage) => events.emit(Event::StageUsage { stage: stage.clone(), usage }),
        }
    }
    match broken {
        Some(error) => return Err(error),
        None => log.flush()?,
    }
    Ok(Heard { failed, tail: lines.tail() })
}

/// Cuts output into lines that can be shown.
#[derive(Default)]
struct Lines {
    unfinished: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    fn feed(&mut self, bytes: &Bytes) -> Vec<String> {
        let mut shown = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.unfinished.len() < LONGEST_LINE {
                let room = LONGEST_LINE - self.unfinished.len();
                self.unfinished.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            if piece.ends_with(b"\n") {
                let line = printable(&std::mem::take(&mut self.unfinished));
                if self.last.len() == TAIL {
                    self.last.pop_front();
                }
                self.last.push_back(line.clone());
                shown.push(line);
            }
        }
        shown
    }

    fn tail(mut self) -> Vec<String> {
        let rest = printable(&self.unfinished);
        if !rest.is_empty() {
            self.last.push_back(rest);
        }
        self.last.into()
    }
}

/// A line as text that does nothing to a terminal: what a progress display last drew, without colours.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // A control sequence ends with a letter.
            '\u{1b}' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            '\t' => out.push(' '),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_joined_and_made_printable() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&Bytes::from_static(b"one\ntw")), ["one"]);
        assert_eq!(
            lines.feed(&Bytes::from_static(b"o\n\x1b[31mred\x1b[0m\n10%\r20%\n")),
            ["two", "red", "20%"]
        );
        assert_eq!(lines.feed(&Bytes::from_static(b"\xff\x00bin\nend")), ["\u{fffd}\u{fffd}bin"]);
        assert_eq!(lines.tail().last().unwrap(), "end");
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::default();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..20 {
            assert!(lines.feed(&piece).is_empty());
        }
        assert!(lines.unfinished.len() <= LONGEST_LINE);
        assert_eq!(lines.feed(&Bytes::from_static(b"\n"))[0].len(), LONGEST_LINE);
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.feed(&Bytes::from(format!("{number}\n")));
        }
        let tail = lines.tail();
        assert_eq!((tail.len(), tail[0].as_str()), (TAIL, "80"));
    }
}
