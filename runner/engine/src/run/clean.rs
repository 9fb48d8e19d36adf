//! Giving back what lies in the engine and in isokiln's folder: `clean`, `gc`, `image rm`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use isokiln_core::digest::DiffId;
use isokiln_core::image::Checkpoint;
use isokiln_core::names::RunId;
use serde::Serialize;

use super::error::RunError;
use super::home::Home;
use super::session::Session;
use crate::sandbox::Sandbox;
use crate::sandbox::docker::{
    BuilderDefinition, DockerSandbox, Engine, builder_images, orphaned_volumes, remove_builder_image, sweep,
};
use crate::store::{GcReport, KeepRule, VerifyReport};

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
pub fn verify(home: &Home, waiting: impl FnOnce(&str)) -> Result<VerifyReport, RunError> {
    let store = home.store()?;
    let report = store.verify(|_| ()).map_err(RunError::store("the store cannot be verified"))?;
    if !report.is_clean() {
        let _lock = home.lock(waiting)?;
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
            Some(home) => Some(self.lock(home).await?),
            None => None,
        };
        let gone = sweep(&engine).await.map_err(RunError::sandbox(failed()))?;
        report.leftovers.extend(gone.into_iter().map(|leftover| leftover.name));
        if let Some(home) = &home {
            let volume = home.volume();
            if volume.exists(&engine).await.map_err(RunError::sandbox(failed()))? {
                volume.remove(&engine).await.map_err(RunError::sandbox(failed()))?;
                report.volumes.push(volume.name().to_owned());
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
                for path in home.own() {
                    let is_folder = path.symlink_metadata().is_ok_and(|facts| facts.is_dir());
                    let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                    removed.map_err(|source| RunError::Folder { path: path.clone(), source })?;
                    report.folders.push(path.display().to_string());
                }
                // Succeeds only if nothing else is in it.
                drop(fs::remove_dir(home.path()));
            }
        }
        drop(lock);
        Ok(report)
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
    pub async fn collect(&self, home: &Home, rule: KeepRule, dry_run: bool) -> Result<GcReport, RunError> {
        let _lock = self.lock(home).await?;
        let store = home.store()?;
        let mut report =
            store.collect(rule, dry_run).map_err(RunError::store("the store cannot be collected"))?;
        let folders = home.run_folders();
        for folder in &folders[..folders.len().saturating_sub(rule.newest.max(1))] {
            report.runs.push(folder.display().to_string());
            if !dry_run {
                fs::remove_dir_all(folder)
                    .map_err(|source| RunError::Folder { path: folder.clone(), source })?;
            }
        }
        if !dry_run {
            let checkpoints = store.checkpoints().map_err(RunError::store("the store cannot be read"))?;
            let needed: BTreeSet<DiffId> = checkpoints.iter().flat_map(Checkpoint::diff_ids).collect();
            self.collect_in_engine(home, &needed).await?;
        }
        Ok(report)
    }

    /// Unpacked layers are only a convenience: where no engine answers, there is nothing to give back now.
    async fn collect_in_engine(&self, home: &Home, needed: &BTreeSet<DiffId>) -> Result<(), RunError> {
        let Ok(engine) = Engine::connect().await else { return Ok(()) };
        let failed = || "the engine could not be tidied up";
        let image = BuilderDefinition::bundled().find(&engine).await.map_err(RunError::sandbox(failed()))?;
        let volume = home.volume();
        let there = volume.exists(&engine).await.map_err(RunError::sandbox(failed()))?;
        let (Some(image), true, Ok(run)) = (image, there, "gc".parse::<RunId>()) else {
            return Ok(());
        };
        let sandbox = DockerSandbox::new(engine, image.name, volume, run.clone());
        let kept = sandbox.keep_only(&run, needed).await.map(drop);
        let destroyed = sandbox.destroy().await;
        kept.and(destroyed).map_err(RunError::sandbox(failed()))
    }
}
