//! The user's scripts around a stage.

use std::path::Path;

use isokiln_core::event::Event;
use isokiln_core::pipeline::{Hook, Stage};

use super::build::Build;
use super::error::RunError;
use super::failure::Failure;
use crate::hooks::{HookCall, find_hook, run_hook};

impl Build {
    /// Runs the user's script for a moment of a stage, where there is one. Only one that is required fails the stage.
    pub(super) async fn hook(&self, stage: &Stage, hook: Hook, arguments: &[String]) -> Result<(), RunError> {
        let settings = &self.project.pipeline.hooks;
        let is_required = settings.required.contains(&hook);
        let folder =
            self.project.file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let script = std::path::absolute(folder).ok().and_then(|folder| find_hook(&folder, hook));
        let problem = match script {
            None if !is_required => return Ok(()),
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
                    Ok(()) => return Ok(()),
                    Err(error) => format!("{error}; its output is in {}", output.display()),
                }
            }
        };
        if !is_required {
            self.events.emit(Event::Warning { stage: Some(stage.name.clone()), text: problem });
            return Ok(());
        }
        let hint = "correct it, or take it out of required in [hooks]".to_owned();
        Err(self.failed(stage, Failure { cause: problem, hint: Some(hint) }, Vec::new()))
    }
}
