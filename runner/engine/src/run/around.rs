//! The user's scripts around a stage.

use std::path::Path;

use isokiln_core::event::Event;
use isokiln_core::pipeline::{Hook, Stage};

use super::build::{Build, told_in_full};
use super::error::RunError;
use super::failure::Failure;
use super::stage::Failed;
use crate::hooks::{HookCall, find_hook, run_hook};

impl Build {
    /// Runs the user's scripts that follow a failure; gives what is wrong with a required one.
    pub(super) async fn hooks_after(
        &self,
        stage: &Stage,
        failed: &Failed,
    ) -> Result<Option<String>, RunError> {
        let seconds = format!("{:.0}", failed.seconds);
        let post = self.hook(stage, Hook::PostPhase, &["failure".to_owned(), seconds]).await?;
        let emergency = self.hook(stage, Hook::EmergencyRecovery, &[failed.status.to_string()]).await?;
        let problem = post.or(emergency);
        if let Some(problem) = &problem {
            // The stage's own failure is the one that counts.
            self.warn_of_hook(stage, problem.clone());
        }
        Ok(problem)
    }

    /// A stage fails of a required script.
    pub(super) fn failed_hook(&self, stage: &Stage, problem: String) -> RunError {
        let hint = "correct it, or take it out of required in [hooks]".to_owned();
        self.failed(stage, Failure { cause: problem, hint: Some(hint) }, Vec::new())
    }

    fn warn_of_hook(&self, stage: &Stage, text: String) {
        self.events.emit(Event::Warning { stage: Some(stage.name.clone()), text });
    }

    /// Runs the user's script for a moment of a stage, where there is one. Gives what is wrong with one that is required;
    /// of others that is told.
    pub(super) async fn hook(
        &self,
        stage: &Stage,
        hook: Hook,
        arguments: &[String],
    ) -> Result<Option<String>, RunError> {
        let settings = &self.project.pipeline.hooks;
        let is_required = settings.required.contains(&hook);
        let folder =
            self.project.file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let script = std::path::absolute(folder).ok().and_then(|folder| find_hook(&folder, hook));
        let problem = match script {
            None if !is_required => return Ok(None),
            None => {
                format!("there is no hooks/{}.sh beside the pipeline file, which is required", hook.name())
            }
            Some(script) => {
                let output = match self.reviewer.coordination.hook(hook, &script) {
                    Ok(output) => output,
                    Err(source) => return Err(self.run.error(self.run.path(), source)),
                };
                let arguments: Vec<_> =
                    [stage.name.to_string()].into_iter().chain(arguments.iter().cloned()).collect();
                let call = HookCall {
                    script: &script,
                    arguments: &arguments,
                    environment: &[
                        ("ISOKILN_RUN", self.run.id.to_string()),
                        ("ISOKILN_RUN_FOLDER", self.run.path().display().to_string()),
                        ("ISOKILN_PIPELINE", self.project.pipeline.name.to_string()),
                    ],
                    folder,
                    output: &output,
                    time: settings.time,
                };
                match run_hook(&call).await {
                    Ok(()) => return Ok(None),
                    Err(error) => format!("{}; its output is in {}", told_in_full(&error), output.display()),
                }
            }
        };
        if is_required {
            return Ok(Some(problem));
        }
        self.warn_of_hook(stage, problem);
        Ok(None)
    }
}
