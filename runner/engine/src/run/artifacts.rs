//! Files that leave a build: from the engine into the store, and from there into the run folder.

use std::path::{Path, PathBuf};

use isokiln_core::digest::Digest;
use isokiln_core::event::Event;
use isokiln_core::image::{ARTIFACTS_TYPE, Artifact, EntryNote, Role, attachment_documents, is_file_name};
use isokiln_core::pipeline::Stage;

use super::build::Build;
use super::error::RunError;
use super::failure::Failure;
use crate::store::StoreError;

impl Build {
    /// Moves what a stage has left into the store.
    pub(super) async fn fetch_artifacts(
        &self,
        stage: &Stage,
        names: Vec<String>,
    ) -> Result<Vec<Artifact>, RunError> {
        let what = || unstorable(stage);
        let mut files = Vec::new();
        for name in names {
            if !is_file_name(&name) {
                let cause = format!("an artifact is called {name:?}, which is no name of a file");
                let hint = "put files, not folders, into ARTIFACTS".to_owned();
                return Err(self.failed(stage, Failure { cause, hint: Some(hint) }, Vec::new()));
            }
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
        Ok(files)
    }

    /// Enters what a stage has left in the index, attached to the manifest `subject` of its checkpoint.
    pub(super) fn enter_artifacts(
        &self,
        stage: &Stage,
        files: &[Artifact],
        subject: (Digest, u64),
        note: EntryNote,
    ) -> Result<(), RunError> {
        let what = || unstorable(stage);
        let documents = attachment_documents(ARTIFACTS_TYPE, files, Some(subject))
            .map_err(|error| RunError::store(what())(bad_document(self.store.root(), &error)))?;
        let note = EntryNote { role: Role::Artifacts, ..note };
        self.store.add(&documents, note).map(drop).map_err(RunError::store(what()))
    }

    /// Puts artifacts that are known to be whole into the run folder and tells of them. They share the
    /// store's bytes where the file system allows: an ISO need not lie on the disk twice.
    pub(super) fn deliver(&self, stage: &Stage, files: &[Artifact]) -> Result<Vec<PathBuf>, RunError> {
        let folder = self.run.artifacts()?;
        files
            .iter()
            .map(|file| {
                let path = folder.join(&file.name);
                self.claim(stage, &path)?;
                self.store
                    .materialise(file.digest, &path)
                    .map_err(RunError::store(format!("the artifact {} cannot be delivered", file.name)))?;
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
}

fn unstorable(stage: &Stage) -> String {
    format!("the artifacts of stage {} cannot be stored", stage.name)
}

pub(super) fn bad_document(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::BadDocument { path: path.to_owned(), reason: error.to_string() }
}
