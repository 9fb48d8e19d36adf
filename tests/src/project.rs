//! A project folder to run isokiln in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Pid;
use serde_json::Value;

use crate::engine::Engine;
use crate::footprint::{Guard, Trace, fail_over};
use crate::isokiln::{Finished, Running, binary, builder_image, repository};

/// Head of a pipeline whose first stage takes a second: a few programs of the builder image.
pub const TINY: &str = r#"
name = "tiny"

[system]
distribution = "debian"
suite = "trixie"

[[stage]]
name = "base"
uses = "tiny"
"#;

/// Program that lists a tree with everything that a layer must keep, one line for each file.
pub const LISTER: &str = "tests/fixtures/list.pl";

/// Names of the stages of `pipelines/minimal.toml`.
pub const MINIMAL_STAGES: [&str; 5] = ["base", "network", "live", "greeting", "iso"];

/// A folder with a pipeline file, the fixture kinds beside it, and a store of its own. What it keeps in the engine is
/// removed with it, and the test fails if a command has left anything else on the machine.
#[derive(Debug)]
pub struct Project {
    guard: Guard,
}

impl Project {
    /// A project with `pipeline.toml`.
    pub fn new(pipeline: &str) -> Self {
        builder_image();
        let project = Self { guard: Guard::new() };
        copy(&repository().join("tests/fixtures/stages"), &project.path("stages"));
        for kind in ["hostile", "listing"] {
            copy(&repository().join(LISTER), &project.path("stages").join(kind));
        }
        project.write("pipeline.toml", pipeline);
        project
    }

    /// A project whose pipeline is [`TINY`] and more stages.
    pub fn tiny(stages: &str) -> Self {
        Self::new(&format!("{TINY}{stages}"))
    }

    /// A path in the project.
    pub fn path(&self, path: &str) -> PathBuf {
        self.guard.path(path)
    }

    /// isokiln's folder.
    pub fn home(&self) -> PathBuf {
        self.path(".isokiln")
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file can be written");
    }

    /// Replaces text in a file of the project.
    #[track_caller]
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).expect("a file can be read");
        assert!(text.contains(from), "{path} does not hold {from:?}");
        self.write(path, text.replace(from, to));
    }

    /// Adds a stage kind that changes the root file system; `run` is its `run.sh`.
    pub fn add_kind(&self, name: &str, run: &str) {
        self.write(
            &format!("stages/{name}/kind.toml"),
            "summary = \"For a test\"\nrootfs = \"change\"\nprivilege = \"none\"\n",
        );
        self.write(&format!("stages/{name}/run.sh"), run);
    }

    /// A project of [`TINY`], a stage `slow` and a stage `after`. `slow` says `waiting` and ends after so many
    /// seconds; [`Project::hurry`] makes it quick without making it another stage for `base`.
    pub fn slow(seconds: u32) -> Self {
        let project = Self::tiny(
            "\n[[stage]]\nname = \"slow\"\nuses = \"slow\"\n\n[[stage]]\nname = \"after\"\nrun = \"echo after >/etc/after\"\n",
        );
        let run = format!("echo begun\nnote waiting\nsleep {seconds}\necho slow >\"$ROOTFS/etc/slow\"\n");
        project.add_kind("slow", &run);
        project
    }

    /// Makes the stage `slow` of [`Project::slow`] quick.
    pub fn hurry(&self) {
        self.add_kind("slow", "echo slow >\"$ROOTFS/etc/slow\"\n");
    }

    /// Starts a build, with what `prepare` adds to it, and waits until its stage `slow` runs.
    #[track_caller]
    pub fn start_slow(&self, prepare: impl FnOnce(&mut Command)) -> Running {
        let mut command = self.command(&["build", "pipeline.toml", "--no-test"]);
        prepare(&mut command);
        let mut running = Running::start(&mut command);
        running.wait_until_it_says("slow: waiting");
        // The base is saved while the next stage runs.
        crate::wait_until("the base is saved", || self.saved() == ["base"]);
        running
    }

    /// Stages that have a checkpoint.
    pub fn saved(&self) -> Vec<String> {
        let name = |checkpoint: &Value| checkpoint["stage"].as_str().unwrap_or("?").to_owned();
        self.checkpoints().iter().map(name).collect()
    }

    /// Fails the test unless the store is whole.
    #[track_caller]
    pub fn expect_whole_store(&self) {
        self.isokiln(&["verify"]).expect_code(0).prints("all as they should be");
    }

    /// The container of this project's newest run that was made for `purpose`: a stage, or the porter.
    pub fn container(&self, purpose: &str) -> Option<String> {
        let runs = self.runs();
        let is_ours = |labels: &crate::Labels| {
            labels.get("org.isokiln.stage").is_some_and(|stage| stage == purpose)
                && labels.get("org.isokiln.run").is_some_and(|run| runs.contains(run))
        };
        Engine::connect().containers().into_iter().find(|(_, labels)| is_ours(labels)).map(|(name, _)| name)
    }

    /// isokiln in this project, for a test that adds to the command.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        self.mark(command.args(arguments));
        command
    }

    /// What `isokiln status` says of the newest run that goes on, or else the newest.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.isokiln(&["status", "--format", "json"]).expect_code(0).json()
    }

    /// The process that has the newest build, which goes on.
    #[track_caller]
    pub fn supervisor(&self) -> Pid {
        let status = self.status();
        let id = status["pid"].as_i64().unwrap_or_else(|| panic!("nothing runs: {status:#}"));
        Pid::from_raw(id.try_into().expect("a process id"))
    }

    /// Has any other command run in this project.
    pub fn mark<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.guard.mark(command)
    }

    /// Where commands put temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.guard.temporary()
    }

    /// Runs isokiln to its end.
    pub fn isokiln(&self, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.command(arguments))
    }

    /// Starts isokiln.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// `isokiln build pipeline.toml --no-test` with more arguments.
    pub fn build(&self, arguments: &[&str]) -> Finished {
        self.isokiln(&[&["build", "pipeline.toml", "--no-test"], arguments].concat())
    }

    /// `run.json` of the newest run.
    #[track_caller]
    pub fn record(&self) -> Value {
        let path = self.home().join("latest/run.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).expect("run.json is JSON")
    }

    /// What the newest run did, as `stage state` in order: `base hit, more done`.
    #[track_caller]
    pub fn outcome(&self) -> String {
        let record = self.record();
        let stages = record["stages"].as_array().expect("stages").iter().map(|stage| {
            format!("{} {}", stage["stage"].as_str().unwrap_or("?"), stage["state"].as_str().unwrap_or("?"))
        });
        stages.collect::<Vec<_>>().join(", ")
    }

    /// Path of an artifact of the newest run.
    pub fn artifact(&self, name: &str) -> PathBuf {
        self.home().join("latest/artifacts").join(name)
    }

    /// `checkpoint list`, newest of each stage last.
    pub fn checkpoints(&self) -> Vec<Value> {
        let listed = self.isokiln(&["checkpoint", "list", "--format", "json"]).expect_code(0).json();
        listed.as_array().expect("an array").clone()
    }

    /// `checkpoint show` of the newest checkpoint of a stage.
    #[track_caller]
    pub fn checkpoint(&self, stage: &str) -> Value {
        self.isokiln(&["checkpoint", "show", stage, "--format", "json"]).expect_code(0).json()
    }

    /// Where a blob of the store lies, by its digest.
    #[track_caller]
    pub fn blob(&self, digest: &Value) -> PathBuf {
        let digest = digest.as_str().and_then(|text| text.strip_prefix("sha256:")).expect("a digest");
        self.home().join("store/blobs/sha256").join(digest)
    }

    /// Name of this project's volume in the engine; absent before the first build.
    pub fn volume(&self) -> Option<String> {
        let home = fs::canonicalize(self.home()).ok()?;
        let mut volumes = Engine::connect().volumes().into_iter();
        volumes
            .find(|(_, labels)| labels.values().any(|value| Path::new(value) == home))
            .map(|(name, _)| name)
    }

    /// Ids of this project's runs.
    pub fn runs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.home().join("runs")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Fails the test unless a slow project that was broken off has kept `base`, and only that, and its next
    /// build goes on from there.
    #[track_caller]
    pub fn expect_to_continue(&self) {
        assert_eq!(self.saved(), ["base"]);
        self.expect_whole_store();
        self.hurry();
        self.build(&[]).expect_code(0);
        assert_eq!(self.outcome(), "base hit, slow done, after done");
        self.expect_no_residue();
    }

    /// Fails the test if a command of this project has left anything but what the next build goes on from.
    #[track_caller]
    pub fn expect_no_residue(&self) {
        let left = self.residue(&Engine::connect());
        assert!(left.is_empty(), "a command has left {left:#?}");
    }

    /// Processes of this project that run.
    pub fn processes(&self) -> Vec<u32> {
        self.guard.processes()
    }

    /// The process that does a command's work: another isokiln of this project where there is one, and otherwise the
    /// process that was started.
    pub fn worker(&self, running: &Running) -> u32 {
        let is_isokiln =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary());
        let others = self.processes().into_iter().filter(|pid| *pid != running.id());
        others.filter(is_isokiln).max().unwrap_or_else(|| running.id())
    }

    /// What commands of this project have left here and in an engine, but for what the next build goes on from.
    pub fn residue(&self, engine: &Engine) -> BTreeSet<Trace> {
        self.guard.residue(engine)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let engine = Engine::connect();
        // Looked for before `clean`, which sweeps.
        let left = self.residue(&engine);
        for home in engine.folders_below(&self.path("")) {
            let cleaned = Finished::of(self.command(&["clean"]).arg("--dir").arg(home));
            if !std::thread::panicking() {
                cleaned.expect_code(0);
            }
        }
        fail_over(&left, "a command has left");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp can be run");
    assert!(copied.success(), "cp {} {}", from.display(), to.display());
}
