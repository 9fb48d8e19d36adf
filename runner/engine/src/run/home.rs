//! isokiln's folder in a project: `.isokiln/`, with the store, the runs and the locks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isokiln_core::keep::Keep;
use isokiln_core::names::{ProfileName, RunId, StageName};

use super::clock::Clock;
use super::error::RunError;
use crate::definition::Definition;
use crate::guard::FolderGuard;
use crate::sandbox::docker::StoreVolume;
use crate::store::{RealDisk, Store, Writer, WriterLock, make_folders};

/// `.isokiln/`.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// `.isokiln/runs/ID/`, of a run that lives as long as this does.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// The run.
    pub id: RunId,
    path: PathBuf,
    /// By it others know that the run lives.
    _life: Arc<FolderGuard>,
}

/// Nanoseconds in a second, and the parts of it that ids of runs tell apart.
const SECOND: i128 = 1_000_000_000;
const TICKS: i128 = 1 << 16;
/// File in a run's folder that names the process that has the run; it says so as long as that holds the folder.
pub(super) const PID: &str = "pid";

/// Everything that isokiln makes in its folder. The lock is last: whoever removes all holds it.
const OWN: [&str; 9] =
    ["store", "runs", "review", "acceleration.json", "archive.json", "latest", "latest.new", "locks", "lock"];

impl Home {
    /// The folder, made if need be.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let made = make_folders(&RealDisk, root).and_then(|()| fs::canonicalize(root));
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

    /// Waits for the right to write to the store; `waiting` is told who has it, in words that follow "waiting for". What
    /// writers that died have left unfinished is gone for whoever has it alone.
    pub fn lock(&self, writer: &Writer, waiting: impl FnMut(&str)) -> Result<WriterLock, RunError> {
        let lock = WriterLock::take(&self.root, writer, waiting)
            .map_err(RunError::store("the store cannot be locked"))?;
        if matches!(writer, Writer::Alone(_)) {
            self.drop_unfinished()?;
        }
        Ok(lock)
    }

    /// Deletes what writers that died have left in the store, unless another run than this one lives: it may be writing.
    pub(super) fn tidy_store(&self, run: &RunId) -> Result<(), RunError> {
        let _none_begins = self.hold_runs()?;
        if self.living_runs().iter().all(|living| living == run) { self.drop_unfinished() } else { Ok(()) }
    }

    fn drop_unfinished(&self) -> Result<(), RunError> {
        if !self.root.join("store").exists() {
            return Ok(());
        }
        let dropped = self.store()?.drop_unfinished();
        dropped.map_err(RunError::store("what was left unfinished in the store cannot be removed"))
    }

    /// What the user wants to stay when the store is collected: `keep.toml`, or the defaults where there is none.
    pub fn keep(&self) -> Result<Keep, RunError> {
        let file = Definition::at(&self.root.join("keep.toml"))?;
        Ok(file.map_or_else(|| Ok(Keep::default()), |file| file.read(|_, text| Keep::parse(text)))?)
    }

    /// Folder of the files that builds lock.
    pub(super) fn locks(&self) -> Result<PathBuf, RunError> {
        let path = self.root.join("locks");
        fs::create_dir_all(&path).map_err(|source| RunError::Folder { path: path.clone(), source })?;
        Ok(path)
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
        let runs = self.runs();
        let failed = |path: &Path, source| RunError::Folder { path: path.to_owned(), source };
        let _nobody_counts_runs = loop {
            fs::create_dir_all(&runs).map_err(|source| failed(&runs, source))?;
            // `clean --all` may have removed it a moment ago.
            match FolderGuard::take(&runs) {
                Ok(guard) if guard.is_of(&runs) => break guard,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(&runs, source)),
            }
        };
        let mut now = i128::try_from(clock.nanoseconds()).unwrap_or(0);
        loop {
            let time = jiff::Timestamp::from_nanosecond(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let tick = now.rem_euclid(SECOND) * TICKS / SECOND;
            let id = format!("{}-{tick:04x}", time.strftime("%Y%m%d-%H%M%S"));
            let id: RunId =
                id.parse().map_err(|_| RunError::Network("the clock gives no run id".to_owned()))?;
            let path = runs.join(id.as_str());
            match fs::create_dir(&path).and_then(|()| FolderGuard::take(&path)) {
                Ok(life) => {
                    let label = path.join(PID);
                    fs::write(&label, format!("{}\n", std::process::id()))
                        .map_err(|source| failed(&label, source))?;
                    return Ok(RunFolder { id, path, _life: Arc::new(life) });
                }
                // Another has begun within the same tick.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => now += SECOND / TICKS,
                Err(source) => return Err(failed(&path, source)),
            }
        }
    }

    /// While this is held, no run begins.
    pub(super) fn hold_runs(&self) -> Result<FolderGuard, RunError> {
        let runs = self.runs();
        FolderGuard::take(&runs).map_err(|source| RunError::Folder { path: runs, source })
    }

    /// The runs that live: builds and boot tests, of whatever process.
    pub(super) fn living_runs(&self) -> BTreeSet<RunId> {
        let folders = self.run_folders().into_iter().filter(|folder| FolderGuard::is_taken(folder));
        folders.filter_map(|folder| folder.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// Points `latest` at the folder of a build.
    pub(super) fn set_latest(&self, run: &RunFolder) {
        // Convenience only: a file system without links does without.
        let new = self.root.join("latest.new");
        drop(fs::remove_file(&new));
        // Where two builds begin at the same time, either is the newest.
        drop(std::os::unix::fs::symlink(Path::new("runs").join(run.id.as_str()), &new));
        drop(fs::rename(&new, self.root.join("latest")));
    }

    /// Folders of all runs, oldest first.
    pub fn run_folders(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.runs()) else { return Vec::new() };
        let is_run = |entry: &fs::DirEntry| {
            entry.file_name().to_str().is_some_and(|name| begun(name).is_some()) && entry.path().is_dir()
        };
        let mut folders: Vec<_> = entries.flatten().filter(is_run).map(|entry| entry.path()).collect();
        folders.sort();
        folders
    }
}

/// When a run began, going by its id; absent where this is none.
pub(super) fn begun(id: &str) -> Option<jiff::Timestamp> {
    let time = jiff::fmt::strtime::parse("%Y%m%d-%H%M%S", id.get(..15)?).ok()?;
    let time = time.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(time.timestamp())
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

    /// The file for what the supervisor says that is no event: panics, traces.
    pub(super) fn supervisor_log(&self) -> Result<File, RunError> {
        let path = self.path.join("supervisor.log");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_run_tells_when_it_began() {
        let time = |id| begun(id).map(|time| time.to_string());
        assert_eq!(time("20261129-080416-c26d").as_deref(), Some("2026-11-29T08:04:16Z"));
        for other in ["", "notes", "20261329-080416-c26d", "20261129", "gc", "20261129-0804"] {
            assert_eq!(time(other), None, "{other}");
        }
    }
}
