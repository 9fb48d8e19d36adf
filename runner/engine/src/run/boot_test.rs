//! Boot tests of a build's ISO, or of any other.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isokiln_core::boot::{
    Accelerator, BootReport, Channel, CheckSpec, Expectation, Expectations, Inspection, MachineProfile,
    OnScreen, Outlook, Ride, Verdict, plan_rides, probe_digest,
};
use isokiln_core::digest::{Digest, Hasher};
use isokiln_core::event::Event;
use isokiln_core::image::{Artifact, BOOT_REPORT_TYPE, EntryNote, Role, attachment_documents};
use isokiln_core::names::{PipelineName, ProfileName, StageName};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::budget::Budget;
use super::error::RunError;
use super::events::Events;
use super::guest::ContainerHost;
use super::home::{Home, RunFolder};
use crate::boot::{
    Acceleration, BootError, BootNews, BootRequest, IsoUnderTest, REPORT_FILE, boot, can_compare,
    find_acceleration, infra_report,
};
use crate::inspect::inspect;
use crate::sandbox::docker::{BuilderImage, DockerSandbox};
use crate::sandbox::{CancelWatch, Sandbox, cancelled};
use crate::store::Store;
use crate::testbed::Testbed;

/// Everything that boot tests of one run share.
pub(super) struct BootTests {
    /// Where machines run.
    pub(super) sandbox: Arc<DockerSandbox>,
    /// The folder, for what is remembered from run to run.
    pub(super) home: Home,
    /// The builder image, whose QEMU and firmware are used.
    pub(super) builder: BuilderImage,
    /// The run.
    pub(super) run: RunFolder,
    /// Who is told.
    pub(super) events: Events,
    /// The user's wish to stop.
    pub(super) cancel: CancelWatch,
}

/// What the machines of one ISO are started with.
struct Ready {
    acceleration: Acceleration,
    budget: Budget,
    /// Where QEMU finds the ISO.
    path: String,
}

/// What the canary found out, and under which circumstances.
#[derive(Serialize, Deserialize)]
struct Canary {
    key: Digest,
    acceleration: Acceleration,
}

/// What to test.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// The ISO.
    pub iso: PathBuf,
    /// What it is called in reports: its file name.
    pub name: String,
    /// Machines to boot it on.
    pub profiles: Vec<MachineProfile>,
    /// Machines that nobody has named and the ISO does not promise to boot on.
    pub left_out: Vec<Expectation<ProfileName>>,
    /// What must hold.
    pub checks: Vec<CheckSpec>,
    /// Bytes of memory; `None` for the profile's own.
    pub memory: Option<u64>,
    /// Processors; `None` for the profile's own.
    pub cpus: Option<u32>,
    /// Whether a boot menu that waits for a key is a failure.
    pub unattended: bool,
    /// What executes the guest; `None` to find out.
    pub accelerator: Option<Accelerator>,
    /// The only way in which the probe may come in; `None` for the strongest that the ISO allows.
    pub channel: Option<Channel>,
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

impl TestRequest {
    /// A request in the words of a command line; every machine that the ISO promises to boot on, and what it promises to
    /// hold, where nothing is named.
    pub fn new(
        iso: PathBuf,
        testbed: &Testbed,
        profiles: &[ProfileName],
        checks: &[String],
    ) -> Result<Self, RunError> {
        let known = |name: &ProfileName| {
            testbed.profiles.iter().find(|profile| profile.name == *name).cloned().ok_or_else(|| {
                RunError::NoSuchProfile {
                    given: name.to_string(),
                    known: testbed.profiles.iter().map(|profile| profile.name.to_string()).collect(),
                }
            })
        };
        let chosen: Vec<_> = profiles.iter().map(known).collect::<Result<_, _>>()?;
        let checks = parse_checks(checks, testbed)?;
        let inspection = inspect_iso(&iso)?;
        let expectations = Expectations::of(&inspection, &testbed.profiles);
        let (profiles, left_out) = match chosen.is_empty() {
            true => promised_profiles(&expectations, testbed),
            false => (chosen, Vec::new()),
        };
        have_machines(&checks, &profiles)?;
        Ok(Self {
            name: file_name(&iso),
            iso,
            profiles,
            left_out,
            checks: if checks.is_empty() { promised_checks(&expectations, testbed) } else { checks },
            memory: None,
            cpus: None,
            unattended: false,
            accelerator: None,
            channel: None,
        })
    }
}

fn parse_checks(texts: &[String], testbed: &Testbed) -> Result<Vec<CheckSpec>, RunError> {
    let mut checks: Vec<CheckSpec> = Vec::new();
    for text in texts {
        let check = testbed.checks.parse(text)?;
        if let Some(name) = check.name_among(&checks) {
            return Err(RunError::SameCheck { name });
        }
        checks.push(check);
    }
    can_compare(&checks).map_err(RunError::Picture)?;
    Ok(checks)
}

/// Whether each check can be asked on one of the machines at least.
pub(super) fn have_machines(checks: &[CheckSpec], profiles: &[MachineProfile]) -> Result<(), RunError> {
    match checks.iter().find(|check| !profiles.iter().any(|profile| check.suits(profile))) {
        Some(check) => Err(RunError::NoMachineFor { check: check.name() }),
        None => Ok(()),
    }
}

/// What an ISO is called where nothing else is said.
pub(super) fn file_name(iso: &Path) -> String {
    iso.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The machines that the ISO promises to boot on, and the others; all, where it promises none, so that each says
/// what is missing.
fn promised_profiles(
    expectations: &Expectations,
    testbed: &Testbed,
) -> (Vec<MachineProfile>, Vec<Expectation<ProfileName>>) {
    let hopeless = expectations.profiles.iter().filter(|found| found.outlook == Outlook::No);
    let left_out: Vec<_> = hopeless.cloned().collect();
    let is_promised = |profile: &&MachineProfile| !left_out.iter().any(|found| found.subject == profile.name);
    let promised: Vec<_> = testbed.profiles.iter().filter(is_promised).cloned().collect();
    if promised.is_empty() { (testbed.profiles.clone(), Vec::new()) } else { (promised, left_out) }
}

/// The boot, and what else the ISO brings along to be checked.
fn promised_checks(expectations: &Expectations, testbed: &Testbed) -> Vec<CheckSpec> {
    let promised = expectations.checks.iter().filter(|found| found.outlook == Outlook::Yes);
    let others = promised.filter_map(|found| testbed.checks.parse(found.subject).ok());
    let boot = CheckSpec::boot();
    [boot.clone()].into_iter().chain(others.filter(|check| *check != boot)).collect()
}

/// What all machines of one ISO share.
struct Medium {
    name: String,
    digest: Digest,
    size: u64,
    inspection: Inspection,
    rides: Vec<Ride>,
    takes_credentials: bool,
}

/// Boots an ISO on every machine asked for, as many at a time as the engine has room for.
pub(super) async fn test_iso(
    tests: &BootTests,
    request: &TestRequest,
    memory: Option<&ReportMemory<'_>>,
) -> Result<Vec<BootReport>, RunError> {
    for Expectation { subject: machine, reason, .. } in &request.left_out {
        tests.events.emit(Event::Note {
            stage: None,
            text: format!("not tested on {machine}: {reason} (--profile {machine} would)"),
        });
    }
    let inspection = inspect_iso(&request.iso)?;
    let expectations = Expectations::of(&inspection, &request.profiles);
    let rides = plan_rides(&inspection, &expectations, request.channel);
    let (digest, size) = {
        let path = request.iso.clone();
        let hashed = tokio::task::spawn_blocking(move || hash(&path));
        hashed
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            .map_err(|error| RunError::Iso { path: request.iso.clone(), source: error.into() })?
    };
    let takes_credentials =
        expectations.channel(Channel::Credentials).is_some_and(|found| found.outlook == Outlook::Yes);
    let medium = Medium { name: request.name.clone(), digest, size, inspection, rides, takes_credentials };
    // Before the boots: pictures may be exchanged while they last.
    let keys = request.profiles.iter().map(|profile| key(&tests.builder.contents, request, profile, digest));
    let keys: Vec<_> = keys.collect();
    let known = |key: &Digest| memory.and_then(|memory| remembered(memory, *key));
    let known: Vec<_> = keys.iter().map(known).collect();
    let ready = if known.iter().all(Option::is_some) {
        None
    } else {
        let mut cancel = tests.cancel.clone();
        Some(tokio::select! {
            ready = tests.make_ready(request, digest) => ready?,
            // What it has begun goes with the containers.
            () = cancelled(&mut cancel) => return Err(RunError::Cancelled),
        })
    };
    let boots = request.profiles.iter().zip(keys).zip(known).map(|((profile, key), known)| {
        let (medium, ready) = (&medium, ready.as_ref());
        async move {
            let Some(ready) = ready.filter(|_| known.is_none()) else {
                let Some(report) = known else { return Err(RunError::Cancelled) };
                let event = Event::BootFinished {
                    report: Box::new(report.clone()),
                    folder: String::new(),
                    cached: true,
                };
                tests.events.emit(event);
                return Ok(report);
            };
            let boot_request = tests.request(request, profile, medium, ready);
            let _room = ready.budget.take(boot_request.cpus, boot_request.memory).await;
            let report = tests.boot_once(&boot_request).await?;
            if let Some(memory) = memory {
                remember(memory, tests, key, &report)?;
            }
            let folder = boot_request.folder.display().to_string();
            tests.events.emit(Event::BootFinished {
                report: Box::new(report.clone()),
                folder,
                cached: false,
            });
            Ok(report)
        }
    });
    // The first that breaks ends the others: what they leave goes with the containers.
    futures_util::future::try_join_all(boots).await
}

/// Reads what an ISO says of itself.
fn inspect_iso(path: &Path) -> Result<Inspection, RunError> {
    inspect(path).map_err(|source| RunError::Iso { path: path.to_owned(), source })
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
fn key(builder: &str, request: &TestRequest, profile: &MachineProfile, iso: Digest) -> Digest {
    let (memory, cpus, checks) = (request.memory, request.cpus, &request.checks);
    let scripts: Vec<_> = checks.iter().map(CheckSpec::script).collect();
    let picture = |check: &CheckSpec| match check.on_screen() {
        Some(OnScreen::Picture(reference)) => fs::read(&reference.path).ok().map(Digest::of),
        _ => None,
    };
    let pictures: Vec<_> = checks.iter().map(picture).collect();
    Digest::of(format!(
        "{} {} {builder} {iso} {profile:?} {memory:?} {cpus:?} {checks:?} {scripts:?} {pictures:?} {:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        probe_digest(),
        request.unattended,
        request.channel,
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
    async fn make_ready(&self, request: &TestRequest, digest: Digest) -> Result<Ready, RunError> {
        let engine = self.sandbox.engine();
        let facts = engine.facts().await.map_err(RunError::sandbox("the engine does not describe itself"))?;
        let budget = Budget::new(facts.cpus, facts.memory);
        let acceleration = self.acceleration(request.accelerator, &facts.address).await?;
        self.events.emit(Event::Working { text: "handing the ISO to the engine".to_owned() });
        let what = "the ISO cannot be handed to the engine";
        let (flow, path) = self.sandbox.iso_inflow(digest).await.map_err(RunError::sandbox(what))?;
        let source = request.iso.clone();
        let mut sink = flow.bytes;
        let copied = tokio::task::spawn_blocking(move || {
            let mut file = File::open(source)?;
            io::copy(&mut file, &mut sink).map(drop)
        });
        let copied = copied.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        flow.done.await.map_err(RunError::sandbox(what))?;
        copied.map_err(|error| RunError::Iso { path: request.iso.clone(), source: error.into() })?;
        Ok(Ready { acceleration, budget, path })
    }

    /// What executes guests: as the canary found out since the host was started, or finds out now.
    async fn acceleration(
        &self,
        wanted: Option<Accelerator>,
        engine: &str,
    ) -> Result<Acceleration, RunError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let key = Digest::of(format!("{boot} {engine} {} {wanted:?}", self.builder.contents));
        let path = self.home.acceleration();
        // An engine elsewhere may have been started again without this machine knowing.
        let is_here = !boot.is_empty() && engine.starts_with("unix:");
        let remembered = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Canary>(&text).ok());
        if let Some(canary) = remembered.filter(|canary| is_here && canary.key == key) {
            return Ok(canary.acceleration);
        }
        self.events.emit(Event::Working { text: "finding out whether KVM runs guests".to_owned() });
        let host = ContainerHost { sandbox: self.sandbox.clone() };
        let found = find_acceleration(&host, wanted).await.map_err(|error| RunError::Sandbox {
            what: "no machine can be started for a boot test".to_owned(),
            source: crate::sandbox::SandboxError::Helper {
                what: "the canary".to_owned(),
                reason: error.to_string(),
            },
        })?;
        let canary = Canary { key, acceleration: found };
        let written = serde_json::to_vec_pretty(&canary).map_err(io::Error::from);
        if let Err(error) = written.and_then(|json| fs::write(&path, json)) {
            self.events.warn(format!("what the canary found out cannot be remembered: {error}"));
        }
        Ok(canary.acceleration)
    }

    fn request(
        &self,
        request: &TestRequest,
        profile: &MachineProfile,
        medium: &Medium,
        ready: &Ready,
    ) -> BootRequest {
        BootRequest {
            iso: IsoUnderTest {
                name: medium.name.clone(),
                digest: medium.digest,
                size: medium.size,
                facts: medium.inspection.facts.clone(),
                holds_linux: medium.inspection.is_for_linux(),
                menu_waits: medium
                    .inspection
                    .menu(profile.firmware)
                    .is_some_and(|menu| menu.timeout.is_none()),
                takes_credentials: medium.takes_credentials,
                path: ready.path.clone(),
            },
            profile: profile.clone(),
            memory: request.memory.unwrap_or(profile.memory),
            cpus: request.cpus.unwrap_or(profile.cpus),
            checks: request.checks.iter().filter(|check| check.suits(profile)).cloned().collect(),
            rides: medium.rides.clone(),
            unattended: request.unattended,
            acceleration: ready.acceleration.of(profile.firmware).clone(),
            builder: self.builder.name.clone(),
            folder: self.run.boot(&medium.name, &profile.name),
        }
    }

    async fn boot_once(&self, request: &BootRequest) -> Result<BootReport, RunError> {
        let (iso, profile) = (request.iso.name.clone(), request.profile.name.clone());
        self.events.emit(Event::BootStarted {
            iso: iso.clone(),
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
                let (iso, profile) = (iso.clone(), profile.clone());
                self.events.emit(match item {
                    BootNews::Entered { machine, phase, seconds } => {
                        Event::BootPhase { iso, profile, machine, phase, seconds }
                    }
                    BootNews::Checked(result) => Event::BootCheck { iso, profile, result },
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
                    let (iso, profile) = (iso.clone(), profile.clone());
                    self.events.emit(Event::BootCheck { iso, profile, result });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn testbed() -> Testbed {
        Testbed::beside(Path::new("/nonexistent")).unwrap()
    }

    #[test]
    fn two_checks_of_one_name_are_refused() {
        let parse = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            parse_checks(&texts, &testbed())
        };
        assert_eq!(parse(&["boot", "screen:x", "service:x"]).unwrap().len(), 3);
        let error = parse(&["picture:nowhere.png"]).unwrap_err();
        assert_eq!(error.exit_code(), isokiln_core::exit::USAGE);
        assert!(error.to_string().contains("nowhere.png: "), "{error}");
        for twice in [["boot", "boot"], ["screen:x", "picture:x"], ["command:a\nb", "command:a\nc"]] {
            let error = parse(&twice).unwrap_err();
            assert!(matches!(error, RunError::SameCheck { .. }), "{error}");
            assert_eq!(error.exit_code(), isokiln_core::exit::USAGE);
        }
    }

    #[test]
    fn machines_that_the_iso_does_not_promise_are_left_out_with_a_reason() {
        let testbed = testbed();
        let of = |outlooks: [Outlook; 5]| {
            let profiles = testbed.profiles.iter().zip(outlooks).map(|(profile, outlook)| {
                let reason = "no reason".to_owned();
                Expectation { subject: profile.name.clone(), outlook, reason }
            });
            let (checks, channels) = (Vec::new(), Vec::new());
            let expectations = Expectations { profiles: profiles.collect(), checks, channels };
            let (promised, left_out) = promised_profiles(&expectations, &testbed);
            let promised = promised.iter().map(|profile| profile.name.to_string()).collect::<Vec<_>>();
            (promised, left_out.iter().map(|found| found.subject.to_string()).collect::<Vec<_>>())
        };
        let (promised, left_out) =
            of([Outlook::Yes, Outlook::No, Outlook::Broken, Outlook::No, Outlook::Unknown]);
        assert_eq!(promised, ["bios-cd", "uefi-cd", "uefi-secureboot"]);
        assert_eq!(left_out, ["bios-usb", "uefi-usb"]);
        let (promised, left_out) = of([Outlook::No; 5]);
        assert_eq!((promised.len(), left_out.len()), (5, 0), "each says what is missing");
    }

    #[test]
    fn another_picture_in_the_same_file_is_another_test() {
        let folder = tempfile::tempdir().unwrap();
        let picture = folder.path().join("login.png");
        let testbed = testbed();
        let request = TestRequest {
            iso: PathBuf::new(),
            name: String::new(),
            profiles: Vec::new(),
            left_out: Vec::new(),
            checks: vec![testbed.checks.parse(&format!("picture:{}", picture.display())).unwrap()],
            memory: None,
            cpus: None,
            unattended: false,
            accelerator: None,
            channel: None,
        };
        let key = || key("builder", &request, &testbed.profiles[0], Digest::of("iso"));
        fs::write(&picture, "old").unwrap();
        let old = key();
        assert_eq!(key(), old);
        fs::write(&picture, "new").unwrap();
        assert_ne!(key(), old);
    }
}
