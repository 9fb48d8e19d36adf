//! A sandbox that runs nothing. It remembers what it is asked, in order, keeps account of the layers and
//! trees that an engine would hold, and fails, waits or has things happen where a test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use isokiln_core::digest::DiffId;
use isokiln_core::event::Usage;
use isokiln_core::names::{RunId, StageName};
use isokiln_core::review::Room;
use tokio::sync::{mpsc, watch};

use crate::sandbox::{
    Cancel, CancelWatch, Inflow, Outflow, Sandbox, SandboxError, StageEnd, StageExit, StageOutput, StageSpec,
    Tree, cancelled_now,
};

/// A moment that is recorded, and that a test can make fail or hold up: a call, or the end of what it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    Prepare,
    KeepOnly,
    Restore,
    Restored,
    Settle,
    RunStage,
    Dismissed,
    PrepareLayer,
    Capture,
    Captured,
    Adopt,
    Artifact,
    Fetched,
    Again,
    Destroy,
}

impl Point {
    /// Those at which a failure ends the build; preparing a layer and coming back do not.
    pub(super) const ALL: [Self; 13] = [
        Self::Prepare,
        Self::KeepOnly,
        Self::Restore,
        Self::Restored,
        Self::Settle,
        Self::RunStage,
        Self::Dismissed,
        Self::Capture,
        Self::Captured,
        Self::Adopt,
        Self::Artifact,
        Self::Fetched,
        Self::Destroy,
    ];
}

/// A point, and what it was about: a stage, an artifact, a layer, or nothing.
pub(super) type Call = (Point, String);

/// What a stage does when it is run.
#[derive(Clone)]
pub(super) struct Act {
    /// How its script ends.
    pub(super) exit: StageExit,
    /// What it prints and says.
    pub(super) output: Vec<StageOutput>,
    /// What it writes into its one file; its script's text where nothing is said.
    pub(super) writes: Option<String>,
    /// Files that it leaves.
    pub(super) artifacts: Vec<(String, Vec<u8>)>,
    /// Room in the engine when it failed.
    pub(super) rooms: Vec<Room>,
    /// Whether the tar of what it changed breaks off.
    pub(super) cut_short: bool,
}

impl Default for Act {
    fn default() -> Self {
        Self {
            exit: StageExit::Status(0),
            output: Vec::new(),
            writes: None,
            artifacts: Vec::new(),
            rooms: Vec::new(),
            cut_short: false,
        }
    }
}

/// What the tests want of the sandbox.
#[derive(Default)]
struct Orders {
    /// What each stage does each time it is run; the last for all further times.
    acts: BTreeMap<String, Vec<Act>>,
    /// Which call of a point fails, counted from one.
    failures: Vec<(Point, usize, SandboxError)>,
    /// What the user wishes at which call of all, counted from one.
    wish: Option<(usize, Cancel, watch::Sender<Cancel>)>,
    /// How often each call gives way to others, one number a call, over and over.
    idle: Vec<u8>,
    /// Whether what unpacks layers stops reading.
    stops_reading: bool,
}

/// What lies in the engine.
#[derive(Default)]
struct Volume {
    layers: BTreeSet<DiffId>,
    /// Layers being unpacked, with what has arrived.
    arriving: BTreeMap<DiffId, Arc<Mutex<Vec<u8>>>>,
    /// Tar of what the stages of a run changed, and the layer that it has become.
    work: BTreeMap<(RunId, String), (Vec<u8>, Option<DiffId>)>,
}

impl Volume {
    fn holds(&self, run: &RunId, tree: &Tree) -> bool {
        match tree {
            Tree::Layer(layer) => self.layers.contains(layer),
            Tree::Work(stage) => self
                .work
                .get(&(run.clone(), stage.to_string()))
                .is_some_and(|(_, layer)| layer.is_none_or(|layer| self.layers.contains(&layer))),
        }
    }
}

#[derive(Default)]
struct Inner {
    calls: watch::Sender<Vec<Call>>,
    held: watch::Sender<BTreeSet<Call>>,
    orders: Mutex<Orders>,
    volume: Mutex<Volume>,
    specs: Mutex<Vec<StageSpec>>,
    /// Scripts running now, and the most that ever were.
    running: Mutex<(usize, usize)>,
}

/// The sandbox; clones share everything.
#[derive(Clone, Default)]
pub(super) struct FakeSandbox(Arc<Inner>);

/// What tests tell it and ask of it.
impl FakeSandbox {
    /// How a stage behaves from now on.
    pub(super) fn act(&self, stage: &str, act: Act) {
        self.acts(stage, vec![act]);
    }

    /// How a stage behaves each time it is run; the last for all further times.
    pub(super) fn acts(&self, stage: &str, acts: Vec<Act>) {
        locked(&self.0.orders).acts.insert(stage.to_owned(), acts);
    }

    /// Makes the `nth` call of a point fail, counted from one.
    pub(super) fn fail(&self, point: Point, nth: usize) {
        let error = SandboxError::Helper { what: format!("{point:?}"), reason: "made to fail".to_owned() };
        self.fail_with(point, nth, error);
    }

    /// As [`Self::fail`], with that error.
    pub(super) fn fail_with(&self, point: Point, nth: usize, error: SandboxError) {
        locked(&self.0.orders).failures.push((point, nth, error));
    }

    /// Has the user wish something at the `nth` call of all.
    pub(super) fn wish_at(&self, nth: usize, wish: Cancel, cancel: watch::Sender<Cancel>) {
        locked(&self.0.orders).wish = Some((nth, wish, cancel));
    }

    /// What unpacks layers stops reading, from now on.
    pub(super) fn stop_reading(&self) {
        locked(&self.0.orders).stops_reading = true;
    }

    /// How often each call gives way to others.
    pub(super) fn idle(&self, idle: Vec<u8>) {
        locked(&self.0.orders).idle = idle;
    }

    /// Makes everything go well from now on, and forgets what was.
    pub(super) fn recover(&self) {
        *locked(&self.0.orders) = Orders::default();
        self.0.held.send_replace(BTreeSet::new());
        self.forget_calls();
    }

    /// Begins a new record.
    pub(super) fn forget_calls(&self) {
        self.0.calls.send_replace(Vec::new());
        locked(&self.0.specs).clear();
    }

    /// Loses everything that lies in the engine.
    pub(super) fn lose_volume(&self) {
        *locked(&self.0.volume) = Volume::default();
    }

    /// Keeps a call from getting on until it is let go.
    pub(super) fn hold(&self, point: Point, subject: &str) {
        self.0.held.send_if_modified(|held| held.insert((point, subject.to_owned())));
    }

    /// Lets a call go on.
    pub(super) fn let_go(&self, point: Point, subject: &str) {
        self.0.held.send_if_modified(|held| held.remove(&(point, subject.to_owned())));
    }

    /// Waits until a call is made.
    pub(super) async fn reached(&self, point: Point, subject: &str) {
        let call = (point, subject.to_owned());
        self.0.calls.subscribe().wait_for(|calls| calls.contains(&call)).await.unwrap();
    }

    /// Waits until one of two stages is run; gives its name. Which it is may be left to chance.
    pub(super) async fn first_run<'s>(&self, one: &'s str, other: &'s str) -> &'s str {
        let is_run = |calls: &[Call], stage: &str| calls.contains(&(Point::RunStage, stage.to_owned()));
        let mut calls = self.0.calls.subscribe();
        let calls = calls.wait_for(|calls| is_run(calls, one) || is_run(calls, other)).await.unwrap();
        if is_run(&calls, one) { one } else { other }
    }

    /// Every call so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.0.calls.borrow().clone()
    }

    /// What the stages that have been run were given.
    pub(super) fn specs(&self) -> Vec<StageSpec> {
        locked(&self.0.specs).clone()
    }

    /// The most scripts that ever ran at the same time.
    pub(super) fn most_running(&self) -> usize {
        locked(&self.0.running).1
    }
}

impl Inner {
    /// Records a call, waits as long as it is held, fails if it must.
    async fn enter(&self, point: Point, subject: &str) -> Result<(), SandboxError> {
        let failure = self.record(point, subject).await;
        self.pass(point, subject).await;
        failure.map_or(Ok(()), Err)
    }

    /// Records a call; gives the error that it must end with.
    async fn record(&self, point: Point, subject: &str) -> Option<SandboxError> {
        self.calls.send_modify(|calls| calls.push((point, subject.to_owned())));
        let (count, nth) = {
            let calls = self.calls.borrow();
            (calls.len(), calls.iter().filter(|(other, _)| *other == point).count())
        };
        let (failure, idle) = {
            let mut orders = locked(&self.orders);
            if let Some((at, wish, cancel)) = &orders.wish
                && *at == count
            {
                cancel.send_replace(*wish);
            }
            let due = orders.failures.iter().position(|(other, at, _)| (*other, *at) == (point, nth));
            let idle = if orders.idle.is_empty() { 0 } else { orders.idle[count % orders.idle.len()] };
            (due.map(|index| orders.failures.remove(index).2), idle)
        };
        for _ in 0..idle {
            tokio::task::yield_now().await;
        }
        failure
    }

    async fn pass(&self, point: Point, subject: &str) {
        let call = (point, subject.to_owned());
        self.held.subscribe().wait_for(|held| !held.contains(&call)).await.unwrap();
    }

    fn act_of(&self, stage: &StageName) -> Act {
        let mut orders = locked(&self.orders);
        let Some(acts) = orders.acts.get_mut(stage.as_str()) else { return Act::default() };
        if acts.len() > 1 { acts.remove(0) } else { acts.first().cloned().unwrap_or_default() }
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    async fn prepare(&self) -> Result<Option<String>, SandboxError> {
        self.0.enter(Point::Prepare, "").await.map(|()| None)
    }

    async fn restore(&self, layer: DiffId) -> Result<Inflow, SandboxError> {
        let subject = layer.0.short();
        self.0.enter(Point::Restore, &subject).await?;
        let arriving = Arc::new(Mutex::new(Vec::new()));
        locked(&self.0.volume).arriving.insert(layer, arriving.clone());
        let inner = self.0.clone();
        Ok(Inflow {
            bytes: Box::new(Sink { arriving, broken: locked(&self.0.orders).stops_reading }),
            done: Box::pin(async move { inner.enter(Point::Restored, &subject).await }),
        })
    }

    async fn settle(&self, layer: DiffId) -> Result<(), SandboxError> {
        self.0.enter(Point::Settle, &layer.0.short()).await?;
        let mut volume = locked(&self.0.volume);
        let arrived = volume.arriving.remove(&layer).ok_or_else(|| refused("find what was unpacked"))?;
        // The end of a tar: two blocks of zeros.
        if !locked(&arrived).ends_with(&[0; 1024]) {
            return Err(refused("unpack all of the layer"));
        }
        volume.layers.insert(layer);
        Ok(())
    }

    async fn run_stage(
        &self,
        spec: StageSpec,
        output: mpsc::Sender<StageOutput>,
        mut cancel: CancelWatch,
    ) -> Result<StageEnd, SandboxError> {
        let stage = spec.stage.to_string();
        let failure = self.0.record(Point::RunStage, &stage).await;
        if let Some(tree) = spec.trees.iter().find(|tree| !locked(&self.0.volume).holds(&spec.run, tree)) {
            return Err(refused(&format!("find {tree:?}")));
        }
        locked(&self.0.specs).push(spec.clone());
        let act = self.0.act_of(&spec.stage);
        for item in act.output {
            output.send(item).await.unwrap();
        }
        let running = Running::begin(&self.0);
        let exit = tokio::select! {
            biased;
            () = cancelled_now(&mut cancel) => StageExit::Cancelled,
            () = self.0.pass(Point::RunStage, &stage) => act.exit,
        };
        drop(running);
        if let Some(error) = failure {
            return Err(error);
        }
        let mut tar = tar_of(&act.writes.unwrap_or_else(|| script_of(&spec)));
        if act.cut_short {
            tar.truncate(600);
        }
        locked(&self.0.volume).work.insert((spec.run, stage.clone()), (tar, None));
        let inner = self.0.clone();
        Ok(StageEnd {
            exit,
            dismissed: Box::pin(async move {
                inner.enter(Point::Dismissed, &stage).await?;
                Ok(Usage { memory_peak: 42, ..Usage::default() })
            }),
            script_time: Duration::from_secs(1),
            artifacts: act.artifacts.into_iter().map(|(name, _)| name).collect(),
            rooms: act.rooms,
            resolves: None,
            surroundings: None,
        })
    }

    async fn prepare_layer(&self, spec: StageSpec, mut cancel: CancelWatch) -> Result<(), SandboxError> {
        let [tree @ Tree::Layer(layer)] = spec.trees.as_slice() else { return Err(refused("see one layer")) };
        let subject = format!("{} {}", spec.stage, layer.0.short());
        let failure = self.0.record(Point::PrepareLayer, &subject).await;
        if !locked(&self.0.volume).holds(&spec.run, tree) {
            return Err(refused(&format!("find {tree:?}")));
        }
        tokio::select! {
            biased;
            () = cancelled_now(&mut cancel) => Err(refused("go on")),
            () = self.0.pass(Point::PrepareLayer, &subject) => failure.map_or(Ok(()), Err),
        }
    }

    async fn capture(&self, run: &RunId, stage: &StageName) -> Result<Outflow, SandboxError> {
        self.0.enter(Point::Capture, stage.as_str()).await?;
        let work = locked(&self.0.volume).work.get(&(run.clone(), stage.to_string())).cloned();
        let (tar, _) = work.ok_or_else(|| refused("find what the stage changed"))?;
        let (inner, stage) = (self.0.clone(), stage.clone());
        Ok(Outflow {
            bytes: Box::new(Cursor::new(tar)),
            done: Box::pin(async move { inner.enter(Point::Captured, stage.as_str()).await }),
        })
    }

    async fn adopt(&self, run: &RunId, stage: &StageName, layer: DiffId) -> Result<(), SandboxError> {
        self.0.enter(Point::Adopt, stage.as_str()).await?;
        let mut volume = locked(&self.0.volume);
        let work = volume.work.get_mut(&(run.clone(), stage.to_string()));
        work.ok_or_else(|| refused("find what the stage changed"))?.1 = Some(layer);
        volume.layers.insert(layer);
        Ok(())
    }

    async fn artifact(&self, _: &RunId, stage: &StageName, name: &str) -> Result<Outflow, SandboxError> {
        self.0.enter(Point::Artifact, name).await?;
        let act = locked(&self.0.orders).acts.get(stage.as_str()).and_then(|acts| acts.last().cloned());
        let artifact = act.unwrap_or_default().artifacts.into_iter().find(|(other, _)| other == name);
        let (_, bytes) = artifact.ok_or_else(|| refused("find the artifact"))?;
        let (inner, name) = (self.0.clone(), name.to_owned());
        Ok(Outflow {
            bytes: Box::new(Cursor::new(bytes)),
            done: Box::pin(async move { inner.enter(Point::Fetched, &name).await }),
        })
    }

    async fn keep_only(
        &self,
        runs: &BTreeSet<RunId>,
        layers: Option<&BTreeSet<DiffId>>,
    ) -> Result<BTreeSet<DiffId>, SandboxError> {
        self.0.enter(Point::KeepOnly, "").await?;
        let mut volume = locked(&self.0.volume);
        if let Some(layers) = layers {
            volume.layers.retain(|layer| layers.contains(layer));
            volume.arriving.clear();
        }
        volume.work.retain(|(run, _), _| runs.contains(run));
        Ok(volume.layers.clone())
    }

    async fn weigh(&self, _: &BTreeSet<RunId>, layers: &BTreeSet<DiffId>) -> Result<u64, SandboxError> {
        Ok(locked(&self.0.volume).layers.difference(layers).count() as u64 * 1000)
    }

    async fn free_space(&self) -> Result<(u64, u64), SandboxError> {
        Ok((1 << 40, 1 << 20))
    }

    async fn again(&self) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.0.enter(Point::Again, "").await?;
        Ok(Arc::new(self.clone()))
    }

    async fn destroy(&self) -> Result<(), SandboxError> {
        self.0.enter(Point::Destroy, "").await
    }
}

/// Counts a script while it runs, also if nobody waits for its end.
struct Running<'i>(&'i Inner);

impl<'i> Running<'i> {
    fn begin(inner: &'i Inner) -> Self {
        let mut running = locked(&inner.running);
        running.0 += 1;
        running.1 = running.1.max(running.0);
        Self(inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        locked(&self.0.running).0 -= 1;
    }
}

/// Where a layer that is unpacked arrives.
struct Sink {
    arriving: Arc<Mutex<Vec<u8>>>,
    broken: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.broken {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        locked(&self.arriving).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The tar of a tree with one file of that text.
pub(super) fn tar_of(text: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", text.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

/// The script of a stage, or its name where its kind brings one along.
fn script_of(spec: &StageSpec) -> String {
    let options = spec.files.iter().find(|file| file.path == "/isokiln/options.json").unwrap();
    let options: serde_json::Value = serde_json::from_slice(&options.bytes).unwrap();
    options["run"].as_str().unwrap_or(spec.stage.as_str()).to_owned()
}

fn refused(action: &str) -> SandboxError {
    SandboxError::Refused { action: action.to_owned(), reason: "it is not there".to_owned() }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
