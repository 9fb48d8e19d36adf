//! Whole commands that run something: build a pipeline, test an ISO.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use isokiln_core::boot::{BootReport, CheckSpec, MachineProfile, Verdict};
use isokiln_core::event::Event;
use isokiln_core::exit;
use isokiln_core::names::ProfileName;

use super::boot_test::{BootTests, ReportMemory, TestRequest, test_iso};
use super::build::{Build, BuildOptions, Outcome};
use super::clock::Clock;
use super::error::RunError;
use super::events::Events;
use super::home::{Home, RunFolder};
use super::prepare::build_context;
use super::project::{Project, machine_profiles};
use crate::archive::Fetch;
use crate::sandbox::docker::{BuilderImage, DockerSandbox, Engine, Route, remove_own, sweep};
use crate::sandbox::{CancelWatch, cancelled};
use crate::store::WriterLock;

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

impl Session {
    /// Builds a pipeline and tests its ISO; gives the exit code.
    pub async fn build(
        &self,
        root: &Path,
        project: Project,
        options: BuildOptions,
        testing: Testing,
    ) -> Result<u8, RunError> {
        let started = Instant::now();
        project.digest_inputs()?;
        let engine = self.engine().await?;
        let home = &Home::open(root)?;
        self.sweep(&engine).await?;
        let _lock = self.lock(home).await?;
        let run = self.begin(
            home,
            Some(&project),
            &project.pipeline.stages.iter().map(|stage| stage.name.clone()).collect::<Vec<_>>(),
        )?;
        let mut script_seconds = 0.0;
        let is_partial = options.until.is_some();
        let result = async {
            // First of all: what the archive is may have to be asked of the image.
            let image = self.ensure_image(&engine, None, false, &run.id).await?;
            let context = build_context(home, &project, &engine, Some(&image), &*self.fetch, &self.events);
            let context = self.unless_cancelled(&engine, context).await?;
            let sandbox =
                DockerSandbox::new(engine.clone(), image.name.clone(), home.volume(), run.id.clone());
            let sandbox = Arc::new(sandbox);
            let build = Build::new(
                home,
                run.clone(),
                project.clone(),
                context,
                sandbox.clone(),
                self.events.clone(),
                self.cancel.clone(),
                self.clock.clone(),
                options,
            )?;
            let outcome = build.run().await?;
            script_seconds = outcome.script_seconds;
            if testing == Testing::Never {
                return Ok(exit::OK);
            }
            let tests = BootTests {
                // The build has removed its containers; the tests start with a sandbox of their own.
                sandbox: Arc::new(sandbox.again()),
                builder: image.contents,
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
        self.end(started, script_seconds, &result);
        result
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
        let profiles = known_profiles();
        let profiles: Vec<_> = wanted
            .profiles
            .iter()
            .filter_map(|name| profiles.iter().find(|p| p.name == *name).cloned())
            .collect();
        let store = home.store()?;
        let isos = outcome.artifacts.iter().filter(|path| path.extension().is_some_and(|end| end == "iso"));
        let mut verdicts = Vec::new();
        for iso in isos {
            let request = TestRequest {
                iso: iso.clone(),
                profiles: profiles.clone(),
                checks: wanted.checks.clone(),
                memory: wanted.memory,
                cpus: wanted.cpus,
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

    /// Tests any ISO; gives the exit code and the reports.
    pub async fn test(
        &self,
        root: &Path,
        request: TestRequest,
    ) -> Result<(u8, Vec<BootReport>, PathBuf), RunError> {
        let started = Instant::now();
        // What is not an ISO is refused before anything is started.
        super::boot_test::read_facts(&request.iso)?;
        let engine = self.engine().await?;
        let home = &Home::open(root)?;
        self.sweep(&engine).await?;
        let run = self.begin(home, None, &[])?;
        let result = async {
            let image = self.ensure_image(&engine, None, false, &run.id).await?;
            let sandbox = DockerSandbox::new(engine.clone(), image.name, home.volume(), run.id.clone());
            let tests = BootTests {
                sandbox: Arc::new(sandbox),
                builder: image.contents,
                run: run.clone(),
                events: self.events.clone(),
                cancel: self.cancel.clone(),
            };
            let reports = test_iso(&tests, &request, None).await;
            let destroyed = tests.destroy().await;
            let reports = reports?;
            destroyed.map(|()| reports)
        }
        .await;
        let worst = |reports: &[BootReport]| {
            exit::of_verdict(
                reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Inconclusive),
            )
        };
        let (result, reports) = match result {
            Ok(reports) => (Ok(worst(&reports)), reports),
            Err(error) => (Err(error), Vec::new()),
        };
        self.end(started, 0.0, &result);
        Ok((result?, reports, run.path().to_owned()))
    }

    /// Makes the builder image, or finds it.
    pub async fn image(&self, route: Option<Route>, rebuild: bool) -> Result<BuilderImage, RunError> {
        let engine = self.engine().await?;
        let run = "image".parse().map_err(|_| RunError::Network("bad run id".to_owned()))?;
        self.ensure_image(&engine, route, rebuild, &run).await
    }

    /// The engine, which most commands need.
    pub(super) async fn engine(&self) -> Result<Engine, RunError> {
        Engine::connect().await.map_err(RunError::sandbox("isokiln needs a container engine"))
    }

    /// Waits for the right to write to the folder's store, unless the user wishes to stop.
    pub(super) async fn lock(&self, home: &Home) -> Result<WriterLock, RunError> {
        let (home, events) = (home.clone(), self.events.clone());
        let lock = tokio::task::spawn_blocking(move || {
            home.lock(|holder| events.warn(format!("waiting for {holder}, which writes to the same store")))
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
    async fn sweep(&self, engine: &Engine) -> Result<(), RunError> {
        let gone =
            sweep(engine).await.map_err(RunError::sandbox("what earlier runs left cannot be removed"))?;
        for leftover in gone {
            self.events.warn(format!("removed {} {} of a run that was killed", leftover.kind, leftover.name));
        }
        Ok(())
    }

    fn begin(
        &self,
        home: &Home,
        project: Option<&Project>,
        stages: &[isokiln_core::names::StageName],
    ) -> Result<RunFolder, RunError> {
        let run = home.new_run(&*self.clock)?;
        if project.is_some() {
            home.set_latest(&run);
        }
        self.events.record_to(&run)?;
        self.events.emit(Event::RunStarted {
            run: run.id.clone(),
            pipeline: project.map(|project| project.pipeline.name.clone()),
            stages: stages.to_vec(),
        });
        Ok(run)
    }

    fn end(&self, started: Instant, script_seconds: f64, result: &Result<u8, RunError>) {
        let (exit_code, error) = match result {
            Ok(code) => (*code, None),
            // A failed stage has told for itself.
            Err(error @ RunError::Stage { .. }) => (error.exit_code(), None),
            Err(error) => (error.exit_code(), Some(error.to_string())),
        };
        let seconds = started.elapsed().as_secs_f64();
        self.events.emit(Event::RunFinished { exit_code, seconds, script_seconds, error });
    }
}

fn known_profiles() -> Vec<MachineProfile> {
    machine_profiles().unwrap_or_default()
}

/// Machines and checks by the names given on a command line; all of them where none are.
pub fn choose_profiles(names: &[ProfileName]) -> Result<Vec<MachineProfile>, RunError> {
    let known = known_profiles();
    if names.is_empty() {
        return Ok(known);
    }
    names
        .iter()
        .map(|name| {
            known.iter().find(|profile| profile.name == *name).cloned().ok_or_else(|| {
                let known = known.iter().map(|profile| profile.name.to_string());
                RunError::NoSuchProfile { given: name.to_string(), known: known.collect() }
            })
        })
        .collect()
}

/// What is checked where nothing else is asked for.
pub fn default_checks() -> Vec<CheckSpec> {
    vec![CheckSpec::Boot]
}
