//! The container engine, looked at from outside.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ImportImageOptionsBuilder, InspectNetworkOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListVolumesOptions,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::runtime::{Builder, Runtime};

/// Labels of a thing in the engine.
pub type Labels = HashMap<String, String>;

/// The engine that isokiln uses too.
pub struct Engine {
    docker: Docker,
    runtime: Runtime,
}

impl Engine {
    /// Connects as isokiln does; fails the test where no engine answers.
    pub fn connect() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let docker = runtime.block_on(async {
            let docker = Docker::connect_with_defaults().expect("an engine's address");
            docker.ping().await.map(|_| docker)
        });
        let docker = docker
            .unwrap_or_else(|error| panic!("no container engine answers ({error}); ./test.sh starts one"));
        Self { docker, runtime }
    }

    /// Connects to the engine behind a socket on this machine; `None` where none answers there.
    pub fn at(socket: &Path) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let docker = runtime.block_on(async {
            let docker =
                Docker::connect_with_unix(socket.to_str()?, 120, bollard::API_DEFAULT_VERSION).ok()?;
            // As `connect` does: engines differ in the newest API that they know.
            let docker = docker.negotiate_version().await.ok()?;
            docker.ping().await.ok().map(|_| docker)
        })?;
        Some(Self { docker, runtime })
    }

    /// All containers, running or not: name and labels.
    pub fn containers(&self) -> Vec<(String, Labels)> {
        let listed = self.list_containers().into_iter();
        listed.map(|container| (name_of(&container), container.labels.unwrap_or_default())).collect()
    }

    /// All volumes: name and labels.
    pub fn volumes(&self) -> Vec<(String, Labels)> {
        let listed = self.runtime.block_on(self.docker.list_volumes(None::<ListVolumesOptions>));
        let listed = listed.expect("volumes can be listed").volumes.unwrap_or_default().into_iter();
        listed.map(|volume| (volume.name, volume.labels)).collect()
    }

    /// Names of the volumes that belong to a folder below this one.
    pub fn volumes_below(&self, folder: &Path) -> Vec<String> {
        let is_below = |labels: &Labels| labels.values().any(|value| Path::new(value).starts_with(folder));
        self.volumes().into_iter().filter(|(_, labels)| is_below(labels)).map(|(name, _)| name).collect()
    }

    /// The folders below this one that a volume belongs to.
    pub fn folders_below(&self, folder: &Path) -> Vec<String> {
        let values = self.volumes().into_iter().flat_map(|(_, labels)| labels.into_values());
        values.filter(|value| Path::new(value).starts_with(folder)).collect()
    }

    /// Names of the containers, running or not, that one of the runs has made, or that were given one of the volumes or
    /// anything in the folder. `runs` are ids and processes: runs of different folders that begin at the same moment can
    /// have the same id.
    pub fn containers_of(
        &self,
        folder: &Path,
        volumes: &[String],
        runs: &BTreeMap<String, Option<String>>,
    ) -> Vec<String> {
        let is_ours = |container: &ContainerSummary| {
            let mut labels = container.labels.iter().flat_map(HashMap::values);
            let mut mounts = container.mounts.iter().flatten();
            let made_by = |process: &Option<String>| {
                process.as_ref().is_none_or(|pid| name_of(container).ends_with(&format!("-{pid}")))
            };
            labels.any(|value| runs.get(value).is_some_and(made_by))
                || mounts.any(|mount| {
                    let source = mount.source.as_deref().unwrap_or_default();
                    Path::new(source).starts_with(folder)
                        || mount.name.as_ref().is_some_and(|name| volumes.contains(name))
                })
        };
        self.list_containers().into_iter().filter(is_ours).map(|container| name_of(&container)).collect()
    }

    fn list_containers(&self) -> Vec<ContainerSummary> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let listed = self.runtime.block_on(self.docker.list_containers(Some(options)));
        listed.expect("containers can be listed")
    }

    /// Removes a container, running or not.
    pub fn remove_container(&self, name: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let removed = self.runtime.block_on(self.docker.remove_container(name, Some(options)));
        removed.expect("the container can be removed");
    }

    /// Removes a container; gives whether there was one that could be removed.
    pub fn try_remove_container(&self, name: &str) -> bool {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        self.runtime.block_on(self.docker.remove_container(name, Some(options))).is_ok()
    }

    /// Kills a container's first process, and everything in it.
    pub fn kill_container(&self, name: &str) {
        let options = KillContainerOptionsBuilder::default().signal("KILL").build();
        let killed = self.runtime.block_on(self.docker.kill_container(name, Some(options)));
        killed.expect("the container can be killed");
    }

    /// This machine's address on the engine's own bridge, where containers with a network reach it.
    pub fn gateway(&self) -> Option<String> {
        let inspected = self.docker.inspect_network("bridge", None::<InspectNetworkOptions>);
        let network = self.runtime.block_on(inspected).ok()?;
        network.ipam?.config?.into_iter().find_map(|config| config.gateway)
    }

    /// Hands an image over to another engine.
    pub fn give_image(&self, name: &str, to: &Self) {
        let parts: Vec<_> = self.runtime.block_on(self.docker.export_image(name).collect());
        let options = ImportImageOptionsBuilder::default().build();
        let parts = futures_util::stream::iter(parts);
        let taken = to.docker.import_image_stream(options, parts, None).collect::<Vec<_>>();
        let taken = to.runtime.block_on(taken);
        for told in taken {
            told.expect("the image is taken");
        }
    }

    /// Names of the files in a folder of a volume; needs root and an engine on this machine.
    #[track_caller]
    pub fn volume_names(&self, volume: &str, folder: &str) -> Vec<String> {
        let facts = self.runtime.block_on(self.docker.inspect_volume(volume)).expect("the volume is there");
        let path = Path::new(&facts.mountpoint).join(folder);
        let entries = std::fs::read_dir(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run the tests as root", path.display()));
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes a volume; gives whether there was one that nobody uses.
    pub fn try_remove_volume(&self, name: &str) -> bool {
        let options = RemoveVolumeOptionsBuilder::default().build();
        self.runtime.block_on(self.docker.remove_volume(name, Some(options))).is_ok()
    }

    /// Removes a volume.
    pub fn remove_volume(&self, name: &str) {
        let options = RemoveVolumeOptionsBuilder::default().build();
        self.runtime.block_on(self.docker.remove_volume(name, Some(options))).expect("the volume can go");
    }

    /// Makes the volume of an isokiln's folder in memory, with these mount options of tmpfs, in place of what isokiln would
    /// make; gives its name.
    pub fn volume_in_memory(&self, home: &Path, mount_options: &str) -> String {
        std::fs::create_dir_all(home).expect("a folder");
        let home = std::fs::canonicalize(home).expect("a path");
        let path = home.to_str().expect("text").to_owned();
        let mut sum = Command::new("sh");
        sum.args(["-c", "printf %s \"$1\" | sha256sum", "sh", &path]);
        let sum = sum.output().expect("sha256sum runs").stdout;
        let name = format!("isokiln-{}", &String::from_utf8_lossy(&sum)[..12]);
        let options = HashMap::from([
            ("type".to_owned(), "tmpfs".to_owned()),
            ("device".to_owned(), "tmpfs".to_owned()),
            ("o".to_owned(), mount_options.to_owned()),
        ]);
        let request = bollard::models::VolumeCreateRequest {
            name: Some(name.clone()),
            driver_opts: Some(options),
            labels: Some(HashMap::from([("org.isokiln.folder".to_owned(), path)])),
            ..Default::default()
        };
        self.runtime.block_on(self.docker.create_volume(request)).expect("the volume can be made");
        name
    }

    /// Whether the engine has an image.
    pub fn has_image(&self, name: &str) -> bool {
        self.runtime.block_on(self.docker.inspect_image(name)).is_ok()
    }

    /// What the engine calls an image.
    pub fn image_id(&self, name: &str) -> String {
        let facts = self.runtime.block_on(self.docker.inspect_image(name)).expect("the image is there");
        facts.id.expect("images have ids")
    }

    /// How many images nobody can name.
    pub fn nameless_images(&self) -> usize {
        let filters = HashMap::from([("dangling", vec!["true"])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        self.runtime.block_on(self.docker.list_images(Some(options))).expect("images can be listed").len()
    }

    /// Takes a name from an image, and removes the image if it was the last.
    pub fn remove_image(&self, name: &str) {
        let options = RemoveImageOptionsBuilder::default().build();
        let removed = self.runtime.block_on(self.docker.remove_image(name, Some(options), None));
        removed.expect("the image can be removed");
    }

    /// Gives an image another name.
    pub fn tag_image(&self, image: &str, repository: &str, tag: &str) {
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let tagged = self.runtime.block_on(self.docker.tag_image(image, Some(options)));
        tagged.expect("the image can be tagged");
    }
}

fn name_of(container: &ContainerSummary) -> String {
    let first = container.names.as_ref().and_then(|names| names.first());
    first.map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default()
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}
