//! The volume inside the engine that belongs to a store: unpacked layers, work and caches.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::errors::Error;
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};
use isokiln_core::digest::Digest;

use super::super::SandboxError;
use super::engine::{Engine, is_missing, refused};
use super::labels::FOLDER;

/// A store's volume, whether the engine has it yet or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreVolume {
    name: String,
    /// Folder on this machine that it belongs to.
    folder: PathBuf,
}

impl StoreVolume {
    /// The volume of isokiln's folder. Another folder, even a copy, has another.
    pub fn of(folder: &Path) -> Self {
        let name = format!("isokiln-{}", Digest::of(folder.as_os_str().as_encoded_bytes()).short());
        Self { name, folder: folder.to_owned() }
    }

    /// Its name in the engine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that it belongs to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the engine has it.
    pub async fn exists(&self, engine: &Engine) -> Result<bool, SandboxError> {
        match engine.docker.inspect_volume(&self.name).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(refused("look for the volume", &error)),
        }
    }

    /// Makes it, unless the engine has it.
    pub(super) async fn make(&self, engine: &Engine) -> Result<(), SandboxError> {
        let folder = self.folder.to_string_lossy().into_owned();
        let request = VolumeCreateRequest {
            name: Some(self.name.clone()),
            labels: Some(HashMap::from([(FOLDER.to_owned(), folder)])),
            ..VolumeCreateRequest::default()
        };
        let made = engine.docker.create_volume(request).await;
        made.map(drop).map_err(|error| refused("make the volume", &error))
    }

    /// Removes it; one that is not there counts as removed.
    pub async fn remove(&self, engine: &Engine) -> Result<(), SandboxError> {
        self.try_remove(engine).await.map_err(|error| refused("remove the volume", &error))
    }

    /// Removes it unless a container uses it; gives whether it is gone.
    pub async fn remove_unused(&self, engine: &Engine) -> Result<bool, SandboxError> {
        match self.try_remove(engine).await {
            Ok(()) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(false),
            Err(error) => Err(refused("remove a volume", &error)),
        }
    }

    async fn try_remove(&self, engine: &Engine) -> Result<(), Error> {
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        match engine.docker.remove_volume(&self.name, Some(options)).await {
            Err(error) if is_missing(&error) => Ok(()),
            removed => removed,
        }
    }
}

/// Volumes whose folder is no longer on this machine, by name.
pub async fn orphaned_volumes(engine: &Engine) -> Result<Vec<StoreVolume>, SandboxError> {
    let filters = HashMap::from([("label", vec![FOLDER])]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let listed = engine.docker.list_volumes(Some(options)).await;
    let listed = listed.map_err(|error| refused("list volumes", &error))?.volumes.unwrap_or_default();
    // A folder that another user keeps to themselves is there, though it cannot be looked at.
    let is_gone = |volume: &StoreVolume| matches!(volume.folder.try_exists(), Ok(false));
    let mut orphaned: Vec<_> = listed.into_iter().filter_map(with_folder).filter(is_gone).collect();
    orphaned.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(orphaned)
}

fn with_folder(volume: Volume) -> Option<StoreVolume> {
    let folder = volume.labels.get(FOLDER).map(PathBuf::from)?;
    Some(StoreVolume { name: volume.name, folder })
}
