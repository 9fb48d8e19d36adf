//! Whole commands that run something: build a pipeline, test an ISO.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use isokiln_core::boot::{BootReport, Comparison, Verdict};
use isokiln_core::event::Event;
use isokiln_core::exit;
use isokiln_core::pipeline::ReviewWhen;
use isokiln_core::session::Place;
use serde::Serialize;

use super::boot_test::{BootTests, ReportMemory, TestRequest, file_name, test_iso};
use super::budget::Budget;
use super::build::{Build, BuildOptions, Edges, Outcome};
use super::clock::Clock;
use super::council::council;
use super::error::RunError;
use super::events::{Events, Lost};
use super::home::{Home, RunFolder};
use super::hub::{Hub, Listening};
use super::mirrors::ArchiveMirrors;
use super::prepare::{build_context, machine_sources};
use super::project::Project;
use super::recover::Consent;
use super::results::compare;
use super::room::without_run_room;
use crate::archive::Fetch;
use crate::sandbox::docker::{BuilderImage, DockerSandbox, Engine, Route, remove_own, sweep};
use crate::sandbox::{CancelWatch, cancelled};
use crate::store::{Writer, WriterLock};

/// The edges that a command uses.
pub struct Session {
    /// Who is told.
    pub events: Events,
    /// The user's wish to stop.
    pub cancel: CancelWatch,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The network.
    pub fetch: Arc<dyn Fetch>,
    /// Who is asked before a failed stage is run again.
    pub consent: Arc<dyn Consent>,
    /// Who else watches runs, and may stop them.
    pub hub: Hub,
    /// Where the command was started.
    pub place: Place,
    /// Whether this process has a session of its own, and another one watches it.
    pub supervised: bool,
}

/// Whether a build's ISO is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Testing {
    /// As the pipeline says; what has passed before is not tested again.
    AsNeeded,
    /// As the pipeline says, in any case.
    Always,
    /// Not at all.
    Never,
}

/// What came of testing an ISO.
#[derive(Debug, Clone, Serialize)]
pub struct Tested {
    /// What each machine said of the ISO.
    pub reports: Vec<BootReport>,
    /// What each machine said of the ISO that it is compared with.
    pub baseline: Vec<BootReport>,
    /// What has changed, for each machine.
    pub comparison: Vec<Comparison>,
    /// The run's folder.
    pub folder: PathBuf,
    /// For the process to end with: the ISO's own, whatever the other one came to.
    pub exit_code: u8,
}

impl Session {
    /// Builds a pipeline and tests its ISO; gives the exit code.
    pub async fn build(
        &self,
        root: &Path,
        project: Project,
        mut options: BuildOptions,
        testing: Testing,
    ) -> Result<u8, RunError> {
        let started = Instant::now();
        project.digest_inputs()?;
        let council = match project.pipeline.review {
            ReviewWhen::Off => None,
            ReviewWhen::EveryStage | ReviewWhen::OnFailure => {
                Some(Arc::new(council(project.file.parent(), root)?))
            }
        };
        let engine = self.engine().await?;
        if options.parallel.is_none() {
            let facts = self.until_cancelled(engine.facts()).await?;
            let facts = facts.map_err(RunError::sandbox("the engine does not describe itself"))?;
            options.parallel = Some(Budget::new(facts.cpus, facts.memory).stages());
        }
        let home = &Home::open(root)?;
        self.sweep(&engine, home).await?;
        let (run, _listening) = self.begin(
            home,
            Some(&project),
            &project.pipeline.stages.iter().map(|stage| stage.name.clone()).collect::<Vec<_>>(),
            None,
        )?;
        let mut script_seconds = 0.0;
        let is_partial = options.until.is_some();
        let result = async {
            let _lock = self.lock(home, Writer::Build(project.pipeline.name.clone())).await?;
            home.tidy_store(&run.id)?;
            home.set_latest(&run);
            // First of all: what the archive is may have to be asked of the image.
            let image = self.ensure_image(&engine, None, false, &run.id).await?;
            let context = build_context(home, &project, &engine, Some(&image), &*self.fetch, &self.events);
            let context = self.unless_cancelled(&engine, context).await?;
            let sandbox =
                DockerSandbox::new(engine.clone(), image.name.clone(), home.volume(), run.id.clone());
            let sandbox = Arc::new(sandbox);
            let mirrors = ArchiveMirrors::new(
                self.fetch.clone(),
                self.clock.clone(),
                project.pipeline.system.clone(),
                machine_sources(),
            );
            let edges = Edges {
                sandbox: sandbox.clone(),
                events: self.events.clone(),
                cancel: self.cancel.clone(),
                clock: self.clock.clone(),
                mirrors: Arc::new(mirrors),
                consent: self.consent.clone(),
                council: council.clone(),
            };
            let build = Build::new(home, run.clone(), project.clone(), context, edges, options)?;
            let outcome = build.run().await?;
            script_seconds = outcome.script_seconds;
            if testing == Testing::Never {
                return Ok(exit::OK);
            }
            let tests = BootTests {
                // The build has removed its containers; the tests start with a sandbox of their own.
                sandbox: Arc::new(sandbox.again()),
                home: home.clone(),
                builder: image,
                run: run.clone(),
                events: self.events.clone(),
                cancel: self.cancel.clone(),
            };
            let code = self.test_artifacts(home, &project, &tests, &outcome, testing).await;
            let destroyed = tests.destroy().await;
            let code = code?;
            destroyed?;
            if code.is_none() && project.pipeline.boot_test.is_some() && !is_partial {
                self.events
                    .warn("[boot-test] has tested nothing: no stage has left a file that ends in .iso");
                return Ok(exit::BOOT_INCONCLUSIVE);
            }
            Ok(code.unwrap_or(exit::OK))
        }
        .await;
        self.end(started, script_seconds, result.as_ref().copied());
        self.unless_lost(home, result)
    }

    /// Boots the ISOs that a build has left; gives the exit code, or `None` where there was nothing to test.
    async fn test_artifacts(
        &self,
        home: &Home,
        project: &Project,
        tests: &BootTests,
        outcome: &Outcome,
        testing: Testing,
    ) -> Result<Option<u8>, RunError> {
        let Some(wanted) = &project.pipeline.boot_test else { return Ok(None) };
        let profiles = project.testbed.named(&wanted.profiles);
        let store = home.store()?;
        let isos = outcome.artifacts.iter().filter(|path| path.extension().is_some_and(|end| end == "iso"));
        let mut verdicts = Vec::new();
        for iso in isos {
            let request = TestRequest {
                iso: iso.clone(),
                name: file_name(iso),
                profiles: profiles.clone(),
                left_out: Vec::new(),
                checks: wanted.checks.clone(),
                memory: wanted.memory,
                cpus: wanted.cpus,
                unattended: wanted.unattended,
                accelerator: None,
                channel: None,
            };
            let memory = outcome.makers.get(iso).map(|maker| ReportMemory {
                store: &store,
                pipeline: project.pipeline.name.clone(),
                stage: maker.clone(),
                now: self.clock.seconds(),
                retest: testing == Testing::Always,
            });
            let reports = test_iso(tests, &request, memory.as_ref()).await?;
            verdicts.extend(reports.iter().map(|report| report.verdict));
        }
        Ok(verdicts.into_iter().max().map(exit::of_verdict))
    }

    /// Tests any ISO, and another one before it to compare it with.
    pub async fn test(
        &self,
        root: &Path,
        mut request: TestRequest,
        mut baseline: Option<TestRequest>,
    ) -> Result<Tested, RunError> {
        let started = Instant::now();
        if let Some(baseline) = &mut baseline {
            request.align(baseline);
        }
        let engine = self.engine().await?;
        let home = &Home::open(root)?;
        self.sweep(&engine, home).await?;
        let (run, _listening) =
            self.begin(home, None, &[], baseline.as_ref().map(|baseline| baseline.name.clone()))?;
        let result = async {
            let image = self.ensure_image(&engine, None, false, &run.id).await?;
            let sandbox =
                DockerSandbox::new(engine.clone(), image.name.clone(), home.volume(), run.id.clone());
            let tests = BootTests {
                sandbox: Arc::new(sandbox),
                home: home.clone(),
                builder: image,
                run: run.clone(),
                events: self.events.clone(),
                cancel: self.cancel.clone(),
            };
            let reports = async {
                let old = match &baseline {
                    Some(baseline) => test_iso(&tests, baseline, None).await?,
                    None => Vec::new(),
                };
                Ok::<_, RunError>((old, test_iso(&tests, &request, None).await?))
            }
            .await;
            let destroyed = tests.destroy().await;
            let (old, reports) = reports?;
            destroyed?;
            let comparison = match &baseline {
                Some(_) => compare(&run, &old, &reports)?,
                None => Vec::new(),
            };
            for comparison in comparison.clone() {
                self.events.emit(Event::BootCompared { comparison: Box::new(comparison) });
            }
            let worst = reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Inconclusive);
            let folder = run.path().to_owned();
            Ok(Tested { reports, baseline: old, comparison, folder, exit_code: exit::of_verdict(worst) })
        }
        .await;
        self.end(started, 0.0, result.as_ref().map(|tested| tested.exit_code));
        self.unless_lost(home, result)
    }

    /// Makes the builder image, or finds it.
    pub async fn image(&self, route: Option<Route>, rebuild: bool) -> Result<BuilderImage, RunError> {
        let engine = self.engine().await?;
        let run = "image".parse().map_err(|_| RunError::Network("bad run id".to_owned()))?;
        self.ensure_image(&engine, route, rebuild, &run).await
    }

    /// The engine, which most commands need.
    pub(super) async fn engine(&self) -> Result<Engine, RunError> {
        let connected = self.until_cancelled(Engine::connect()).await?;
        connected.map_err(RunError::sandbox("isokiln needs a container engine"))
    }

    /// Waits for the right to write to the folder's store, unless the user wishes to stop.
    pub(super) async fn lock(&self, home: &Home, writer: Writer) -> Result<WriterLock, RunError> {
        let (home, events) = (home.clone(), self.events.clone());
        let lock = tokio::task::spawn_blocking(move || {
            home.lock(&writer, |holder| events.emit(Event::Waiting { holder: holder.to_owned() }))
        });
        self.until_cancelled(lock)
            .await?
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Does what can be dropped at any time without a trace, until the user wishes to stop.
    pub(super) async fn until_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, RunError> {
        let mut cancel = self.cancel.clone();
        tokio::select! {
            done = work => Ok(done),
            () = cancelled(&mut cancel) => Err(RunError::Cancelled),
        }
    }

    /// Does what leaves nothing but containers when it is dropped, until the user wishes to stop; then
    /// removes them.
    pub(super) async fn unless_cancelled<T>(
        &self,
        engine: &Engine,
        work: impl Future<Output = Result<T, RunError>>,
    ) -> Result<T, RunError> {
        match self.until_cancelled(work).await {
            Ok(result) => result,
            Err(cancelled) => {
                remove_own(engine).await.map_err(RunError::sandbox("the engine could not be tidied up"))?;
                Err(cancelled)
            }
        }
    }

    /// Removes what killed processes have left.
    pub(super) async fn sweep(&self, engine: &Engine, home: &Home) -> Result<(), RunError> {
        let gone = self.until_cancelled(sweep(engine)).await?;
        let gone = gone.map_err(RunError::sandbox("what earlier runs left cannot be removed"))?;
        for leftover in gone {
            self.events.warn(format!("removed {} {} of a run that was killed", leftover.kind, leftover.name));
        }
        for view in home.run_views() {
            if view.sweep_socket() {
                self.events.warn(format!("removed the socket of run {}, which was killed", view.name()));
            }
        }
        Ok(())
    }

    fn begin(
        &self,
        home: &Home,
        project: Option<&Project>,
        stages: &[isokiln_core::names::StageName],
        baseline: Option<String>,
    ) -> Result<(RunFolder, Option<Listening>), RunError> {
        let run = home.new_run(&*self.clock)?;
        if self.supervised {
            let log = run.supervisor_log()?;
            nix::unistd::dup2_stderr(&log).map_err(|error| run.error(run.path(), error.into()))?;
        }
        let listening = self.hub.listen(run.path());
        self.events.record_to(&run)?;
        self.events.emit(Event::RunStarted {
            run: run.id.clone(),
            pipeline: project.map(|project| project.pipeline.name.clone()),
            stages: stages.to_vec(),
            baseline,
            place: Some(self.place),
            foreground: !self.supervised,
        });
        if let Err(error) = &listening {
            self.events.warn(format!("isokiln attach and cancel do not reach this run: {error}"));
        }
        Ok((run, listening.ok()))
    }

    /// A run that went well has not, if its record did not become whole.
    fn unless_lost<T>(&self, home: &Home, result: Result<T, RunError>) -> Result<T, RunError> {
        match (result, self.events.take_lost()) {
            (Ok(_), Some(Lost { stage: Some(stage), error })) => Err(without_run_room(home, &stage, error)),
            (Ok(_), Some(Lost { error, .. })) => Err(error),
            (result, _) => result,
        }
    }

    fn end(&self, started: Instant, script_seconds: f64, result: Result<u8, &RunError>) {
        let exit_code = result.unwrap_or_else(|error| error.exit_code());
        // A failed stage has told for itself.
        let error = result.err().filter(|error| !matches!(error, RunError::Stage { .. }));
        self.events.emit(Event::RunFinished {
            exit_code,
            seconds: started.elapsed().as_secs_f64(),
            script_seconds,
            error: error.map(RunError::to_string),
            causes: error.map(RunError::causes).unwrap_or_default(),
            hint: error.and_then(RunError::hint),
        });
    }
}
