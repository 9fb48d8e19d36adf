//! A build from its first stage to the last verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use isokiln_core::archive::ArchiveState;
use isokiln_core::kind::Kind;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::{ReviewWhen, Stage};
use isokiln_core::plan::BuildContext;
use isokiln_core::review::{Recover, redact};
use tokio::sync::Mutex;

use super::attempts::Recovery;
use super::clock::Clock;
use super::error::RunError;
use super::events::Events;
use super::home::{Home, RunFolder};
use super::mirrors::{Mirrors, stand_in};
use super::project::Project;
use super::recover::Consent;
use super::reviewer::Reviewer;
use super::reviews::{Reviews, broken_off};
use super::unpack::Unpacked;
use crate::review::Council;
use crate::sandbox::{Cancel, CancelWatch, Sandbox, cancelled};
use crate::store::{Compression, Store};

/// Times that a build waits for its engine.
const MOST_RETURNS: usize = 3;
/// How long it waits each time, and how often it asks.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);
const ENGINE_PAUSE: Duration = Duration::from_millis(500);
/// Share of a build's time that it waits at its end for reviews that only advise, and what it waits at least.
const REVIEWS_SHARE: f64 = 0.01;
const REVIEWS_LEAST: Duration = Duration::from_millis(500);

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
    /// Who decides whether a failed stage is run again.
    pub recover: Recover,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            until: None,
            from: None,
            compression: Compression::Zstd,
            parallel: None,
            recover: Recover::Auto,
        }
    }
}

/// The edges of a build.
pub struct Edges {
    /// Where stages run.
    pub sandbox: Arc<dyn Sandbox>,
    /// Who is told.
    pub events: Events,
    /// The user's wish to stop.
    pub cancel: CancelWatch,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The package archive's mirrors.
    pub mirrors: Arc<dyn Mirrors>,
    /// Who is asked before a failed stage is run again.
    pub consent: Arc<dyn Consent>,
    /// Agents that review stages besides the rules.
    pub council: Option<Arc<Council>>,
}

/// A build in progress.
pub struct Build {
    pub(super) home: Home,
    pub(super) store: Store,
    pub(super) run: RunFolder,
    pub(super) project: Project,
    /// States of the archive that another mirror has taken the place of, the oldest first.
    replaced: std::sync::Mutex<Vec<ArchiveState>>,
    context: RwLock<Arc<BuildContext>>,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) events: Events,
    pub(super) cancel: CancelWatch,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) mirrors: Arc<dyn Mirrors>,
    pub(super) consent: Arc<dyn Consent>,
    pub(super) options: BuildOptions,
    pub(super) unpacked: Mutex<Unpacked>,
    pub(super) reviewer: Arc<Reviewer>,
    pub(super) reviews: Reviews,
    pub(super) recovery: Recovery,
    /// Held while a person is asked.
    pub(super) asking: Mutex<()>,
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
    pub fn new(
        home: &Home,
        run: RunFolder,
        project: Project,
        context: BuildContext,
        edges: Edges,
        options: BuildOptions,
    ) -> Result<Self, RunError> {
        let store = home.store()?;
        let reviewer = Reviewer::new(home, &run, &project, edges.council, edges.events.clone())?;
        Ok(Self {
            home: home.clone(),
            store,
            run,
            project,
            replaced: std::sync::Mutex::default(),
            context: RwLock::new(Arc::new(context)),
            sandbox: edges.sandbox,
            events: edges.events,
            cancel: edges.cancel,
            clock: edges.clock,
            mirrors: edges.mirrors,
            consent: edges.consent,
            options,
            unpacked: Mutex::default(),
            reviewer: Arc::new(reviewer),
            reviews: Reviews::default(),
            recovery: Recovery::default(),
            asking: Mutex::default(),
            outcome: std::sync::Mutex::default(),
        })
    }

    /// Runs every stage whose checkpoint is not there. What runs in the engine is gone afterwards,
    /// whatever happened.
    pub async fn run(mut self) -> Result<Outcome, RunError> {
        let started = Instant::now();
        let mut returns = 0;
        let mut cancel = self.cancel.clone();
        tokio::select! {
            () = self.preflight() => {}
            () = cancelled(&mut cancel) => {}
        }
        let result = loop {
            match self.run_stages().await {
                // The blob is out of the way; the next round does without what rests on it.
                Err(RunError::DamagedCheckpoint { blob }) => {
                    self.events.warn(format!("blob {blob} in the store is damaged"));
                }
                // What is not trusted runs in the next round.
                Err(RunError::RolledBack { .. }) => {}
                Err(error) if error.is_engine_gone() && self.waits_for_engine(returns) => {
                    returns += 1;
                    self.events.warn(format!("{}; waiting for it to come back", told_in_full(&error)));
                    let Some(sandbox) = self.engine_again().await else {
                        let is_wished = *self.cancel.borrow() != Cancel::No;
                        break Err(if is_wished { RunError::Cancelled } else { error });
                    };
                    self.sandbox = sandbox;
                    self.unpacked = Mutex::default();
                    self.events.warn("the container engine is back; going on from the last checkpoint");
                }
                result => break result,
            }
        };
        let destroyed = self.sandbox.destroy().await;
        if let (Err(_), Err(error)) = (&result, &destroyed) {
            // The first error is the one to end with.
            self.events.warn(format!("the engine could not be tidied up: {error}"));
        }
        let left = self.reviews.end(started.elapsed().mul_f64(REVIEWS_SHARE).max(REVIEWS_LEAST)).await;
        if left > 0 {
            self.events.emit(broken_off(left));
        }
        result?;
        destroyed.map_err(RunError::sandbox("the engine could not be tidied up"))?;
        Ok(self.outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a build whose engine has gone away waits for it.
    fn waits_for_engine(&self, returns: usize) -> bool {
        let reviews = self.project.pipeline.review != ReviewWhen::Off;
        let asked = *self.cancel.borrow();
        reviews && self.options.recover == Recover::Auto && returns < MOST_RETURNS && asked == Cancel::No
    }

    /// Waits until the engine answers again and what it had of this run is gone; `None` where it does not.
    async fn engine_again(&self) -> Option<Arc<dyn Sandbox>> {
        let mut cancel = self.cancel.clone();
        let waiting = async {
            loop {
                match self.sandbox.again().await {
                    Ok(sandbox) => return Some(sandbox),
                    Err(error) => tracing::debug!("the engine is not back yet: {error}"),
                }
                tokio::time::sleep(ENGINE_PAUSE).await;
            }
        };
        tokio::select! {
            sandbox = waiting => sandbox,
            () = tokio::time::sleep(ENGINE_PATIENCE) => None,
            () = cancelled(&mut cancel) => None,
        }
    }

    /// What stages rest on now.
    pub(super) fn context(&self) -> Arc<BuildContext> {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a root file system's own sources must be changed by, because a mirror that they may name has failed: a
    /// script for sed.
    pub(super) fn stand_ins(&self, now: &ArchiveState) -> String {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.iter().map(|before| stand_in(before, now)).collect()
    }

    /// Another mirror stands in for the archive's, from now on.
    pub(super) fn set_archive(&self, archive: ArchiveState) {
        if let Some(suite) = archive.0.first() {
            let text = format!("the archive at {} stands in for the one that failed", suite.uri);
            self.events.warn(redact(&text));
        }
        let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(context.archive.clone());
        *context = Arc::new(BuildContext { archive, ..(**context).clone() });
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
        let mut wanted = vec![self.project.stage(until)?.name.clone()];
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
            forced.insert(self.project.stage(from)?.name.clone());
        }
        add_descendants(&mut forced, stages);
        // What has been made anew for its own sake is not made again in a later round.
        forced.retain(|stage| !self.recovery.was_made(stage));
        let mut distrusted = self.recovery.distrusted();
        add_descendants(&mut distrusted, stages);
        forced.extend(distrusted);
        Ok(forced)
    }

    pub(super) fn kind(&self, stage: &Stage) -> Option<&Kind> {
        self.project.kinds.catalog.get(stage.kind.as_str())
    }
}

/// Adds the stages that rest on those of the set; each comes after its parent.
fn add_descendants(set: &mut BTreeSet<StageName>, stages: &[Stage]) {
    for stage in stages {
        if stage.parent.as_ref().is_some_and(|parent| set.contains(parent)) {
            set.insert(stage.name.clone());
        }
    }
}

/// An error with what it comes from.
pub(super) fn told_in_full(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
