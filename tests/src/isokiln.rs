//! The binary under test, and what came of running it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// No command of these tests takes longer than this unless it hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The binary: `ISOKILN_BINARY`, or the release build of this repository.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("ISOKILN_BINARY") {
            return PathBuf::from(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--release", "--package", "isokiln"]).current_dir(repository());
        // Build scripts look at what cargo tells of this test's own package, and would all run again.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        assert!(build.status().expect("cargo can be run").success(), "isokiln does not build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target.unwrap_or_else(|| repository().join("target")).join("release/isokiln")
    })
}

/// Name of the builder image, which is made once if need be.
pub fn builder_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut command = Command::new(binary());
        command.args(["image", "build", "--format", "json"]);
        let made = Finished::of(&mut command).expect_code(0);
        made.json()["image"].as_str().expect("the image has a name").to_owned()
    })
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub line: String,
    /// Its exit code; absent where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub time: Duration,
    /// Most bytes of memory seen in use.
    pub peak_memory: u64,
}

impl Finished {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        Running::start(command).wait()
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Fails the test unless this is said to people.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not on standard error\n{self}");
        self
    }

    /// Fails the test unless there is one error, however many warnings quote another's.
    #[track_caller]
    pub fn says_one_error(self) -> Self {
        let errors = self.stderr.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!(errors, 1, "one error is enough\n{self}");
        self
    }

    /// Fails the test if this is said to people.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "{text:?} is on standard error\n{self}");
        self
    }

    /// Fails the test unless this is on standard output.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not on standard output\n{self}");
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Standard output as a JSON value a line.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}\n{self}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, code, stdout, stderr, time, .. } = self;
        write!(f, "$ {line}\n(code {code:?} after {time:.1?})\n--- stdout\n{stdout}--- stderr\n{stderr}")
    }
}

/// A command that may still be running. Its output goes to files, so that it never waits for a reader.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
    since: Instant,
}

impl Running {
    /// Starts a command, with standard input closed unless the command says otherwise.
    pub fn start(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        let stdout = tempfile::tempfile().expect("a file for output");
        let stderr = tempfile::tempfile().expect("a file for output");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("a second handle"))
            .stderr(stderr.try_clone().expect("a second handle"))
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        Self { line, child, stdout, stderr, since: Instant::now() }
    }

    /// What it has said to people so far.
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits until it has said this.
    #[track_caller]
    pub fn wait_until_it_says(&mut self, text: &str) {
        while !self.stderr().contains(text) {
            let ended = self.child.try_wait().expect("the child can be waited for");
            assert!(ended.is_none(), "ended without saying {text:?}:\n{}", self.stderr());
            assert!(self.since.elapsed() < LIMIT, "does not say {text:?}:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_none()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("it can be signalled");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Finished {
        self.wait_at_most(LIMIT)
    }

    /// Waits for its end, where it may take longer or must be quicker than other commands.
    #[track_caller]
    pub fn wait_at_most(mut self, limit: Duration) -> Finished {
        let mut peak_memory = 0;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            peak_memory = peak_memory_of(self.child.id()).unwrap_or(peak_memory);
            if self.since.elapsed() > limit {
                drop(self.child.kill());
                panic!("{} hangs:\n{}", self.line, self.stderr());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Finished {
            code: status.code(),
            stdout: contents(&self.stdout),
            stderr: contents(&self.stderr),
            time: self.since.elapsed(),
            line: self.line,
            peak_memory,
        }
    }
}

/// Most bytes of memory that a process has used so far, as the kernel counts; absent once it has ended.
fn peak_memory_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// A file's text from its start, without moving the place where the child writes.
fn contents(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.metadata().map_or(0, |facts| facts.len())).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    let mut text = String::new();
    if bytes.as_slice().read_to_string(&mut text).is_err() {
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    text
}
