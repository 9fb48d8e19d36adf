//! Removing what processes that were killed have left: by label and process identity, never by name.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use serde::Serialize;

use super::super::SandboxError;
use super::container::remove_container;
use super::engine::{Engine, refused};

use super::labels::{OWNER, OwnerState, RUN, STAGE, owner, owner_state};
use super::volume::orphaned_volumes;

/// Something that a run made and did not remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// `container`, `folder` or `volume`.
    pub kind: &'static str,
    /// Its name or path.
    pub name: String,
    /// What it was for.
    pub purpose: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of something that was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Its maker is known to have ended: the next command removes it.
    Swept,
    /// It may still be wanted: `clean --all` removes it.
    Cleaned,
    /// Its maker runs or ran elsewhere and cannot be judged from here.
    Unknown,
}

/// Names of folders for pipes begin with this; the file in them names their maker.
const FOLDER_PREFIX: &str = "isokiln-";
const OWNER_FILE: &str = "owner";

/// Makes a folder for pipes that a sweep recognises.
pub(super) fn make_owned_folder() -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir()?;
    fs::write(folder.path().join(OWNER_FILE), owner())?;
    Ok(folder)
}

/// Everything that is left, of processes that have ended or that cannot be judged from here.
pub async fn leftovers(engine: &Engine) -> Result<Vec<Leftover>, SandboxError> {
    let mut found: Vec<_> = containers(engine, RUN)
        .await?
        .iter()
        .map(|container| (container, judge(container)))
        .filter(|(_, state)| *state != OwnerState::Alive)
        .map(|(container, state)| Leftover {
            kind: "container",
            name: name(container),
            purpose: label(container, STAGE),
            fate: if is_swept(container, state) { Fate::Swept } else { Fate::Unknown },
        })
        .collect();
    for (path, state) in folders().into_iter().filter(|(_, state)| *state != OwnerState::Alive) {
        found.push(Leftover {
            kind: "folder",
            name: path.display().to_string(),
            purpose: "pipes".to_owned(),
            fate: if state == OwnerState::Gone { Fate::Swept } else { Fate::Unknown },
        });
    }
    for volume in orphaned_volumes(engine).await? {
        let purpose = format!("layers and caches of {}, which is gone", volume.folder().display());
        found.push(Leftover { kind: "volume", name: volume.name().to_owned(), purpose, fate: Fate::Cleaned });
    }
    Ok(found)
}

/// Removes what processes have left that are known to have ended; gives what went.
pub async fn sweep(engine: &Engine) -> Result<Vec<Leftover>, SandboxError> {
    let mut gone = Vec::new();
    for container in containers(engine, RUN).await? {
        if is_swept(&container, judge(&container)) {
            if let Some(id) = &container.id {
                remove_container(engine, id).await?;
            }
            gone.push(Leftover {
                kind: "container",
                name: name(&container),
                purpose: label(&container, STAGE),
                fate: Fate::Swept,
            });
        }
    }
    for (path, state) in folders() {
        if state == OwnerState::Gone && fs::remove_dir_all(&path).is_ok() {
            let name = path.display().to_string();
            gone.push(Leftover { kind: "folder", name, purpose: "pipes".to_owned(), fate: Fate::Swept });
        }
    }
    Ok(gone)
}

/// Removes every container that this process has made, also one that the engine is still making.
pub async fn remove_own(engine: &Engine) -> Result<(), SandboxError> {
    let _nothing_is_being_made = engine.making.write().await;
    for container in containers(engine, &format!("{OWNER}={}", owner())).await? {
        if let Some(id) = &container.id {
            remove_container(engine, id).await?;
        }
    }
    Ok(())
}

/// Names of the runs that have a container.
pub(super) async fn runs(engine: &Engine) -> Result<Vec<String>, SandboxError> {
    Ok(containers(engine, RUN).await?.iter().map(|container| label(container, RUN)).collect())
}

async fn containers(engine: &Engine, filter: &str) -> Result<Vec<ContainerSummary>, SandboxError> {
    let filters = HashMap::from([("label", vec![filter])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    engine.docker.list_containers(Some(options)).await.map_err(|error| refused("list containers", &error))
}

fn judge(container: &ContainerSummary) -> OwnerState {
    owner_state(&label(container, OWNER))
}

/// Containers of ended processes go; those of unknown ones only if they have ended, because nothing starts
/// them again. One that was only made may be about to start.
fn is_swept(container: &ContainerSummary, state: OwnerState) -> bool {
    let state_of = container.state.as_ref().map(ToString::to_string).unwrap_or_default();
    match state {
        OwnerState::Alive => false,
        OwnerState::Gone => true,
        OwnerState::Unknown => ["exited", "dead"].contains(&state_of.as_str()),
    }
}

fn label(container: &ContainerSummary, key: &str) -> String {
    container.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
}

fn name(container: &ContainerSummary) -> String {
    let names = container.names.as_ref().and_then(|names| names.first());
    names.map_or_else(String::new, |name| name.trim_start_matches('/').to_owned())
}

fn folders() -> Vec<(PathBuf, OwnerState)> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX))
        .filter_map(|entry| Some((entry.path(), owner_state(&owner_of(&entry.path())?))))
        .collect()
}

fn owner_of(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(OWNER_FILE)).ok()
}
