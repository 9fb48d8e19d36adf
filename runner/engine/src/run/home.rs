//! isokiln's folder in a project: `.isokiln/`, with the store, the runs and the lock.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use isokiln_core::digest::Digest;
use isokiln_core::names::{ProfileName, RunId, StageName};

use super::clock::Clock;
use super::error::RunError;
use crate::sandbox::docker::StoreVolume;
use crate::store::{Store, WriterLock};

/// `.isokiln/`.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// `.isokiln/runs/ID/`.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// The run.
    pub id: RunId,
    path: PathBuf,
}

/// Everything that isokiln makes in its folder. The lock is last: whoever removes all holds it.
const OWN: [&str; 7] = ["store", "runs", "review", "acceleration.json", "archive.json", "latest", "lock"];

impl Home {
    /// The folder, made if need be.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let made = fs::create_dir_all(root).and_then(|()| fs::canonicalize(root));
        let root = made.map_err(|source| RunError::Folder { path: root.to_owned(), source })?;
        Ok(Self { root })
    }

    /// The folder, only if isokiln has used it: commands that look must not leave anything.
    pub fn find(root: &Path) -> Option<Self> {
        let root = fs::canonicalize(root).ok()?;
        OWN.iter().any(|name| root.join(name).exists()).then_some(Self { root })
    }

    /// What isokiln has made in the folder, which may hold files of somebody else's too.
    pub(super) fn own(&self) -> impl Iterator<Item = PathBuf> {
        OWN.iter().map(|name| self.root.join(name)).filter(|path| path.symlink_metadata().is_ok())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The store.
    pub fn store(&self) -> Result<Store, RunError> {
        Store::open(self.root.join("store")).map_err(RunError::store("the store cannot be opened"))
    }

    /// Waits for the right to write to the store; `waiting` is told who has it. What a writer that died has left
    /// unfinished is gone then.
    pub fn lock(&self, waiting: impl FnOnce(&str)) -> Result<WriterLock, RunError> {
        let lock = WriterLock::take(&self.root.join("lock"), waiting)
            .map_err(RunError::store("the store cannot be locked"))?;
        if self.root.join("store").exists() {
            let dropped = self.store()?.drop_unfinished();
            dropped.map_err(RunError::store("what was left unfinished in the store cannot be removed"))?;
        }
        Ok(lock)
    }

    /// What belongs to this folder inside the engine.
    pub fn volume(&self) -> StoreVolume {
        StoreVolume::of(&self.root)
    }

    /// Where runs lie.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Path of what the canary has found out.
    pub(super) fn acceleration(&self) -> PathBuf {
        self.root.join("acceleration.json")
    }

    /// Path of the remembered archive states.
    pub(super) fn archive_memory(&self) -> PathBuf {
        self.root.join("archive.json")
    }

    /// Folder of what reviews remember: what has helped, what agents have answered and cost.
    pub fn review(&self) -> PathBuf {
        self.root.join("review")
    }

    /// Makes the folder of a new run.
    pub fn new_run(&self, clock: &dyn Clock) -> Result<RunFolder, RunError> {
        let now = clock.nanoseconds();
        let time = jiff::Timestamp::from_second(clock.seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let salt = Digest::of(format!("{now} {}", std::process::id())).short();
        let id = format!("{}-{}", time.strftime("%Y%m%d-%H%M%S"), &salt[..4]);
        let id: RunId = id.parse().map_err(|_| RunError::Network("the clock gives no run id".to_owned()))?;
        let folder = RunFolder { path: self.runs().join(id.as_str()), id };
        fs::create_dir_all(&folder.path).map_err(|source| folder.error(&folder.path, source))?;
        Ok(folder)
    }

    /// Points `latest` at the folder of a build.
    pub(super) fn set_latest(&self, run: &RunFolder) {
        // Convenience only: a file system without links does without.
        let latest = self.root.join("latest");
        drop(fs::remove_file(&latest));
        drop(std::os::unix::fs::symlink(Path::new("runs").join(run.id.as_str()), latest));
    }

    /// Folders of all runs, oldest first.
    pub fn run_folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.runs()) else { return Vec::new() };
        let mut folders: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    }
}

/// Writes a file so that whoever reads it meanwhile finds the old one or the new one, whole.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    // Several may be writing the same file at the same time.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    temporary.push(format!(".{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let replaced = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        // What came of it is of no use.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

impl RunFolder {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file for events.
    pub(super) fn events(&self) -> Result<File, RunError> {
        let path = self.path.join("events.jsonl");
        File::create(&path).map_err(|source| self.error(&path, source))
    }

    /// Where the run is summed up.
    pub(super) fn record(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// Where the run's boot tests are told as JUnit XML.
    pub(super) fn junit(&self) -> PathBuf {
        self.path.join("junit.xml")
    }

    /// Path of the file for a stage's output.
    pub(super) fn log_path(&self, stage: &StageName) -> PathBuf {
        self.path.join("stages").join(stage.as_str()).join("log")
    }

    /// The file for a stage's output. That of the attempt before is kept beside it.
    pub(super) fn log(&self, stage: &StageName, attempt: usize) -> Result<(PathBuf, File), RunError> {
        let path = self.log_path(stage);
        let folder = path.parent().unwrap_or(&self.path);
        if attempt > 1 {
            // Evidence only: the build does not hang on it.
            drop(fs::rename(&path, folder.join(format!("log.{}", attempt - 1))));
        }
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&path));
        file.map(|file| (path.clone(), file)).map_err(|source| self.error(&path, source))
    }

    /// Where files that leave the build go.
    pub(super) fn artifacts(&self) -> Result<PathBuf, RunError> {
        let path = self.path.join("artifacts");
        fs::create_dir_all(&path).map_err(|source| self.error(&path, source))?;
        Ok(path)
    }

    /// Where the evidence of a boot test goes; `iso` is the ISO's file name.
    pub(super) fn boot(&self, iso: &str, profile: &ProfileName) -> PathBuf {
        self.path.join("boot").join(iso.strip_suffix(".iso").unwrap_or(iso)).join(profile.as_str())
    }

    pub(super) fn error(&self, path: &Path, source: std::io::Error) -> RunError {
        RunError::Folder { path: path.to_owned(), source }
    }
}
