//! What a build rests on, found out before anything is started: engine, builder image, archive state.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use isokiln_core::archive::{AptSource, ArchiveState};
use isokiln_core::digest::Digest;
use isokiln_core::plan::{BuildContext, Plan};

use super::builder_image::tool_default_sources;
use super::checkpoints::Shelf;
use super::error::RunError;
use super::events::Events;
use super::home::Home;
use super::project::Project;
use crate::archive::{ArchiveError, Fetch, archive_state, host_sources};
use crate::library;
use crate::sandbox::docker::{BuilderDefinition, BuilderImage, Engine};

/// A project and everything that its stage keys depend on.
#[derive(Clone)]
pub struct Prepared {
    /// The project.
    pub project: Project,
    /// The engine.
    pub engine: Engine,
    /// The builder image, if it has been made.
    pub image: Option<BuilderImage>,
    /// Inputs that all stages share.
    pub context: BuildContext,
}

/// Time given to files where there is no archive whose age could be used: 2024-01-01.
const NO_ARCHIVE_EPOCH: i64 = 1_704_067_200;
/// Where Debian and its kin keep apt's sources.
const APT_ETC: &str = "/etc/apt";
/// Variables that say how to reach the network; they reach stages but do not change results.
pub(super) const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// Finds out what a build of the project rests on. Starts nothing.
pub async fn prepare(
    home: &Home,
    project: Project,
    fetch: &dyn Fetch,
    events: &Events,
) -> Result<Prepared, RunError> {
    let engine = Engine::connect().await.map_err(RunError::sandbox("isokiln needs a container engine"))?;
    let definition = BuilderDefinition::bundled();
    let image = async {
        definition.find(&engine).await.map_err(RunError::sandbox("cannot look for the builder image"))
    };
    let archive = find_archive(home, &project, &engine, fetch, events);
    let (image, archive) = tokio::try_join!(image, archive)?;
    let files = project.digest_inputs()?;
    let epoch = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    let wanted = project.pipeline.stages.iter().flat_map(|stage| &stage.environment);
    let context = BuildContext {
        kinds: project.kinds.catalog.clone(),
        library: library::stage_library_digest(),
        builder: image.as_ref().map_or_else(|| "not made yet".to_owned(), |image| image.contents.clone()),
        epoch: epoch.or(archive.epoch()).unwrap_or(NO_ARCHIVE_EPOCH),
        archive,
        files,
        environment: wanted.filter_map(|name| Some((name.clone(), env::var(name).ok()?))).collect(),
    };
    Ok(Prepared { project, engine, image, context })
}

/// Decides about every stage. Starts nothing.
pub fn plan(home: &Home, prepared: &Prepared) -> Result<Plan, RunError> {
    let shelf = Shelf::load(&home.store()?)?;
    Ok(isokiln_core::plan::plan(&prepared.project.pipeline, &prepared.context, &shelf))
}

async fn find_archive(
    home: &Home,
    project: &Project,
    engine: &Engine,
    fetch: &dyn Fetch,
    events: &Events,
) -> Result<ArchiveState, RunError> {
    let pipeline = &project.pipeline;
    let Some(stage) = pipeline.stages.iter().find(|stage| stage.archive) else {
        return Ok(ArchiveState::default());
    };
    let host = host_sources(Path::new(APT_ETC));
    let mut memory = Memory::load(home);
    let key = Memory::key(pipeline.system.distribution.name(), &pipeline.system, &host);
    let warn = |text: String| events.warn(text);
    let mut found = archive_state(fetch, &pipeline.system, &host, &warn).await;
    if matches!(found, Err(ArchiveError::NoMirror { .. } | ArchiveError::NoSuite { .. }))
        && let Some(defaults) = tool_default_sources(engine, &pipeline.system).await
    {
        found = archive_state(fetch, &pipeline.system, &defaults, &|_| ()).await;
    }
    match found {
        Ok(state) => {
            memory.keep(home, key, &state);
            Ok(state)
        }
        Err(error) => match memory.0.remove(&key) {
            Some(state) if error.is_network() => {
                events.warn(format!(
                    "{error}; going on with the archive's state of {}",
                    jiff::Timestamp::from_second(state.epoch().unwrap_or_default())
                        .map_or_else(|_| "an earlier build".to_owned(), |time| time.to_string())
                ));
                Ok(state)
            }
            _ => Err(RunError::Archive { stage: stage.name.clone(), source: error }),
        },
    }
}

/// Archive states of earlier builds, for when there is no network: a build whose stages are all there
/// needs none.
#[derive(Default)]
struct Memory(BTreeMap<String, ArchiveState>);

impl Memory {
    fn key(distribution: &str, system: &isokiln_core::pipeline::System, host: &[AptSource]) -> String {
        Digest::of(format!("{distribution} {system:?} {host:?}")).to_string()
    }

    fn load(home: &Home) -> Self {
        let text = fs::read(home.archive_memory()).unwrap_or_default();
        Self(serde_json::from_slice(&text).unwrap_or_default())
    }

    fn keep(&mut self, home: &Home, key: String, state: &ArchiveState) {
        if self.0.get(&key) == Some(state) {
            return;
        }
        self.0.insert(key, state.clone());
        let path = home.archive_memory();
        let temporary = path.with_extension(format!("json.{}", std::process::id()));
        let json = serde_json::to_vec_pretty(&self.0).unwrap_or_default();
        // Only a memory: without it, a build without network is told so.
        if let Err(error) = fs::write(&temporary, json).and_then(|()| fs::rename(&temporary, &path)) {
            tracing::warn!("cannot remember the archive's state in {}: {error}", path.display());
        }
    }
}
