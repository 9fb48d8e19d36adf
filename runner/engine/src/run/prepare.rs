//! What a build rests on besides its pipeline: builder image, archive state, files, environment.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use isokiln_core::archive::{AptSource, ArchiveState};
use isokiln_core::digest::Digest;
use isokiln_core::plan::BuildContext;

use super::builder_image::tool_default_sources;
use super::error::RunError;
use super::events::Events;
use super::home::{Home, replace_file};
use super::project::Project;
use crate::archive::{ArchiveError, Fetch, archive_state, host_sources};
use crate::guard::FolderGuard;
use crate::library;
use crate::sandbox::docker::{BuilderImage, Engine};

/// Time given to files where there is no archive whose age could be used: 2024-01-01.
const NO_ARCHIVE_EPOCH: i64 = 1_704_067_200;
/// Where Debian and its kin keep apt's sources.
const APT_ETC: &str = "/etc/apt";
/// Variables that say how to reach the network; they reach stages but do not change results.
pub(super) const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// Finds out what all stages of the project depend on. `image` is the builder image, if it has been made.
pub(super) async fn build_context(
    home: &Home,
    project: &Project,
    engine: &Engine,
    image: Option<&BuilderImage>,
    fetch: &dyn Fetch,
    events: &Events,
) -> Result<BuildContext, RunError> {
    let files = project.digest_inputs()?;
    let archive = find_archive(home, project, engine, fetch, events).await?;
    let epoch = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    let wanted = project.pipeline.stages.iter().flat_map(|stage| &stage.environment);
    Ok(BuildContext {
        kinds: project.kinds.catalog.clone(),
        library: library::stage_library_digest(),
        builder: image.map_or_else(|| "not made yet".to_owned(), |image| image.contents.clone()),
        epoch: epoch.or(archive.epoch()).unwrap_or(NO_ARCHIVE_EPOCH),
        archive,
        files,
        environment: wanted.filter_map(|name| Some((name.clone(), env::var(name).ok()?))).collect(),
    })
}

/// This machine's own apt sources.
pub(super) fn machine_sources() -> Vec<AptSource> {
    host_sources(Path::new(APT_ETC))
}

/// The archive's state. Where neither project nor host name an archive that has the suite, a builder image
/// is asked in a container for the bootstrap tool's default.
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
    let host = machine_sources();
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
        let path = home.archive_memory();
        let guard = FolderGuard::take(home.path());
        // Another build may have remembered the state of another archive meanwhile.
        *self = Self::load(home);
        self.0.insert(key, state.clone());
        let json = serde_json::to_vec_pretty(&self.0).unwrap_or_default();
        // Only a memory: without it, a build without network is told so.
        if let Err(error) = guard.and_then(|_guard| replace_file(&path, &json)) {
            tracing::warn!("cannot remember the archive's state in {}: {error}", path.display());
        }
    }
}
