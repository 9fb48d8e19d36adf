//! An engine of one's own, which may be restarted and whose disk may be filled.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::{IpAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{Engine, builder_image};

/// Room for everything that the engine holds: the builder image, twice for a moment, and what stages make.
const ROOM: &str = "1200m";
const PATIENCE: Duration = Duration::from_secs(40);

/// A `dockerd` whose data lies in memory. Needs root and `dockerd` on this machine.
pub struct Daemon {
    folder: TempDir,
    process: RefCell<Option<Child>>,
}

impl Daemon {
    /// Starts it and gives it the builder image of the usual engine.
    pub fn start(usual: &Engine) -> Self {
        let folder = TempDir::with_prefix("isokiln-test-engine-").expect("a temporary folder");
        fs::create_dir(folder.path().join("data")).expect("a folder");
        let daemon = Self { folder, process: RefCell::new(None) };
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={ROOM}"), "tmpfs"])
            .arg(daemon.data()));
        daemon.revive();
        let bridge: Option<IpAddr> = usual.gateway().and_then(|address| address.parse().ok());
        let is_there = bridge.is_none_or(|address| TcpListener::bind((address, 0)).is_ok());
        assert!(is_there, "the usual engine's bridge is gone: its network must be made anew");
        usual.give_image(builder_image(), &daemon.engine());
        daemon
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// For `DOCKER_HOST`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A connection of its own to it.
    pub fn engine(&self) -> Engine {
        Engine::at(&self.socket()).expect("the engine answers")
    }

    /// Starts it unless it runs, and waits until it answers.
    pub fn revive(&self) {
        let mut process = self.process.borrow_mut();
        if process.is_none() {
            // One that was killed had no time to.
            drop(fs::remove_file(self.folder.path().join("pid")));
            let log = File::options().create(true).append(true).open(self.folder.path().join("log"));
            let log = log.expect("a log");
            let folder = |name: &str| self.folder.path().join(name).display().to_string();
            let mut command = Command::new("unshare");
            command
                // An engine without a bridge removes "docker0", which here is the usual engine's: this one must not see it.
                .args(["--net", "dockerd"])
                .args([
                    "--data-root",
                    &folder("data"),
                    "--exec-root",
                    &folder("exec"),
                    "--pidfile",
                    &folder("pid"),
                ])
                .args([
                    "--host",
                    &self.address(),
                    "--bridge=none",
                    "--iptables=false",
                    "--storage-driver=overlay2",
                ])
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log)
                .process_group(0);
            *process = Some(command.spawn().expect("dockerd can be started"));
        }
        let since = Instant::now();
        while Engine::at(&self.socket()).is_none() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(since.elapsed() < PATIENCE, "the engine does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Leaves no room for another file in its data; gives how many there may be usually.
    pub fn use_inodes_up(&self) -> u64 {
        let total = statvfs(&self.data()).expect("a file system").files();
        let since = Instant::now();
        // The engine makes files meanwhile, and no fewer can be allowed than there are.
        loop {
            let facts = statvfs(&self.data()).expect("a file system");
            if self.remount(facts.files() - facts.files_free()) {
                return total;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "the engine's inodes cannot be limited; run the tests as root"
            );
        }
    }

    /// Allows so many files in its data.
    pub fn allow_inodes(&self, count: u64) {
        assert!(self.remount(count), "the engine's inodes cannot be allowed again");
    }

    fn remount(&self, inodes: u64) -> bool {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,nr_inodes={inodes}")]).arg(self.data());
        command.output().is_ok_and(|done| done.status.success())
    }

    /// Stops it, as a system does.
    pub fn stop(&self) {
        let Some(mut child) = self.process.borrow_mut().take() else { return };
        let _ = kill(id(&child), Signal::SIGTERM);
        let since = Instant::now();
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if since.elapsed() > PATIENCE {
                let _ = killpg(id(&child), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it.
    pub fn crash(&self) {
        let Some(mut child) = self.process.borrow_mut().take() else { return };
        let _ = kill(id(&child), Signal::SIGKILL);
        drop(child.wait());
        // containerd dies with it. Where nobody reaps it, its number would be taken for one that runs.
        drop(fs::remove_file(self.folder.path().join("exec/containerd/containerd.pid")));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        // An engine that was killed has left the supervisors of its containers.
        for process in processes_of(self.folder.path()) {
            let _ = kill(process, Signal::SIGKILL);
        }
        for mount in mounts_below(self.folder.path()) {
            drop(Command::new("umount").arg("--lazy").arg(mount).status());
        }
    }
}

fn id(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"))
}

/// Processes on whose command lines the folder stands, and all below them.
fn processes_of(folder: &Path) -> Vec<Pid> {
    let folder = folder.display().to_string();
    let entries = || fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let text = |path: &Path, name: &str| {
        let bytes = fs::read(path.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<i32>().ok();
    let mut found: Vec<_> = entries()
        .filter(|path| text(path, "cmdline").contains(&folder))
        .filter_map(|path| number(&path))
        .collect();
    let mut seen = 0;
    while seen < found.len() {
        let parent = format!("PPid:\t{}\n", found[seen]);
        let below = entries().filter(|path| text(path, "status").contains(&parent));
        found.extend(below.filter_map(|path| number(&path)));
        seen += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// Innermost first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut paths: Vec<_> = paths.filter(|path| path.starts_with(folder)).collect();
    paths.reverse();
    paths
}

#[track_caller]
fn run(command: &mut Command) {
    let done = command.status().is_ok_and(|status| status.success());
    assert!(done, "{command:?} failed; run the tests as root");
}
