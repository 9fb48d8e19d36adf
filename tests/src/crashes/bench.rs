//! Striking builds, and judging what they come to.

use std::any::Any;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant as Clock};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Case;
use super::disk::{self, Disk, Snapshot};
use super::fault::{Fault, World};
use super::phase::{Phase, Start, Trigger};
use super::random::Random;
use crate::faults::Daemon;
use crate::footprint::runs_below;
use crate::{Engine, Finished, Project, Running, binary, boot_sector_iso};

/// A case and what came of it.
#[derive(Debug, Clone)]
pub struct Instant {
    /// The case.
    pub case: Case,
    /// Whether the build had not ended before it was struck.
    pub struck: bool,
    /// Checkpoints that were told of and were not there any more.
    pub lost: usize,
    /// Stages that had begun, had no checkpoint, and had to run again.
    pub again: usize,
    /// Everything that is not as it must be.
    pub problems: Vec<String>,
    /// Everything from the beginning of the build until the next one was judged.
    pub seconds: f64,
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { case: Case { fault, phase, seed }, struck, lost, again, problems, seconds } = self;
        let end = match (struck, problems.as_slice()) {
            (_, [_, ..]) => problems.join("; "),
            (false, []) => "came too late".to_owned(),
            (true, []) => format!("{again} stages again, {lost} lost"),
        };
        write!(f, "{fault} at {phase} (seed {seed}, {seconds:.1} s): {end}")
    }
}

/// A pipeline that has everything: a base, bytes that take a while to save, a change, a file that leaves, a branch.
const STAGES: &str = r#"
[[stage]]
name = "fill"
uses = "fill"

[[stage]]
name = "change"
run = "rm /etc/group; mv /etc/passwd /etc/users; echo changed >/etc/motd"

[[stage]]
name = "branch"
from = "base"
run = "echo branched >/etc/motd"

[[stage]]
name = "disc"
from = "change"
uses = "disc"
"#;
/// In the order of the pipeline file, which is the order of snapshots.
const NAMES: [&str; 5] = ["base", "fill", "change", "branch", "disc"];
const FILL: &str = "python3 -c 'import random, sys; random.seed(1); sys.stdout.buffer.write(random.randbytes(6 << 20))' \
                    >\"$ROOTFS/random\"\nseq 400 | split --lines=2 - \"$ROOTFS/etc/part-\"\n";
const DISC: &str = "mkdir /isokiln/disc; cp -a \"$ROOTFS/etc\" \"$ROOTFS/random\" /isokiln/disc/\n\
                    xorriso -as mkisofs -quiet -r -V SMALL --modification-date=2024010100000000 --set_all_file_dates 2024010100000000 \
                    -o \"$ARTIFACTS/disc.iso\" /isokiln/disc\n";

/// A build that takes longer hangs, also on a machine with other things to do.
const LIMIT: Duration = Duration::from_secs(180);
/// Waiting for an event.
const LOOK: Duration = Duration::from_millis(1);
const DISK: u64 = 192 << 20;
const INODES: u32 = 4_000;

/// Projects to strike, an engine of their own for some, and what an undisturbed build makes.
pub struct Bench {
    engine: Engine,
    plain: Project,
    daemon: OnceCell<(Daemon, Project)>,
    /// Digests of manifests by stage.
    manifests: BTreeMap<String, Value>,
    iso: Vec<u8>,
}

/// A build that is about to be struck.
struct Scene<'b> {
    project: &'b Project,
    /// The engine that it builds in.
    engine: &'b Engine,
    daemon: Option<&'b Daemon>,
    disk: Option<Disk>,
    running: Running,
    fault: Fault,
    phase: Phase,
    known: BTreeSet<String>,
}

/// What is left of the world after a fault.
enum Aftermath {
    Nothing,
    Power(Snapshot),
    Room,
    /// As many as there were before.
    Inodes(u64),
}

impl Bench {
    /// Builds once without any disturbance, and keeps the store as it is after each stage.
    pub fn open() -> Self {
        let plain = project();
        for (count, name) in NAMES.iter().enumerate() {
            // What is saved is a stage and those that it rests on, and for the last one the branch beside them.
            let until: &[&str] = if count + 1 == NAMES.len() { &[] } else { &["--until", name] };
            copy(&plain.home().join("store"), &snapshot(&plain, count));
            plain.build(until).expect_code(0);
        }
        copy(&plain.home().join("store"), &snapshot(&plain, NAMES.len()));
        let iso = fs::read(plain.artifact("disc.iso")).expect("the ISO");
        let manifests = manifests(&plain);
        assert_eq!(manifests.len(), NAMES.len(), "{manifests:?}");
        Self { engine: Engine::connect(), plain, daemon: OnceCell::new(), manifests, iso }
    }

    /// Tries a case; whatever goes wrong is told as a problem.
    pub fn strike(&self, case: Case) -> Instant {
        let since = Clock::now();
        let mut instant =
            Instant { case, struck: false, lost: 0, again: 0, problems: Vec::new(), seconds: 0.0 };
        let tried = catch_unwind(AssertUnwindSafe(|| self.try_case(case, &mut instant)));
        if let Err(panic) = tried {
            instant.problems.push(words(&*panic));
        }
        instant.seconds = since.elapsed().as_secs_f64();
        instant
    }

    fn try_case(&self, case: Case, instant: &mut Instant) {
        let mut random = Random::new(case.seed);
        let start = case.phase.start(&mut random);
        let trigger = case.phase.trigger(start.saved, &mut random);
        let own = (case.fault.world() == World::OwnEngine)
            .then(|| self.daemon.get_or_init(|| (Daemon::start(&self.engine), project())));
        let (daemon, project) = own.map_or((None, &self.plain), |(daemon, project)| (Some(daemon), project));
        let connected = daemon.map(Daemon::engine);
        let engine = connected.as_ref().unwrap_or(&self.engine);
        let mut disk = self.prepare(project, engine, case, start);
        let known = project.runs().into_iter().collect();
        let running = begin(project, daemon, case);
        let mut scene = Scene {
            project,
            engine,
            daemon,
            disk: disk.take(),
            running,
            fault: case.fault,
            phase: case.phase,
            known,
        };
        instant.struck = scene.wait_for(&trigger);
        let aftermath = scene.strike(&mut random);
        let (events, mut problems, disk) = scene.end(instant.struck, aftermath);
        instant.problems.append(&mut problems);
        self.judge(project, daemon, engine, start, &events, disk.as_ref(), instant);
        drop(disk);
    }

    /// Makes the project what it is to be at first.
    fn prepare(&self, project: &Project, engine: &Engine, case: Case, start: Start) -> Option<Disk> {
        if !start.volume {
            for volume in engine.volumes_below(&project.path("")) {
                engine.remove_volume(&volume);
            }
        }
        let home = project.home();
        for name in ["store", "runs"] {
            drop(fs::remove_dir_all(home.join(name)));
        }
        fs::create_dir_all(&home).expect("a folder");
        let under = match case.fault.world() {
            World::Plain | World::OwnEngine => None,
            World::OwnDisk => Some(home.clone()),
            World::OwnRuns => Some(home.join("runs")),
        };
        let disk = under.map(|under| Disk::new(project.path("disk"), under, DISK, INODES));
        copy(&snapshot(&self.plain, start.saved), &home.join("store"));
        if let Some(disk) = &disk {
            disk.sync();
        }
        if case.phase == Phase::BootTest {
            project.write("endless.iso", boot_sector_iso());
        }
        disk
    }

    /// Looks whether the store is whole, what the next build finds in it and makes, and what is left then.
    #[expect(clippy::too_many_arguments, reason = "everything that there is about a case")]
    fn judge(
        &self,
        project: &Project,
        daemon: Option<&Daemon>,
        engine: &Engine,
        start: Start,
        events: &[Value],
        disk: Option<&Disk>,
        instant: &mut Instant,
    ) {
        let mut differ = |text: String| instant.problems.push(text);
        let verified = in_engine(project, daemon, &["verify"]);
        if verified.code != Some(0) {
            differ(format!("the store does not verify: {verified}"));
        }
        let built = in_engine(project, daemon, &["build", "pipeline.toml", "--no-test"]);
        if built.code != Some(0) {
            differ(format!("the next build does not go on: {built}"));
            return;
        }
        let of_event = |name: &str| -> BTreeSet<String> {
            let named = events.iter().filter(|event| event["event"] == name);
            named.filter_map(|event| event["stage"].as_str().map(str::to_owned)).collect()
        };
        let saved_before = NAMES[..start.saved].iter().map(|name| (*name).to_owned());
        let told: BTreeSet<_> = of_event("checkpoint-stored").into_iter().chain(saved_before).collect();
        let begun = of_event("stage-started");
        let record = project.record();
        let mut has_run = false;
        for stage in record["stages"].as_array().into_iter().flatten() {
            let name = stage["stage"].as_str().unwrap_or("?");
            if stage["manifest"] != self.manifests[name] {
                differ(format!("{name} is not as in an undisturbed build"));
            }
            if stage["state"] == "hit" {
                continue;
            }
            has_run = true;
            if told.contains(name) {
                instant.lost += 1;
                differ(format!("the checkpoint of {name} was told of and is gone"));
            } else if begun.contains(name) {
                instant.again += 1;
            }
        }
        if fs::read(project.artifact("disc.iso")).ok().as_ref() != Some(&self.iso) {
            differ("the ISO is not the one of an undisturbed build".to_owned());
        }
        let left = residue(project, engine, disk);
        if !left.is_empty() {
            differ(format!("after the next build is left: {left}"));
        }
        let volumes = engine.volumes_below(&project.path(""));
        if volumes.len() > 1 {
            differ(format!("the project has more than one volume: {volumes:?}"));
        }
        // Only a build that runs a stage tidies the volume up.
        if has_run {
            let works = volumes.first().map(|volume| engine.volume_names(volume, "work")).unwrap_or_default();
            // Names tell no order of runs that began in the same second.
            let newest = fs::read_link(project.home().join("latest")).expect("a link to the newest run");
            let newest = newest.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let old: Vec<_> = works.into_iter().filter(|work| !work.starts_with(&newest)).collect();
            if !old.is_empty() {
                differ(format!("the volume holds what dead runs worked on: {old:?}"));
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some((daemon, project)) = self.daemon.get() {
            daemon.revive();
            drop(in_engine(project, Some(daemon), &["clean"]));
        }
    }
}

impl Scene<'_> {
    /// Waits until the trigger has come and its delay is over; gives whether the process is there still.
    fn wait_for(&mut self, trigger: &Trigger) -> bool {
        let since = Clock::now();
        while self.running.is_running() && !trigger.is_in(&self.events()) {
            assert!(since.elapsed() < LIMIT, "{trigger:?} does not come\n{}", self.running.stderr());
            std::thread::sleep(LOOK);
        }
        let since = Clock::now();
        while self.running.is_running() {
            let left = trigger.delay.saturating_sub(since.elapsed());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK));
        }
        false
    }

    /// What the run has told so far; only whole lines count.
    fn events(&self) -> Vec<Value> {
        let runs = self.project.runs().into_iter().filter(|run| !self.known.contains(run));
        let Some(run) = runs.max() else { return Vec::new() };
        let text =
            fs::read(self.project.home().join("runs").join(run).join("events.jsonl")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn signal(&self, pid: u32, signal: Signal) {
        // It may have ended a moment ago.
        let _ = kill(Pid::from_raw(i32::try_from(pid).expect("process ids are small")), signal);
    }

    fn strike(&mut self, random: &mut Random) -> Aftermath {
        let (viewer, supervisor) = (self.running.id(), self.project.worker(&self.running));
        let disk = || self.disk.as_ref().expect("a disk of its own");
        match self.fault {
            Fault::KillSupervisor => self.signal(supervisor, Signal::SIGKILL),
            Fault::KillViewer => self.signal(viewer, Signal::SIGKILL),
            Fault::StopAndKill => {
                self.signal(supervisor, Signal::SIGSTOP);
                std::thread::sleep(random.within(Duration::from_millis(800)));
                self.signal(supervisor, Signal::SIGKILL);
            }
            Fault::RemoveContainers => self.remove_containers(),
            Fault::RemoveVolume => {
                self.remove_containers();
                for volume in self.engine.volumes_below(&self.project.path("")) {
                    self.engine.try_remove_volume(&volume);
                }
            }
            Fault::HangUp => self.signal(viewer, Signal::SIGHUP),
            // With the program that holds it, the terminal goes.
            Fault::TerminalGone => self.signal(viewer, Signal::SIGKILL),
            Fault::CtrlC => self.signal(viewer, Signal::SIGINT),
            Fault::CtrlCTwice => {
                self.signal(viewer, Signal::SIGINT);
                std::thread::sleep(random.within(Duration::from_millis(300)));
                self.signal(viewer, Signal::SIGINT);
            }
            Fault::PowerCut => {
                self.signal(supervisor, Signal::SIGSTOP);
                let snapshot = disk().snapshot();
                self.signal(supervisor, Signal::SIGKILL);
                return Aftermath::Power(snapshot);
            }
            Fault::Freeze => {
                disk().freeze();
                std::thread::sleep(random.within(Duration::from_millis(500)));
                let snapshot = disk().snapshot();
                self.signal(supervisor, Signal::SIGKILL);
                disk().thaw();
                return Aftermath::Power(snapshot);
            }
            Fault::StoreFull | Fault::RunsFull => {
                disk().fill();
                return Aftermath::Room;
            }
            Fault::StoreInodes | Fault::RunsInodes => {
                disk().use_inodes_up();
                return Aftermath::Room;
            }
            Fault::KillEngine | Fault::RestartEngine => {
                let daemon = self.daemon.expect("an engine of its own");
                if self.fault == Fault::KillEngine {
                    daemon.crash()
                } else {
                    daemon.stop()
                }
                std::thread::sleep(random.within(Duration::from_secs(2)));
                daemon.revive();
            }
            Fault::EngineFull => {
                disk::fill(&self.daemon.expect("an engine of its own").data());
                return Aftermath::Room;
            }
            Fault::EngineInodes => {
                return Aftermath::Inodes(self.daemon.expect("an engine of its own").use_inodes_up());
            }
        }
        Aftermath::Nothing
    }

    fn remove_containers(&self) {
        let mut runs = runs_below(&self.project.path(""));
        runs.retain(|run, _| !self.known.contains(run));
        for container in self.engine.containers_of(&self.project.path(""), &[], &runs) {
            // isokiln may be removing it too.
            self.engine.try_remove_container(&container);
        }
    }

    /// Waits for the end, and sees to it that the next command finds the world in order. Gives what was told of, what
    /// is not as it must be, and the disk.
    fn end(mut self, struck: bool, aftermath: Aftermath) -> (Vec<Value>, Vec<String>, Option<Disk>) {
        let mut problems = Vec::new();
        let since = Clock::now();
        while self.running.is_running() || self.builds() {
            assert!(since.elapsed() < LIMIT, "it hangs:\n{}", self.running.stderr());
            std::thread::sleep(LOOK * 20);
        }
        let events = self.events();
        let Self { project, engine, daemon, disk, running, fault, phase, .. } = self;
        let finished = running.wait();
        let is_expected = match finished.code {
            // Before it has begun it listens to no signal, and each ends it.
            None => fault.is_sudden() || fault == Fault::TerminalGone || events.is_empty(),
            // What comes too late, or what another process did not notice, does no harm; and how a process ends that only
            // shows a build is not looked at here.
            Some(0) => true,
            Some(_) if fault.is_sudden() => true,
            Some(code) => fault.codes(phase).contains(&code),
        };
        if struck && !is_expected {
            problems.push(format!("it must not end so: {finished}"));
        }
        let ended = events.last().filter(|event| event["event"] == "run-finished");
        let goes_on = fault.takes_only_the_view(phase) && !events.is_empty();
        if struck && goes_on && ended.is_none_or(|event| event["exit_code"] != 0) {
            problems.push(format!("the build does not go on without its view: {ended:?}\n{finished}"));
        }
        // A boot test that cannot be finished is a verdict and no error.
        let has_failed = matches!(finished.code, Some(1 | 3));
        if has_failed && phase != Phase::BootTest && !finished.stderr.contains("hint") {
            problems.push(format!("it does not say what to do: {finished}"));
        }
        let disk = match (disk, aftermath) {
            (Some(disk), Aftermath::Power(snapshot)) => Some(disk.go_back(snapshot)),
            (Some(disk), Aftermath::Room) => {
                disk.free();
                Some(disk)
            }
            (disk, aftermath) => {
                match (daemon, aftermath) {
                    (Some(daemon), Aftermath::Room) => disk::free(&daemon.data()),
                    (Some(daemon), Aftermath::Inodes(count)) => daemon.allow_inodes(count),
                    _ => {}
                }
                disk
            }
        };
        if let Some(daemon) = daemon {
            daemon.revive();
        }
        if fault.asks_to_stop(phase) {
            let left = residue(project, engine, disk.as_ref());
            if !left.is_empty() {
                problems.push(format!("whoever is asked to stop leaves nothing, but there is {left}"));
            }
        }
        (events, problems, disk)
    }

    /// Whether a process of the project that is not the one that was started builds still.
    fn builds(&self) -> bool {
        self.project.processes().into_iter().any(|pid| pid != self.running.id())
    }
}

fn project() -> Project {
    let project = Project::tiny(STAGES);
    project.add_kind("fill", FILL);
    project.add_kind("disc", DISC);
    project.write(
        "stages/disc/kind.toml",
        "summary = \"For a test\"\nrootfs = \"read\"\nprivilege = \"none\"\n",
    );
    project
}

/// What there is of a project and must not be, the disk apart that it lies on.
fn residue(project: &Project, engine: &Engine, disk: Option<&Disk>) -> String {
    let traces = project.residue(engine).into_iter();
    let left = traces.filter(|trace| disk.is_none_or(|disk| !disk.is_behind(trace)));
    left.map(|trace| trace.to_string()).collect::<Vec<_>>().join(", ")
}

fn snapshot(project: &Project, saved: usize) -> PathBuf {
    project.path("snapshots").join(saved.to_string())
}

fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    if from.exists() {
        let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
        assert!(copied.is_ok_and(|status| status.success()), "{} can be copied", from.display());
    }
}

fn manifests(project: &Project) -> BTreeMap<String, Value> {
    let record = project.record();
    let stages = record["stages"].as_array().into_iter().flatten();
    stages
        .map(|stage| (stage["stage"].as_str().unwrap_or("?").to_owned(), stage["manifest"].clone()))
        .collect()
}

/// isokiln, in the project's own engine if it has one.
fn command(project: &Project, daemon: Option<&Daemon>, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    if let Some(daemon) = daemon {
        command.env("DOCKER_HOST", daemon.address());
    }
    command
}

fn in_engine(project: &Project, daemon: Option<&Daemon>, arguments: &[&str]) -> Finished {
    Running::start(&mut command(project, daemon, arguments)).wait_at_most(LIMIT)
}

fn begin(project: &Project, daemon: Option<&Daemon>, case: Case) -> Running {
    let arguments: &[&str] = match case.phase {
        Phase::BootTest => &["test", "endless.iso", "--profile", "bios-cd"],
        _ => &["build", "pipeline.toml", "--no-test"],
    };
    if case.fault != Fault::TerminalGone {
        return Running::start(&mut command(project, daemon, arguments));
    }
    let mut script = Command::new("script");
    let line = format!("{} {}", binary().display(), arguments.join(" "));
    script.args(["--quiet", "--flush", "--command", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    Running::start(project.mark(&mut script))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
