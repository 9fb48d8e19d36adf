//! One container, from creation to removal.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountType,
    MountVolumeOptions,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use isokiln_core::pipeline::Limits;
use tokio::io::AsyncWrite;

use super::super::SandboxError;
use super::engine::{Engine, is_missing, refused};
use super::rights::Rights;
use super::upload::Upload;
use super::{HOME, VOLUME, labels};

/// What to make.
#[derive(Debug, Clone)]
pub(super) struct ContainerSpec {
    pub(super) image: String,
    /// For the label and the name.
    pub(super) purpose: String,
    pub(super) run: isokiln_core::names::RunId,
    /// Run by the leash.
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) rights: Rights,
    pub(super) network: bool,
    pub(super) limits: Option<Limits>,
    pub(super) volume: Option<VolumeMount>,
    /// Where a volume of its own is mounted, which goes with it.
    pub(super) scratch: Option<String>,
    /// Folder of this machine to share, and its place in the container.
    pub(super) shared: Option<(String, String)>,
    pub(super) devices: Vec<String>,
    pub(super) host_processes: bool,
    /// Whether it only gets what processor time others leave.
    pub(super) yields: bool,
}

#[derive(Debug, Clone)]
pub(super) struct VolumeMount {
    pub(super) name: String,
    pub(super) read_only: bool,
}

impl ContainerSpec {
    pub(super) fn new(
        image: &str,
        run: &isokiln_core::names::RunId,
        purpose: &str,
        command: &[&str],
    ) -> Self {
        Self {
            image: image.to_owned(),
            purpose: purpose.to_owned(),
            run: run.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            environment: Vec::new(),
            rights: Rights::Nothing,
            network: false,
            limits: None,
            volume: None,
            scratch: None,
            shared: None,
            devices: Vec::new(),
            host_processes: false,
            yields: false,
        }
    }

    fn body(&self) -> ContainerCreateBody {
        let mut mounts = Vec::new();
        if let Some(volume) = &self.volume {
            mounts.push(Mount {
                typ: Some(MountType::VOLUME),
                source: Some(volume.name.clone()),
                target: Some(VOLUME.to_owned()),
                read_only: Some(volume.read_only),
                volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
                ..Default::default()
            });
        }
        if let Some(target) = &self.scratch {
            mounts.push(Mount {
                typ: Some(MountType::VOLUME),
                target: Some(target.clone()),
                ..Default::default()
            });
        }
        if let Some((source, target)) = &self.shared {
            mounts.push(Mount {
                typ: Some(MountType::BIND),
                source: Some(source.clone()),
                target: Some(target.clone()),
                bind_options: Some(MountBindOptions { create_mountpoint: Some(false), ..Default::default() }),
                ..Default::default()
            });
        }
        let limits = self.limits.as_ref();
        let memory = limits.and_then(|limits| limits.memory).and_then(|bytes| i64::try_from(bytes).ok());
        let mut host = HostConfig {
            mounts: Some(mounts),
            network_mode: Some(if self.network { "default" } else { "none" }.to_owned()),
            // The engine's default driver would write everything that a container prints to its disk.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            nano_cpus: limits.and_then(|limits| limits.cpus).map(|cpus| (cpus * 1e9) as i64),
            // Others have 1024, so a stage with one thread loses nothing; with less, a busy machine would never get to it.
            cpu_shares: self.yields.then_some(256),
            memory,
            memory_swap: memory,
            pid_mode: self.host_processes.then(|| "host".to_owned()),
            devices: Some(
                self.devices
                    .iter()
                    .map(|device| DeviceMapping {
                        path_on_host: Some(device.clone()),
                        path_in_container: Some(device.clone()),
                        cgroup_permissions: Some("rwm".to_owned()),
                    })
                    .collect(),
            ),
            ..Default::default()
        };
        self.rights.apply(&mut host);
        let mut environment =
            vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        environment.extend(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        ContainerCreateBody {
            image: Some(self.image.clone()),
            // Copied into root file systems by some tools, so the same everywhere.
            hostname: Some("isokiln".to_owned()),
            entrypoint: Some(vec![format!("{HOME}/lib/leash")]),
            cmd: Some(self.command.clone()),
            env: Some(environment),
            labels: Some(labels::labels(&self.run, &self.purpose)),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            working_dir: Some("/".to_owned()),
            host_config: Some(host),
            ..Default::default()
        }
    }
}

/// A container that exists.
pub(super) struct Container {
    pub(super) engine: Engine,
    pub(super) id: String,
}

/// Both directions of a container's terminal; letting go of it ends the container.
pub(super) struct Attachment {
    pub(super) output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    pub(super) input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Container {
    pub(super) async fn create(engine: &Engine, spec: &ContainerSpec) -> Result<Self, SandboxError> {
        let name = format!("isokiln-{}-{}-{}", spec.run, spec.purpose, std::process::id());
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let (making, body) = (engine.clone(), spec.body());
        // In a task of its own: the engine makes it also if nobody waits for the answer any more, and
        // whoever removes what was made has to know when that is over.
        let created = tokio::spawn(async move {
            let _being_made = making.making.read().await;
            making.docker.create_container(Some(options), body).await
        });
        let created = created.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let created =
            created.map_err(|error| refused(format!("make a container for {}", spec.purpose), &error))?;
        Ok(Self { engine: engine.clone(), id: created.id })
    }

    /// Makes a container, puts files into it and starts it; it lives for as long as the attachment does.
    pub(super) async fn launch(
        engine: &Engine,
        spec: &ContainerSpec,
        upload: Upload,
    ) -> Result<(Self, Attachment), SandboxError> {
        let container = Self::create(engine, spec).await?;
        let started = async {
            container.upload(upload.stream()).await?;
            let attachment = container.attach().await?;
            container.start().await?;
            Ok(attachment)
        }
        .await;
        match started {
            Ok(attachment) => Ok((container, attachment)),
            Err(error) => {
                container.remove().await?;
                Err(error)
            }
        }
    }

    /// Unpacks a tar at the container's root; for small files, before it starts.
    pub(super) async fn upload(
        &self,
        tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), SandboxError> {
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        self.engine
            .docker
            .upload_to_container(&self.id, Some(options), bollard::body_try_stream(tar))
            .await
            .map_err(|error| refused("take files into a container", &error))
    }

    pub(super) async fn attach(&self) -> Result<Attachment, SandboxError> {
        let options = AttachContainerOptionsBuilder::default()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let attached = self
            .engine
            .docker
            .attach_container(&self.id, Some(options))
            .await
            .map_err(|error| refused("attach to a container", &error))?;
        Ok(Attachment { output: attached.output, input: attached.input })
    }

    pub(super) async fn start(&self) -> Result<(), SandboxError> {
        self.engine
            .docker
            .start_container(&self.id, None)
            .await
            .map_err(|error| refused("start a container", &error))
    }

    /// Exit status, once it has ended; `None` where the engine no longer knows the container.
    pub(super) async fn wait(&self) -> Result<Option<i64>, SandboxError> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut stream = std::pin::pin!(self.engine.docker.wait_container(&self.id, Some(options)));
        match stream.next().await {
            Some(Ok(response)) => Ok(Some(response.status_code)),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(Some(code)),
            Some(Err(error)) if is_missing(&error) => Ok(None),
            Some(Err(error)) => Err(refused("wait for a container", &error)),
            None => Ok(None),
        }
    }

    pub(super) async fn kill(&self) {
        let options = KillContainerOptionsBuilder::default().signal("KILL").build();
        if let Err(error) = self.engine.docker.kill_container(&self.id, Some(options)).await {
            // Usually because it has just ended by itself; removal will tell if not.
            tracing::debug!("cannot kill container {}: {error}", self.id);
        }
    }

    /// Whether the kernel ended one of its processes for want of memory.
    pub(super) async fn ran_out_of_memory(&self) -> bool {
        match self.engine.docker.inspect_container(&self.id, None).await {
            Ok(facts) => facts.state.and_then(|state| state.oom_killed).unwrap_or(false),
            Err(error) => {
                tracing::debug!("cannot inspect container {}: {error}", self.id);
                false
            }
        }
    }

    pub(super) async fn remove(&self) -> Result<(), SandboxError> {
        remove_container(&self.engine, &self.id).await
    }
}

/// Removes a container whatever it is doing. One that is already on its way out counts as removed.
pub(super) async fn remove_container(engine: &Engine, id: &str) -> Result<(), SandboxError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    for _ in 0..50 {
        match engine.docker.remove_container(id, Some(options.clone())).await {
            Ok(()) => return Ok(()),
            Err(error) if is_missing(&error) => return Ok(()),
            // "removal of container … is already in progress"
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(refused("remove a container", &error)),
        }
    }
    Err(SandboxError::Refused {
        action: "remove a container".to_owned(),
        reason: format!("{id} is still being removed after 5 seconds"),
    })
}
