//! Giving back what lies in the engine and in isokiln's folder: `clean`, `gc`, `image rm`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use isokiln_core::digest::DiffId;
use isokiln_core::image::Checkpoint;
use isokiln_core::keep::Keep;
use isokiln_core::names::RunId;
use serde::Serialize;

use super::error::RunError;
use super::home::{Home, begun};
use super::session::Session;
use super::unfinished::left;
use crate::sandbox::Sandbox;
use crate::sandbox::docker::{
    BuilderDefinition, DockerSandbox, Engine, builder_images, orphaned_volumes, remove_builder_image, sweep,
};
use crate::store::{GcReport, KeepRule, VerifyReport, Writer};

/// What a clean-up removed.
#[derive(Debug, Default, Clone, Serialize)]
pub struct CleanReport {
    /// Containers and folders of runs that were killed.
    pub leftovers: Vec<String>,
    /// Volumes: unpacked layers and package caches.
    pub volumes: Vec<String>,
    /// Folders on this machine.
    pub folders: Vec<String>,
}

/// Checks every byte of a store. Where something is wrong, sees to it that the next build makes it anew;
/// `waiting` is told who writes to the store meanwhile.
pub fn verify(home: &Home, waiting: impl FnMut(&str)) -> Result<VerifyReport, RunError> {
    let store = home.store()?;
    let failed = || "the store cannot be verified";
    let entries = store.entries().ok();
    let mut report = store.verify(|_| ()).map_err(RunError::store(failed()))?;
    if !report.is_clean() {
        let _lock = home.lock(&Writer::Alone("verify"), waiting)?;
        // What a collection has removed meanwhile is no damage.
        if store.entries().ok() != entries {
            report = store.verify(|_| ()).map_err(RunError::store(failed()))?;
        }
        store.repair(&report).map_err(RunError::store("the store cannot be repaired"))?;
    }
    Ok(report)
}

impl Session {
    /// Removes what lies in the engine for this folder; with `all`, also the folder, and the volumes of
    /// folders that are gone. Builder images stay: other folders use them too.
    pub async fn clean(&self, root: &Path, all: bool) -> Result<CleanReport, RunError> {
        let engine = self.engine().await?;
        let failed = || "not everything could be removed";
        let mut report = CleanReport::default();
        let home = Home::find(root);
        let lock = match &home {
            Some(home) => Some(self.lock(home, Writer::Alone("clean")).await?),
            None => None,
        };
        let gone = sweep(&engine).await.map_err(RunError::sandbox(failed()))?;
        report.leftovers.extend(gone.into_iter().map(|leftover| leftover.name));
        if let Some(home) = &home {
            let volume = home.volume();
            if volume.exists(&engine).await.map_err(RunError::sandbox(failed()))? {
                // A boot test needs no lock.
                if volume.remove_unused(&engine).await.map_err(RunError::sandbox(failed()))? {
                    report.volumes.push(volume.name().to_owned());
                } else {
                    let name = volume.name();
                    self.events.warn(format!("volume {name} stays: a run or another container is using it"));
                }
            }
        }
        if all {
            for volume in orphaned_volumes(&engine).await.map_err(RunError::sandbox(failed()))? {
                // One that is in use belongs to somebody who is at work.
                if volume.remove_unused(&engine).await.map_err(RunError::sandbox(failed()))? {
                    report.volumes.push(volume.name().to_owned());
                }
            }
            if let Some(home) = &home {
                for path in self.remove_runs(home)? {
                    report.folders.push(path.display().to_string());
                }
                for path in home.own().filter(|path| *path != home.runs()) {
                    remove(&path)?;
                    report.folders.push(path.display().to_string());
                }
                // Succeeds only if nothing else is in it.
                drop(fs::remove_dir(home.path()));
            }
        }
        drop(lock);
        Ok(report)
    }

    /// Removes the folders of runs, but for those that live: boot tests, and builds that wait for the lock; gives what went.
    fn remove_runs(&self, home: &Home) -> Result<Vec<PathBuf>, RunError> {
        let runs = home.runs();
        if !runs.exists() {
            return Ok(Vec::new());
        }
        let _none_begins = home.hold_runs()?;
        let living = home.living_runs();
        for run in &living {
            self.events.warn(format!("run {run} goes on, and its folder stays"));
        }
        if living.is_empty() {
            remove(&runs)?;
            return Ok(vec![runs]);
        }
        let is_needed = |path: &PathBuf| living.iter().any(|run| path.ends_with(run.as_str()));
        let gone: Vec<_> = home.run_folders().into_iter().filter(|path| !is_needed(path)).collect();
        gone.iter().try_for_each(|path| remove(path))?;
        Ok(gone)
    }

    /// Removes all builder images from the engine; gives their names. The next build makes one anew.
    pub async fn remove_images(&self) -> Result<Vec<String>, RunError> {
        let engine = self.engine().await?;
        let failed = || "not all builder images could be removed";
        let images = builder_images(&engine).await.map_err(RunError::sandbox(failed()))?;
        for image in &images {
            remove_builder_image(&engine, image).await.map_err(RunError::sandbox(failed()))?;
        }
        Ok(images)
    }

    /// Forgets old checkpoints and runs, and deletes what nothing refers to any more, in the store and, if
    /// the engine answers, in the engine.
    pub async fn collect(&self, home: &Home, keep: Keep, dry_run: bool) -> Result<Collected, RunError> {
        let _lock = self.lock(home, Writer::Alone("gc")).await?;
        let store = home.store()?;
        let rule = rule(keep, self.clock.seconds());
        // What frees room without needing any goes first: the disk may be full.
        let (runs, run_bytes) = collect_runs(home, rule, dry_run)?;
        let report =
            store.collect(rule, dry_run).map_err(RunError::store("the store cannot be collected"))?;
        let checkpoints = store.kept_by(rule).map_err(RunError::store("the store cannot be read"))?;
        let needed: BTreeSet<DiffId> = checkpoints.iter().flat_map(Checkpoint::diff_ids).collect();
        let engine_bytes = self.collect_in_engine(home, &needed, &runs, dry_run).await?;
        Ok(Collected { store: report, runs, run_bytes, engine_bytes })
    }

    /// Unpacked layers are only a convenience: where no engine answers, there is nothing to give back now.
    async fn collect_in_engine(
        &self,
        home: &Home,
        needed: &BTreeSet<DiffId>,
        gone: &[String],
        dry_run: bool,
    ) -> Result<Option<u64>, RunError> {
        let Ok(engine) = Engine::connect().await else { return Ok(None) };
        let failed = || "the engine could not be tidied up";
        let image = BuilderDefinition::bundled().find(&engine).await.map_err(RunError::sandbox(failed()))?;
        let volume = home.volume();
        let there = volume.exists(&engine).await.map_err(RunError::sandbox(failed()))?;
        let (Some(image), true, Ok(run)) = (image, there, "gc".parse::<RunId>()) else {
            return Ok(None);
        };
        let sandbox = DockerSandbox::new(engine, image.name, volume, run);
        // What a stage has left that failed stays until the next build, for isokiln shell.
        let is_gone = |run: &RunId| gone.iter().any(|folder| folder.ends_with(&format!("/{run}")));
        let failed_stages = left(home).into_iter().map(|left| left.run).filter(|run| !is_gone(run));
        let kept = home.living_runs().into_iter().chain(failed_stages).collect();
        let collected = async {
            let bytes = sandbox.weigh(&kept, needed).await?;
            if !dry_run {
                sandbox.keep_only(&kept, Some(needed)).await?;
            }
            Ok(bytes)
        }
        .await;
        let destroyed = sandbox.destroy().await;
        let bytes = collected.map_err(RunError::sandbox(failed()))?;
        destroyed.map_err(RunError::sandbox(failed()))?;
        Ok(Some(bytes))
    }
}

/// Removes a file, a link or a folder with all that is in it.
fn remove(path: &Path) -> Result<(), RunError> {
    let is_folder = path.symlink_metadata().is_ok_and(|facts| facts.is_dir());
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|source| RunError::Folder { path: path.to_owned(), source })
}

/// What a collection removed, or would remove.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Collected {
    /// In the store.
    #[serde(flatten)]
    pub store: GcReport,
    /// Folders of old runs.
    pub runs: Vec<String>,
    /// Bytes of what they held alone.
    pub run_bytes: u64,
    /// Bytes in the engine; absent where no engine answers or it holds nothing of this folder.
    pub engine_bytes: Option<u64>,
}

/// The rule that a wish for what stays comes to now, in seconds since 1970.
fn rule(keep: Keep, now: i64) -> KeepRule {
    let since = keep.younger.map(|age| now.saturating_sub_unsigned(age.as_secs()));
    KeepRule { newest: keep.newest, since, max_bytes: keep.max_bytes }
}

/// Removes the folders of old runs; gives their paths, and the bytes that this frees or would free.
pub(super) fn collect_runs(
    home: &Home,
    rule: KeepRule,
    dry_run: bool,
) -> Result<(Vec<String>, u64), RunError> {
    let folders = home.run_folders();
    let old = &folders[..folders.len().saturating_sub(rule.newest.max(1))];
    let living = home.living_runs();
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for folder in old {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let is_young =
            matches!((begun(&name), rule.since), (Some(began), Some(since)) if began.as_second() >= since);
        if is_young || living.iter().any(|run| run.as_str() == name) {
            continue;
        }
        bytes += own_bytes(folder);
        gone.push(folder.display().to_string());
        if !dry_run {
            fs::remove_dir_all(folder).map_err(|source| RunError::Folder { path: folder.clone(), source })?;
        }
    }
    Ok((gone, bytes))
}

/// Bytes of the files in a folder that lie nowhere else: an ISO is mostly the store's too.
fn own_bytes(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten().filter_map(|file| file.metadata().ok());
    files.filter(|facts| facts.is_file() && facts.nlink() == 1).map(|facts| facts.len()).sum()
}
