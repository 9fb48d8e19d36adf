//! What a test has of the machine, and that nothing of it is left when the test is over.
//!
//! Tests run beside each other and beside other programs, so nothing is compared with how the machine was before: a
//! [`Guard`] looks for what can only be its own, because it lies in its folder, names it, or carries its mark.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::engine::Engine;

/// The environment variable that every process of a test carries, with the folder of its guard.
pub const MARK: &str = "ISOKILN_TEST";

/// Ending takes no longer.
const ENDING: Duration = Duration::from_secs(3);

/// Something of a test's that is still there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// What sort of thing: `mount`, `process`, `container`, `volume`, `loop device`, `socket`, `temporary file`,
    /// `unfinished file`.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A folder of a test's own for programs to run in. When it is dropped, the test fails if they have left anything.
#[derive(Debug)]
pub struct Guard {
    folder: TempDir,
}

impl Guard {
    /// Makes the folder.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("isokiln-test-").expect("a temporary folder");
        let guard = Self { folder };
        for (path, mode) in
            [(guard.folder.path(), 0o755), (&guard.work(), 0o755), (&guard.temporary(), 0o1777)]
        {
            fs::create_dir_all(path).expect("a folder");
            // As the folder for temporary files is, for programs that give up their rights.
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        }
        guard
    }

    /// Where programs run.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Where programs put temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// A path where programs run.
    pub fn path(&self, path: &str) -> PathBuf {
        self.work().join(path)
    }

    /// Has a command run here, where whatever it leaves is found.
    pub fn mark<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.current_dir(self.work()).env("TMPDIR", self.temporary()).env(MARK, self.folder.path());
        // As on a person's machine, wherever the tests run.
        for name in ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "BUILDKITE"] {
            command.env_remove(name);
        }
        command.env_remove("ISOKILN_DIR")
    }

    /// Everything of this guard's that is there now, also what it may have while it lives.
    pub fn traces(&self, engine: &Engine) -> BTreeSet<Trace> {
        let folder = self.folder.path();
        let mut found = BTreeSet::new();
        let mut add = |kind, names: Vec<String>| {
            found.extend(names.into_iter().map(|name| Trace { kind, name }));
        };
        let processes = processes_of(folder);
        add("mount", mounts_of(folder, &processes));
        add("process", processes.iter().map(|pid| told(*pid)).collect());
        let volumes = engine.volumes_below(folder);
        add("container", engine.containers_of(folder, &volumes, &runs_below(&self.work())));
        add("volume", volumes);
        add("loop device", loops_of(folder));
        add("socket", sockets_of(folder));
        add("temporary file", names_in(&self.temporary()));
        add("unfinished file", unfinished_below(&self.work()));
        found
    }

    /// Processes that run here; not this one.
    pub fn processes(&self) -> Vec<u32> {
        processes_of(self.folder.path())
    }

    /// The same, once nothing runs any more: whoever has shown the end of a command may take a moment to end himself.
    fn settled(&self, engine: &Engine) -> BTreeSet<Trace> {
        let since = Instant::now();
        loop {
            let traces = self.traces(engine);
            if traces.iter().all(|trace| trace.kind != "process") || since.elapsed() > ENDING {
                return traces;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is there and must not be when no command runs: everything but volumes, where layers and caches wait for the
    /// next build.
    pub fn residue(&self, engine: &Engine) -> BTreeSet<Trace> {
        let mut traces = self.settled(engine);
        traces.retain(|trace| trace.kind != "volume");
        traces
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        fail_over(&self.settled(&Engine::connect()), "the test has left");
    }
}

/// Fails the test if there is anything; a test that fails already fails for its own reason, and this is told besides.
pub fn fail_over(traces: &BTreeSet<Trace>, what: &str) {
    if traces.is_empty() {
        return;
    }
    let list: Vec<_> = traces.iter().map(Trace::to_string).collect();
    let text = format!("{what}:\n  {}", list.join("\n  "));
    if std::thread::panicking() {
        #[expect(clippy::print_stderr, reason = "it belongs to the output of the failing test")]
        {
            eprintln!("{text}");
        }
    } else {
        panic!("{text}");
    }
}

fn is_about(text: &[u8], folder: &Path) -> bool {
    let folder = folder.as_os_str().as_bytes();
    text.windows(folder.len()).any(|window| window == folder)
}

/// Processes with the mark, or that run in the folder, or that were given a path in it; not this one.
fn processes_of(folder: &Path) -> Vec<u32> {
    let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let numbers = fs::read_dir("/proc").expect("processes").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = numbers.filter(|pid| *pid != std::process::id());
    let is_ours = |pid: &u32| {
        let about = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| fs::read(about.join(name)).unwrap_or_default();
        read("environ").split(|byte| *byte == 0).any(|entry| entry == mark)
            || fs::read_link(about.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
            || is_about(&read("cmdline"), folder)
    };
    others.filter(is_ours).collect()
}

/// A process in words: its number and its command line.
fn told(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ").trim_end())
}

/// Mounts on or of anything in the folder, as this process and these others see them.
fn mounts_of(folder: &Path, processes: &[u32]) -> Vec<String> {
    let who = processes.iter().map(u32::to_string).chain(["self".to_owned()]);
    let tables = who.map(|pid| fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default());
    let mut found = BTreeSet::new();
    for table in tables {
        let lines = table.split(|byte| *byte == b'\n').filter(|line| is_about(line, folder));
        found.extend(lines.map(|line| String::from_utf8_lossy(line).into_owned()));
    }
    found.into_iter().collect()
}

/// Loop devices whose file lies in the folder, also a deleted one.
fn loops_of(folder: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("devices").flatten();
    let described = devices.filter_map(|device| {
        let file = fs::read(device.path().join("loop/backing_file")).ok()?;
        let file = String::from_utf8_lossy(file.trim_ascii_end()).into_owned();
        Path::new(&file)
            .starts_with(folder)
            .then(|| format!("{} of {file}", device.file_name().to_string_lossy()))
    });
    described.collect()
}

/// Unix sockets that are bound to a name in the folder.
fn sockets_of(folder: &Path) -> Vec<String> {
    let table = fs::read("/proc/net/unix").expect("sockets");
    let names =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.splitn(8, |byte| *byte == b' ').last());
    let names = names.filter(|name| is_about(name, folder));
    let names: BTreeSet<_> = names.map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    names.into_iter().collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// isokiln's folders in a folder, whatever they are called.
fn homes_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| ["store", "runs", "lock"].iter().any(|name| path.join(name).exists())).collect()
}

/// The runs of isokiln's folders in a folder: the id of each, and the process that has or had it.
pub fn runs_below(folder: &Path) -> BTreeMap<String, Option<String>> {
    let runs = homes_below(folder).into_iter().flat_map(|home| fs::read_dir(home.join("runs")).ok());
    let run = |entry: fs::DirEntry| {
        let process = fs::read_to_string(entry.path().join("pid")).ok();
        Some((entry.file_name().into_string().ok()?, process.map(|pid| pid.trim().to_owned())))
    };
    runs.flatten().flatten().filter_map(run).collect()
}

/// What isokiln was writing or talking through, in its folders: nobody will go on with it.
fn unfinished_below(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), homes_below(folder));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_socket() || kind.is_fifo() || is_unfinished(&folder, &entry.file_name()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Whether a file's name is one that files have only while they are written. What `verify` has set aside stays on
/// purpose, until `gc`.
fn is_unfinished(folder: &Path, name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    if folder.ends_with("blobs/sha256") {
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        return !is_digest && !name.starts_with(".damaged-");
    }
    // "run.json.4711.0"
    let mut ends = name.rsplitn(3, '.');
    let is_number = |end: Option<&str>| end.is_some_and(|end| end.parse::<u32>().is_ok());
    name.starts_with(".tmp-") || (is_number(ends.next()) && is_number(ends.next()) && name.contains(".json"))
}
