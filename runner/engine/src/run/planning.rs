//! `isokiln plan`: what a build would do.

use std::path::Path;

use isokiln_core::plan::Plan;

use super::checkpoints::Shelf;
use super::error::RunError;
use super::home::Home;
use super::prepare::build_context;
use super::project::Project;
use super::session::Session;
use crate::sandbox::docker::{BuilderDefinition, BuilderImage};

/// What a build would do.
pub struct Planned {
    /// The project.
    pub project: Project,
    /// The builder image, if it has been made.
    pub image: Option<BuilderImage>,
    /// Every stage, with hit or miss.
    pub plan: Plan,
}

impl Session {
    /// Decides about every stage. Runs none of them, and makes nothing that stays but isokiln's folder.
    pub async fn plan(&self, root: &Path, file: &Path) -> Result<Planned, RunError> {
        let project = Project::load(file)?;
        let engine = self.engine().await?;
        let home = Home::open(root)?;
        let planning = async {
            let image = BuilderDefinition::bundled().find(&engine).await;
            let image = image.map_err(RunError::sandbox("cannot look for the builder image"))?;
            let context =
                build_context(&home, &project, &engine, image.as_ref(), &*self.fetch, &self.events).await?;
            let shelf = Shelf::load(&home.store()?)?;
            let plan = isokiln_core::plan::plan(&project.pipeline, &context, &shelf);
            Ok((image, plan))
        };
        let (image, plan) = self.unless_cancelled(&engine, planning).await?;
        Ok(Planned { project, image, plan })
    }
}
