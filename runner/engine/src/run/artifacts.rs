//! Files that leave a build: from the engine into the store, and from there into the run folder.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use isokiln_core::digest::Digest;
use isokiln_core::event::Event;
use isokiln_core::image::{ARTIFACTS_TYPE, Artifact, EntryNote, Role, attachment_documents};
use isokiln_core::pipeline::Stage;

use super::build::Build;
use super::error::RunError;
use crate::store::StoreError;

/// Artifacts are not meant to be changed in place; copies are.
const MODE: u32 = 0o444;

impl Build {
    /// Moves what a stage has left into the store.
    pub(super) async fn store_artifacts(
        &self,
        stage: &Stage,
        subject: (Digest, u64),
        note: EntryNote,
    ) -> Result<Vec<Artifact>, RunError> {
        let what = || format!("the artifacts of stage {} cannot be stored", stage.name);
        let names =
            self.sandbox.artifacts(&self.run.id, &stage.name).await.map_err(RunError::sandbox(what()))?;
        let mut files = Vec::new();
        for name in names {
            let flow = self
                .sandbox
                .artifact(&self.run.id, &stage.name, &name)
                .await
                .map_err(RunError::sandbox(what()))?;
            let store = self.store.clone();
            let stored = tokio::task::spawn_blocking(move || store.put_stream(flow.bytes));
            let stored = stored.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            // A helper that failed explains a short or broken stream better than the stream does.
            flow.done.await.map_err(RunError::sandbox(what()))?;
            let (digest, size) = stored.map_err(RunError::store(what()))?;
            files.push(Artifact { name, digest, size });
        }
        let documents = attachment_documents(ARTIFACTS_TYPE, &files, Some(subject))
            .map_err(|error| RunError::store(what())(bad_document(self.store.root(), &error)))?;
        let note = EntryNote { role: Role::Artifacts, ..note };
        self.store.add(&documents, note).map_err(RunError::store(what()))?;
        Ok(files)
    }

    /// Puts artifacts of the store into the run folder and tells of them.
    pub(super) fn deliver(&self, stage: &Stage, files: &[Artifact]) -> Result<Vec<PathBuf>, RunError> {
        let folder = self.run.artifacts()?;
        files
            .iter()
            .map(|file| {
                let path = folder.join(&file.name);
                if !self.link_earlier(file, &path) {
                    self.copy_from_store(file, &path)?;
                }
                self.events.emit(Event::Artifact {
                    stage: stage.name.clone(),
                    path: path.display().to_string(),
                    size: file.size,
                    digest: file.digest,
                });
                Ok(path)
            })
            .collect()
    }

    /// Shares the file of an earlier run that is the same and was not touched since, which costs nothing.
    fn link_earlier(&self, file: &Artifact, path: &Path) -> bool {
        let runs = self.home.run_folders();
        runs.iter().rev().filter(|run| *run != self.run.path()).any(|run| {
            let earlier = run.join("artifacts").join(&file.name);
            let untouched = fs::metadata(&earlier).is_ok_and(|facts| {
                facts.len() == file.size
                    && facts.mode() & 0o777 == MODE
                    && facts.mtime() == self.context.epoch
                    && facts.mtime_nsec() == i64::from(mark(file.digest))
            });
            untouched && fs::hard_link(&earlier, path).is_ok()
        })
    }

    fn copy_from_store(&self, file: &Artifact, path: &Path) -> Result<(), RunError> {
        let what = format!("the artifact {} cannot be delivered", file.name);
        let write = |source| self.run.error(path, source);
        let temporary = path.with_file_name(format!(".{}", file.name));
        drop(fs::remove_file(&temporary));
        let mut target: File =
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary).map_err(write)?;
        let mut source = self.store.reader(file.digest).map_err(RunError::store(what.clone()))?;
        if let Err(error) = io::copy(&mut source, &mut target) {
            drop(fs::remove_file(&temporary));
            return Err(match StoreError::from_read(error, path) {
                StoreError::Io { source, .. } => self.run.error(path, source),
                damaged => RunError::store(what)(damaged),
            });
        }
        // The time is that of the build's inputs, with a mark of the contents in its fraction.
        let time =
            UNIX_EPOCH + Duration::new(u64::try_from(self.context.epoch).unwrap_or(0), mark(file.digest));
        target.set_times(FileTimes::new().set_modified(time)).map_err(write)?;
        drop(target);
        fs::rename(&temporary, path).map_err(write)
    }
}

/// A number below 10⁹ that differs for different contents.
fn mark(digest: Digest) -> u32 {
    u32::from_str_radix(&digest.hex()[..7], 16).unwrap_or(0)
}

pub(super) fn bad_document(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::BadDocument { path: path.to_owned(), reason: error.to_string() }
}
