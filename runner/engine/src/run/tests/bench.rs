//! What a test of builds needs: a project that can change, a home that stays, and what each build left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isokiln_core::archive::ArchiveState;
use isokiln_core::digest::{DiffId, Digest};
use isokiln_core::event::Event;
use isokiln_core::image::Checkpoint;
use isokiln_core::pipeline::{Pipeline, Vocabulary};
use isokiln_core::plan::BuildContext;
use isokiln_core::review::Recover;
use tempfile::TempDir;
use tokio::sync::watch;

use super::advice::{FakeConsent, FakeMirrors};
use super::disk::QuickDisk;
use super::fake::{Act, Call, FakeSandbox, Point};
use crate::kinds::Kinds;
use crate::review::Council;
use crate::run::{
    Build, BuildOptions, Clock, Edges, Events, Home, Outcome, Project, Reporter, RunError, rollback,
};
use crate::sandbox::{Cancel, CancelWatch};
use crate::store::{Compression, Store};
use crate::testbed::Testbed;

/// A project with its home and its engine.
pub(super) struct Bench {
    pub(super) sandbox: FakeSandbox,
    pub(super) options: BuildOptions,
    pub(super) cancel: watch::Sender<Cancel>,
    pub(super) seen: Arc<Seen>,
    /// Files that can be made or named in the store from now on.
    pub(super) room: usize,
    stages: String,
    /// Lines of the pipeline file before its first table.
    pub(super) head: String,
    pub(super) mirrors: Arc<FakeMirrors>,
    pub(super) consent: Arc<FakeConsent>,
    pub(super) council: Option<Arc<Council>>,
    clock: Arc<Ticks>,
    home: Home,
    folder: TempDir,
}

/// Longer than any build here takes on the slowest machine: one that waits for ever fails.
const LONGEST: Duration = Duration::from_secs(60);

/// What a build left.
pub(super) struct Finished {
    pub(super) result: Result<Outcome, RunError>,
    pub(super) calls: Vec<Call>,
    pub(super) events: Vec<Event>,
    pub(super) folder: PathBuf,
}

/// A stage that runs a script on top of the one before it.
pub(super) fn script(name: &str, run: &str) -> String {
    format!("[[stage]]\nname = {name:?}\nrun = {run:?}\n")
}

/// A stage that runs a script on top of another.
pub(super) fn branch(name: &str, from: &str, run: &str) -> String {
    format!("[[stage]]\nname = {name:?}\nfrom = {from:?}\nrun = {run:?}\n")
}

/// A stage that makes an ISO, and what it leaves unless told otherwise.
pub(super) const ISO: &str = "[[stage]]\nname = \"iso\"\nuses = \"iso\"\n";

/// An act that leaves a file.
pub(super) fn leaves(name: &str, bytes: &str) -> Act {
    Act { artifacts: vec![(name.to_owned(), bytes.as_bytes().to_vec())], ..Act::default() }
}

impl Bench {
    /// A project whose stage `base` is followed by these.
    pub(super) fn new(stages: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home")).unwrap();
        Self {
            sandbox: FakeSandbox::default(),
            // Starts fewer threads than zstd does.
            options: BuildOptions {
                compression: Compression::Gzip,
                recover: Recover::Off,
                ..BuildOptions::default()
            },
            mirrors: Arc::default(),
            consent: Arc::default(),
            council: None,
            cancel: watch::Sender::new(Cancel::No),
            seen: Arc::default(),
            room: usize::MAX,
            stages: stages.to_owned(),
            head: String::new(),
            clock: Arc::default(),
            home,
            folder,
        }
    }

    /// The project is edited.
    pub(super) fn edit(&mut self, stages: &str) {
        stages.clone_into(&mut self.stages);
    }

    /// The user rolls back to a stage's newest checkpoint.
    pub(super) fn pin(&self, stage: &str) {
        rollback(&self.store(), &self.checkpoint(stage).unwrap()).unwrap();
    }

    /// A path in the project's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The project has these settings for hooks, and these stages.
    pub(super) fn stages_with_hooks(&mut self, settings: &str, stages: &str) {
        self.stages = format!("{stages}[hooks]\n{settings}\n");
    }

    /// Builds the project.
    pub(super) async fn build(&self) -> Finished {
        self.build_with(self.cancel.subscribe()).await
    }

    /// Builds the project for a user who wishes elsewhere.
    pub(super) async fn build_with(&self, cancel: CancelWatch) -> Finished {
        self.sandbox.forget_calls();
        self.seen.0.send_replace(Vec::new());
        let run = self.home.new_run(&*self.clock).unwrap();
        let folder = run.path().to_owned();
        let seen: Arc<dyn Reporter> = self.seen.clone();
        let events = Events::new([seen], self.clock.clone());
        events.record_to(&run).unwrap();
        let project = self.project();
        let context = BuildContext {
            kinds: project.kinds.catalog.clone(),
            library: Digest::of("library"),
            builder: "builder".to_owned(),
            archive: ArchiveState::default(),
            epoch: 1,
            files: BTreeMap::new(),
            environment: BTreeMap::new(),
        };
        let edges = Edges {
            sandbox: Arc::new(self.sandbox.clone()),
            events,
            cancel,
            clock: self.clock.clone(),
            mirrors: self.mirrors.clone(),
            consent: self.consent.clone(),
            council: self.council.clone(),
        };
        let mut build = Build::new(&self.home, run, project, context, edges, self.options.clone()).unwrap();
        build.store =
            Store::open_on(build.store.root().to_owned(), Arc::new(QuickDisk::new(self.room))).unwrap();
        let result = tokio::time::timeout(LONGEST, build.run()).await.expect("a build that does not end");
        Finished { result, calls: self.sandbox.calls(), events: self.seen.0.borrow().clone(), folder }
    }

    /// Builds the project, which must go well.
    pub(super) async fn build_well(&self) -> Finished {
        let finished = self.build().await;
        if let Err(error) = &finished.result {
            panic!("{}", chain(error));
        }
        finished
    }

    fn project(&self) -> Project {
        let kinds = Kinds::bundled().unwrap();
        let text = format!(
            "name = \"demo\"\n{}\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\n\
             [[stage]]\nname = \"base\"\nuses = \"bootstrap\"\n{}",
            self.head, self.stages
        );
        let testbed = Testbed::default();
        let vocabulary = Vocabulary { kinds: &kinds.catalog, profiles: &[], checks: &testbed.checks };
        let pipeline = Pipeline::parse(&text, vocabulary).unwrap();
        Project { file: self.path("demo.toml"), pipeline, kinds, testbed }
    }

    pub(super) fn store(&self) -> Store {
        self.home.store().unwrap()
    }

    /// The newest checkpoint of a stage.
    pub(super) fn checkpoint(&self, stage: &str) -> Option<Checkpoint> {
        self.store().newest(None, &stage.parse().unwrap()).unwrap()
    }

    /// Layers of every stage's newest checkpoint.
    pub(super) fn layers(&self) -> BTreeMap<String, Vec<DiffId>> {
        let checkpoints = self.store().checkpoints().unwrap();
        checkpoints.iter().map(|it| (it.stage.to_string(), it.diff_ids())).collect()
    }

    /// Stages that have a checkpoint, sorted.
    pub(super) fn stored(&self) -> Vec<String> {
        self.layers().into_keys().collect()
    }

    /// Fails unless every byte of the store is as it should be.
    #[track_caller]
    pub(super) fn assert_store_is_whole(&self) {
        assert_eq!(self.store().verify(|_| ()).unwrap().damage, []);
    }

    /// Where a blob lies.
    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.store().root().join("blobs/sha256").join(digest.hex())
    }
}

impl Finished {
    /// The error that the build ended with.
    #[track_caller]
    pub(super) fn error(&self) -> &RunError {
        self.result.as_ref().unwrap_err()
    }

    /// Stages that were run, in order.
    pub(super) fn ran(&self) -> Vec<&str> {
        self.subjects(Point::RunStage)
    }

    /// What the calls of a point were about, in order.
    pub(super) fn subjects(&self, point: Point) -> Vec<&str> {
        self.calls.iter().filter(|(other, _)| *other == point).map(|(_, subject)| subject.as_str()).collect()
    }

    /// How many calls of a point there were.
    pub(super) fn count(&self, point: Point) -> usize {
        self.subjects(point).len()
    }

    /// Stages whose checkpoints were used.
    pub(super) fn hits(&self) -> Vec<&str> {
        let hits = self.events.iter().filter_map(|event| match event {
            Event::StageHit { stage, .. } => Some(stage.as_str()),
            _ => None,
        });
        hits.collect()
    }

    /// Stages whose checkpoints were made.
    pub(super) fn stored(&self) -> Vec<&str> {
        let stored = self.events.iter().filter_map(|event| match event {
            Event::CheckpointStored { stage, .. } => Some(stage.as_str()),
            _ => None,
        });
        stored.collect()
    }

    /// Why a stage was run, as it was told.
    pub(super) fn changed(&self, name: &str) -> Option<&[String]> {
        self.events.iter().find_map(|event| match event {
            Event::StageStarted { stage, changed } if stage.as_str() == name => Some(changed.as_slice()),
            _ => None,
        })
    }

    /// What the reviews came to, as `stage verdict`, sorted.
    pub(super) fn reviewed(&self) -> Vec<String> {
        let reviewed = self.events.iter().filter_map(|event| match event {
            Event::StageReviewed { stage, review, .. } => {
                let verdict = serde_json::to_value(review.verdict).unwrap();
                Some(format!("{stage} {}", verdict.as_str().unwrap()))
            }
            _ => None,
        });
        let mut reviewed: Vec<_> = reviewed.collect();
        reviewed.sort();
        reviewed
    }

    /// What was done about failed stages, as `stage action`, in order.
    pub(super) fn recoveries(&self) -> Vec<String> {
        let recoveries = self.events.iter().filter_map(|event| match event {
            Event::StageRecovering { stage, action, .. } => Some(format!("{stage} {action}")),
            _ => None,
        });
        recoveries.collect()
    }

    /// Warnings, in order.
    pub(super) fn warnings(&self) -> Vec<&str> {
        let warnings = self.events.iter().filter_map(|event| match event {
            Event::Warning { text, .. } => Some(text.as_str()),
            _ => None,
        });
        warnings.collect()
    }
}

/// An error with everything behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Watches a run.
#[derive(Default)]
pub(super) struct Seen(watch::Sender<Vec<Event>>);

impl Seen {
    /// Waits until a stage's checkpoint is in the store.
    pub(super) async fn stored(&self, name: &str) {
        let stored =
            |event: &Event| matches!(event, Event::CheckpointStored { stage, .. } if stage.as_str() == name);
        self.0.subscribe().wait_for(|events| events.iter().any(stored)).await.unwrap();
    }
}

impl Seen {
    /// Waits until something was told.
    pub(super) async fn told(&self, is_it: impl Fn(&Event) -> bool) {
        self.0.subscribe().wait_for(|events| events.iter().any(&is_it)).await.unwrap();
    }
}

impl Reporter for Seen {
    fn event(&self, event: &Event, _at: f64) {
        self.0.send_modify(|events| events.push(event.clone()));
    }
}

/// A clock that gets on by a second whenever it is looked at.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn nanoseconds(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)) * 1_000_000_000
    }
}
