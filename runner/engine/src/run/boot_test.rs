//! Boot tests of a build's ISO, or of any other.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isokiln_core::boot::{BootReport, CheckSpec, IsoFacts, MachineProfile, Verdict, probe_credentials};
use isokiln_core::digest::{Digest, Hasher};
use isokiln_core::event::Event;
use isokiln_core::image::{Artifact, BOOT_REPORT_TYPE, EntryNote, Role, attachment_documents};
use isokiln_core::names::{PipelineName, StageName};
use tokio::sync::mpsc;

use super::error::RunError;
use super::events::Events;
use super::guest::ContainerHost;
use super::home::RunFolder;
use crate::boot::{
    Acceleration, BootError, BootNews, BootRequest, IsoUnderTest, REPORT_FILE, boot, find_acceleration,
    infra_report,
};
use crate::sandbox::docker::DockerSandbox;
use crate::sandbox::{CancelWatch, Sandbox, cancelled};
use crate::store::Store;

/// Everything that boot tests of one run share.
pub(super) struct BootTests {
    /// Where machines run.
    pub(super) sandbox: Arc<DockerSandbox>,
    /// Identity of the builder image, whose QEMU and firmware are used.
    pub(super) builder: String,
    /// The run.
    pub(super) run: RunFolder,
    /// Who is told.
    pub(super) events: Events,
    /// The user's wish to stop.
    pub(super) cancel: CancelWatch,
}

/// What to test.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// The ISO.
    pub iso: PathBuf,
    /// Machines to boot it on.
    pub profiles: Vec<MachineProfile>,
    /// What must hold.
    pub checks: Vec<CheckSpec>,
    /// Bytes of memory; `None` for the profile's own.
    pub memory: Option<u64>,
    /// Processors; `None` for the profile's own.
    pub cpus: Option<u32>,
}

/// Where a report is remembered: in which store, for which pipeline and stage, at what time.
pub(super) struct ReportMemory<'m> {
    /// The store.
    pub(super) store: &'m Store,
    /// The pipeline.
    pub(super) pipeline: PipelineName,
    /// The stage that made the ISO.
    pub(super) stage: StageName,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Whether to test again what has passed before.
    pub(super) retest: bool,
}

/// Boots an ISO on every machine asked for, one after the other.
pub(super) async fn test_iso(
    tests: &BootTests,
    request: &TestRequest,
    memory: Option<&ReportMemory<'_>>,
) -> Result<Vec<BootReport>, RunError> {
    let facts = read_facts(&request.iso)?;
    let (digest, size) = {
        let path = request.iso.clone();
        let hashed = tokio::task::spawn_blocking(move || hash(&path));
        hashed
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            .map_err(|error| RunError::Iso { path: request.iso.clone(), source: error.into() })?
    };
    let name = request.iso.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut reports = Vec::new();
    let mut ready: Option<(Acceleration, String)> = None;
    for profile in &request.profiles {
        let key = key(tests, request, profile, digest);
        if let Some(memory) = memory
            && let Some(report) = remembered(memory, key)
        {
            tests.events.emit(Event::BootFinished {
                report: report.clone(),
                folder: String::new(),
                cached: true,
            });
            reports.push(report);
            continue;
        }
        if ready.is_none() {
            let mut cancel = tests.cancel.clone();
            ready = Some(tokio::select! {
                ready = tests.make_ready(&request.iso, digest) => ready?,
                // What it has begun goes with the containers.
                () = cancelled(&mut cancel) => return Err(RunError::Cancelled),
            });
        }
        let Some((acceleration, path)) = ready.clone() else { continue };
        let boot_request = BootRequest {
            iso: IsoUnderTest { name: name.clone(), digest, size, facts: facts.clone(), path },
            profile: profile.clone(),
            memory: request.memory.unwrap_or(profile.memory),
            cpus: request.cpus.unwrap_or(profile.cpus),
            checks: request.checks.clone(),
            acceleration,
            folder: tests.run.boot(&name, &profile.name),
        };
        let report = tests.boot_once(&boot_request).await?;
        if let Some(memory) = memory {
            remember(memory, tests, key, &report)?;
        }
        let folder = boot_request.folder.display().to_string();
        tests.events.emit(Event::BootFinished { report: report.clone(), folder, cached: false });
        reports.push(report);
    }
    Ok(reports)
}

/// Reads an ISO's boot records.
pub(super) fn read_facts(path: &Path) -> Result<IsoFacts, RunError> {
    let facts = File::open(path).map_err(Into::into).and_then(IsoFacts::read);
    facts.map_err(|source| RunError::Iso { path: path.to_owned(), source })
}

fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    struct Sink(Hasher, u64);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            self.1 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Hasher::new(), 0);
    let mut reader = io::BufReader::with_capacity(1 << 20, File::open(path)?);
    io::copy(&mut reader, &mut sink)?;
    Ok((sink.0.finish(), sink.1))
}

/// What a boot test's result depends on.
fn key(tests: &BootTests, request: &TestRequest, profile: &MachineProfile, iso: Digest) -> Digest {
    let (memory, cpus) = (request.memory, request.cpus);
    Digest::of(format!(
        "{iso} {profile:?} {memory:?} {cpus:?} {:?} {} {:?}",
        request.checks,
        tests.builder,
        probe_credentials()
    ))
}

/// The report of an earlier run that passed; everything else is worth another try.
fn remembered(memory: &ReportMemory<'_>, key: Digest) -> Option<BootReport> {
    if memory.retest {
        return None;
    }
    let entry = memory.store.find(Role::BootReport, key).ok()??;
    let file = memory.store.files(&entry).ok()?.into_iter().find(|file| file.name == REPORT_FILE)?;
    let report: BootReport = serde_json::from_slice(&memory.store.get(file.digest).ok()?).ok()?;
    (report.verdict == Verdict::Pass).then_some(report)
}

fn remember(
    memory: &ReportMemory<'_>,
    tests: &BootTests,
    key: Digest,
    report: &BootReport,
) -> Result<(), RunError> {
    let what = "the boot test's report cannot be stored";
    let json = serde_json::to_vec_pretty(report).unwrap_or_default();
    let digest = memory.store.put(&json).map_err(RunError::store(what))?;
    let file = Artifact { name: REPORT_FILE.to_owned(), digest, size: json.len() as u64 };
    let documents = attachment_documents(BOOT_REPORT_TYPE, &[file], None).map_err(|error| {
        RunError::store(what)(super::artifacts::bad_document(memory.store.root(), &error))
    })?;
    let note = EntryNote {
        role: Role::BootReport,
        key,
        pipeline: memory.pipeline.clone(),
        stage: memory.stage.clone(),
        run: tests.run.id.clone(),
        created: memory.now,
        pinned: false,
    };
    memory.store.add(&documents, note).map(drop).map_err(RunError::store(what))
}

impl BootTests {
    /// Finds the accelerator and puts the ISO where QEMU can read it.
    async fn make_ready(&self, iso: &Path, digest: Digest) -> Result<(Acceleration, String), RunError> {
        self.events.emit(Event::Working { text: "finding out whether KVM runs guests".to_owned() });
        let host = ContainerHost { sandbox: self.sandbox.clone() };
        let mut cancel = self.cancel.clone();
        let found = tokio::select! {
            found = find_acceleration(&host) => found,
            () = cancelled(&mut cancel) => return Err(RunError::Cancelled),
        };
        let acceleration = found.map_err(|error| RunError::Sandbox {
            what: "no machine can be started for a boot test".to_owned(),
            source: crate::sandbox::SandboxError::Helper {
                what: "the canary".to_owned(),
                reason: error.to_string(),
            },
        })?;
        self.events.emit(Event::Working { text: "handing the ISO to the engine".to_owned() });
        let what = "the ISO cannot be handed to the engine";
        let (flow, path) = self.sandbox.iso_inflow(digest).await.map_err(RunError::sandbox(what))?;
        let source = iso.to_owned();
        let mut sink = flow.bytes;
        let copied = tokio::task::spawn_blocking(move || {
            let mut file = File::open(source)?;
            io::copy(&mut file, &mut sink).map(drop)
        });
        let copied = copied.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        flow.done.await.map_err(RunError::sandbox(what))?;
        copied.map_err(|error| RunError::Iso { path: iso.to_owned(), source: error.into() })?;
        Ok((acceleration, path))
    }

    async fn boot_once(&self, request: &BootRequest) -> Result<BootReport, RunError> {
        let profile = request.profile.name.clone();
        self.events.emit(Event::BootStarted {
            profile: profile.clone(),
            accelerator: request.acceleration.accelerator.to_string(),
            reason: request.acceleration.reason.clone(),
        });
        // Evidence of an earlier boot in the same folder would be mixed up with this one's.
        drop(fs::remove_dir_all(&request.folder));
        let host = ContainerHost { sandbox: self.sandbox.clone() };
        let (sender, mut news) = mpsc::unbounded_channel();
        let mut cancel = self.cancel.clone();
        let cancelled = async move { cancelled(&mut cancel).await };
        let telling = async {
            while let Some(item) = news.recv().await {
                let profile = profile.clone();
                self.events.emit(match item {
                    BootNews::Entered(phase, seconds) => Event::BootPhase { profile, phase, seconds },
                    BootNews::Checked(result) => Event::BootCheck { profile, result },
                });
            }
        };
        let (result, ()) = tokio::join!(boot(&host, request, sender, cancelled), telling);
        match result {
            Ok(report) => Ok(report),
            Err(BootError::Cancelled) => Err(RunError::Cancelled),
            Err(error) => {
                let report = infra_report(request, &error);
                for result in report.checks.clone() {
                    self.events.emit(Event::BootCheck { profile: request.profile.name.clone(), result });
                }
                let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
                if let Err(error) = fs::write(request.folder.join(REPORT_FILE), json) {
                    self.events.warn(format!("the report cannot be written: {error}"));
                }
                Ok(report)
            }
        }
    }

    /// Removes everything that the tests left in the engine.
    pub(super) async fn destroy(&self) -> Result<(), RunError> {
        let dropped = self.sandbox.drop_isos().await;
        let destroyed = self.sandbox.destroy().await;
        dropped.and(destroyed).map_err(RunError::sandbox("the engine could not be tidied up"))
    }
}
