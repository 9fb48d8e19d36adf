//! Having the builder image: found by its tag, or made.

use std::path::Path;
use std::time::Instant;

use isokiln_core::archive::{AptSource, parse_sources};
use isokiln_core::event::Event;
use isokiln_core::names::RunId;
use isokiln_core::pipeline::{Architecture, Distribution, System};

use super::error::RunError;
use super::session::Session;
use crate::archive::{archive_state, host_sources};
use crate::sandbox::Cancel;
use crate::sandbox::docker::{
    BUILDER_SUITE, BuilderDefinition, BuilderImage, Engine, ImageOrder, Route, default_sources,
};

impl Session {
    /// The builder image; made first if the engine does not have it, or if `rebuild` says so.
    pub(super) async fn ensure_image(
        &self,
        engine: &Engine,
        route: Option<Route>,
        rebuild: bool,
        run: &RunId,
    ) -> Result<BuilderImage, RunError> {
        let started = Instant::now();
        let definition = BuilderDefinition::bundled();
        let found =
            definition.find(engine).await.map_err(RunError::sandbox("cannot look for the builder image"))?;
        let (image, built) = match found {
            Some(image) if !rebuild => (image, false),
            _ => (self.make_image(&definition, engine, route, run).await?, true),
        };
        self.events.emit(Event::ImageReady {
            image: image.name.clone(),
            built,
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(image)
    }

    async fn make_image(
        &self,
        definition: &BuilderDefinition,
        engine: &Engine,
        route: Option<Route>,
        run: &RunId,
    ) -> Result<BuilderImage, RunError> {
        self.events.emit(Event::Working { text: "making the builder image".to_owned() });
        let system = builder_system();
        let host = host_sources(Path::new("/etc/apt"));
        // Where the host knows no archive, the tool has a default of its own.
        let archive = self
            .until_cancelled(archive_state(&*self.fetch, &system, &host, &|_| ()))
            .await?
            .unwrap_or_default();
        let sources: Vec<_> = archive.sources_list().lines().map(str::to_owned).collect();
        let progress = |step: &str| {
            self.events.emit(Event::Working { text: format!("making the builder image: {step}") });
        };
        let order = ImageOrder {
            route,
            sources: &sources,
            epoch: archive.epoch().unwrap_or(0),
            run,
            progress: &progress,
            cancel: self.cancel.clone(),
        };
        let built = definition.build(engine, order).await;
        if built.is_err() && *self.cancel.borrow() != Cancel::No {
            return Err(RunError::Cancelled);
        }
        built.map_err(RunError::sandbox("the builder image is needed for every stage"))
    }
}

/// What the builder image is a system of.
pub(super) fn builder_system() -> System {
    System {
        distribution: Distribution::Debian,
        suite: BUILDER_SUITE.to_owned(),
        architecture: Architecture::Amd64,
        mirrors: Vec::new(),
        components: vec!["main".to_owned()],
    }
}

/// The archives that mmdebstrap itself would use for a system, where a builder image can be asked.
pub(super) async fn tool_default_sources(engine: &Engine, system: &System) -> Option<Vec<AptSource>> {
    let image = BuilderDefinition::bundled().find(engine).await.ok()??;
    let text =
        default_sources(engine, &image.name, &system.suite, &system.components.join(",")).await.ok()?;
    Some(parse_sources(&text, false)).filter(|sources| !sources.is_empty())
}
