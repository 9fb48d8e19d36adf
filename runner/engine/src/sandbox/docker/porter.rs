//! The porter: one helper container a run that moves layers and files between volume and store.

use std::sync::Mutex;

use futures_util::StreamExt;

use super::super::{ContainerFile, SandboxError};
use super::DockerSandbox;
use super::container::{Attachment, Container, ContainerSpec, VolumeMount};
use super::engine::Engine;
use super::exec::Exec;
use super::pipes::{Pipes, SHARED};
use super::rights::Rights;
use super::upload::Upload;

/// A porter that runs.
pub(super) struct Porter {
    pub(super) container: Container,
    /// Where pipes work; over the API otherwise.
    pub(super) pipes: Option<Pipes>,
    /// Holding it keeps the container alive. In a mutex only because the streams in it cannot be looked
    /// at from two threads.
    _attachment: Mutex<Attachment>,
}

const PROGRAM: &str = "/isokiln/lib/porter";

impl DockerSandbox {
    /// What the engine grants; asked once.
    pub async fn rights(&self) -> Result<&Rights, SandboxError> {
        self.rights.get_or_try_init(|| Rights::find(&self.engine, &self.image, &self.run)).await
    }

    /// The volume for a container; made first, because one that a container makes belongs to no folder.
    pub(super) async fn mount(&self, read_only: bool) -> Result<VolumeMount, SandboxError> {
        self.volume.make(&self.engine).await?;
        Ok(VolumeMount { name: self.volume.name().to_owned(), read_only })
    }

    pub(super) async fn porter(&self) -> Result<&Porter, SandboxError> {
        let porter = self
            .porter
            .get_or_try_init(async || {
                let rights = self.rights().await?.clone();
                let mut spec = ContainerSpec::new(&self.image, &self.run, "porter", &["sleep", "infinity"]);
                spec.rights = rights;
                spec.volume = Some(self.mount(false).await?);
                Porter::start(&self.engine, spec).await.map(std::sync::Arc::new)
            })
            .await?;
        Ok(porter)
    }

    /// Runs a command of the porter; gives what it prints.
    pub(super) async fn carry(&self, arguments: &[&str], what: &str) -> Result<String, SandboxError> {
        let porter = self.porter().await?;
        let command = [&[PROGRAM], arguments].concat();
        let printed = Exec::start(&porter.container, &command, false).await?.finish(what).await?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// A command of the porter whose last argument is where bytes come from.
    pub(super) async fn carry_in(
        &self,
        arguments: &[&str],
        what: &'static str,
    ) -> Result<super::super::Inflow, SandboxError> {
        let porter = self.porter().await?;
        let command = [&[PROGRAM], arguments].concat();
        super::pipes::inflow(&porter.container, porter.pipes.as_ref(), &command, what).await
    }

    /// A command of the porter whose last argument is where bytes go.
    pub(super) async fn carry_out(
        &self,
        arguments: &[&str],
        what: &'static str,
    ) -> Result<super::super::Outflow, SandboxError> {
        let porter = self.porter().await?;
        let command = [&[PROGRAM], arguments].concat();
        super::pipes::outflow(&porter.container, porter.pipes.as_ref(), &command, what).await
    }
}

impl Porter {
    async fn start(engine: &Engine, spec: ContainerSpec) -> Result<Self, SandboxError> {
        if engine.may_be_local() {
            let pipes = Pipes::new()?;
            let folder = pipes.folder().display().to_string();
            let shared = ContainerSpec { shared: Some((folder, SHARED.to_owned())), ..spec.clone() };
            match Self::start_with(engine, &shared).await {
                Ok((container, attachment)) => {
                    if pipes.work(&container).await {
                        return Ok(Self {
                            container,
                            pipes: Some(pipes),
                            _attachment: Mutex::new(attachment),
                        });
                    }
                    tracing::debug!("pipes do not reach the engine; moving bytes over the API");
                    container.remove().await?;
                }
                // The engine does not see this machine's folders.
                Err(error) => tracing::debug!("the engine cannot share a folder: {error}"),
            }
        }
        let (container, attachment) = Self::start_with(engine, &spec).await?;
        Ok(Self { container, pipes: None, _attachment: Mutex::new(attachment) })
    }

    async fn start_with(
        engine: &Engine,
        spec: &ContainerSpec,
    ) -> Result<(Container, Attachment), SandboxError> {
        // Without names in them, the access control lists that tar writes hold numbers.
        let no_names = ["/etc/passwd", "/etc/group"].map(|path| ContainerFile::data(path, ""));
        let (container, mut attachment) =
            Container::launch(engine, spec, Upload::library().files(no_names)).await?;
        // The first process says nothing until it ends; a start that failed shows at once.
        if let std::task::Poll::Ready(Some(Err(error))) = futures_util::poll!(attachment.output.next()) {
            container.remove().await?;
            return Err(super::engine::refused("keep a container running", &error));
        }
        Ok((container, attachment))
    }
}
