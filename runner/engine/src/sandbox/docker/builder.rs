//! The builder image: the tools with which stages and boot tests run, so that the host needs none.
//!
//! It is defined by a list of packages. Engines with a registry make it with `Dockerfile.builder`; all
//! others from a Debian mirror alone, with mmdebstrap on the host or in an older builder image. The
//! tag is a digest of the definition: a changed list is another image.

use std::process::Stdio;

use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use isokiln_core::digest::{Digest, Hasher};
use isokiln_core::names::RunId;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_util::io::ReaderStream;

use super::super::{CancelWatch, SandboxError, cancelled};
use super::container::{Container, ContainerSpec};
use super::engine::{Engine, chain, is_missing, refused};
use super::exec::{Exec, Tail, output_of, split};
use super::labels::BUILDER;
use super::rights::Rights;
use super::upload::Upload;
use crate::library::{BUILDER_DOCKERFILE, BUILDER_PACKAGES};
use crate::process::Group;

/// Suite of the builder image: the newest whose tools isokiln is tested with.
pub const BUILDER_SUITE: &str = "trixie";
const REPOSITORY: &str = "isokiln-builder";

/// What the builder image is made of.
#[derive(Debug, Clone)]
pub struct BuilderDefinition {
    packages: Vec<String>,
    digest: Digest,
}

/// A builder image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderImage {
    /// Name with tag.
    pub name: String,
    /// What this engine calls it.
    pub id: String,
    /// Identity of what it holds: the same for the same packages and tools, by the mirror route.
    pub contents: String,
    /// Bytes.
    pub size: u64,
}

/// A way to make the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// mmdebstrap in an older builder image.
    Container,
    /// mmdebstrap on the host.
    Mirror,
    /// `Dockerfile.builder`, whose base comes from a registry.
    Dockerfile,
}

/// How an image is to be made.
pub struct ImageOrder<'o> {
    /// The way; `None` for the first that can work.
    pub route: Option<Route>,
    /// Lines for sources.list; none for the tool's own default.
    pub sources: &'o [String],
    /// Seconds since 1970 that its files are given as their time.
    pub epoch: i64,
    /// For the labels of containers.
    pub run: &'o RunId,
    /// Is told a line now and then.
    pub progress: &'o (dyn Fn(&str) + Send + Sync),
    /// The user's wish to stop: there is nothing to finish first.
    pub cancel: CancelWatch,
}

impl ImageOrder<'_> {
    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, SandboxError> {
        let mut cancel = self.cancel.clone();
        tokio::select! {
            done = work => Ok(done),
            () = cancelled(&mut cancel) => Err(SandboxError::Image("it was stopped".to_owned())),
        }
    }
}

impl BuilderDefinition {
    /// The definition that this binary carries.
    pub fn bundled() -> Self {
        Self::new(BUILDER_PACKAGES)
    }

    fn new(list: &str) -> Self {
        let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let packages: Vec<_> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let mut hasher = Hasher::new();
        for part in [BUILDER_SUITE, BUILDER_DOCKERFILE, &mmdebstrap_arguments(&packages, &[]).join("\n")] {
            hasher.update(part.as_bytes());
            hasher.update(b"\0");
        }
        Self { packages, digest: hasher.finish() }
    }

    /// Name that the image has in an engine.
    pub fn name(&self) -> String {
        format!("{REPOSITORY}:{}", self.tag())
    }

    fn tag(&self) -> String {
        self.digest.hex()[..16].to_owned()
    }

    /// The image, if the engine has it.
    pub async fn find(&self, engine: &Engine) -> Result<Option<BuilderImage>, SandboxError> {
        match engine.docker.inspect_image(&self.name()).await {
            Ok(facts) => {
                let layers = facts.root_fs.and_then(|root| root.layers).unwrap_or_default();
                Ok(Some(BuilderImage {
                    name: self.name(),
                    id: facts.id.unwrap_or_default(),
                    contents: Digest::of(layers.join("\n")).to_string(),
                    size: facts.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                }))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(refused("look for the builder image", &error)),
        }
    }

    /// Makes the image.
    pub async fn build(&self, engine: &Engine, order: ImageOrder<'_>) -> Result<BuilderImage, SandboxError> {
        let replaced = self.find(engine).await?;
        let older = self.older(engine).await?;
        let route = order.route.unwrap_or(match &older {
            Some(_) => Route::Container,
            None if has_mmdebstrap() => Route::Mirror,
            None => Route::Dockerfile,
        });
        match (route, older) {
            (Route::Container, Some(image)) => {
                self.build_in_container(engine, &image, &order).await?;
            }
            (Route::Container, None) => {
                return Err(SandboxError::Image(
                    "the engine has no older builder image to make it in".to_owned(),
                ));
            }
            (Route::Mirror, _) => self.build_on_host(engine, &order).await?,
            (Route::Dockerfile, _) => {
                // The engine stops when it is let go of.
                order.until_stopped(self.build_by_dockerfile(engine, order.progress)).await??;
            }
        }
        // Imports have been seen to end in an error though they worked, so the image itself decides.
        let image = self.find(engine).await?;
        let image =
            image.ok_or_else(|| SandboxError::Image("the engine took it but does not have it".to_owned()))?;
        if let Some(replaced) = replaced.filter(|replaced| replaced.id != image.id)
            && is_nameless(engine, &replaced.id).await
            && let Err(error) = remove(engine, &replaced.id).await
        {
            // Something may still run in it.
            tracing::debug!("the image that was replaced stays: {error}");
        }
        Ok(image)
    }

    /// Another builder image in the engine, made from another definition.
    async fn older(&self, engine: &Engine) -> Result<Option<String>, SandboxError> {
        Ok(all(engine).await?.into_iter().find(|name| *name != self.name()))
    }

    async fn build_on_host(&self, engine: &Engine, order: &ImageOrder<'_>) -> Result<(), SandboxError> {
        let arguments = mmdebstrap_arguments(&self.packages, order.sources);
        tracing::debug!("running mmdebstrap {arguments:?}");
        let mut child = Command::new("mmdebstrap")
            .args(&arguments)
            // Maintainer scripts inherit what is set here, and the image shall not depend on who makes it.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_passed_on)))
            .env("LC_ALL", "C.UTF-8")
            .env("SOURCE_DATE_EPOCH", order.epoch.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| SandboxError::Image(format!("mmdebstrap cannot be run: {error}")))?;
        let group = Group::of(&child);
        let piped = || SandboxError::Image("mmdebstrap has no output".to_owned());
        let stdout = child.stdout.take().ok_or_else(piped)?;
        let mut stderr = BufReader::new(child.stderr.take().ok_or_else(piped)?).split(b'\n');
        let told = async {
            let mut tail = Tail::default();
            while let Ok(Some(line)) = stderr.next_segment().await {
                let line = String::from_utf8_lossy(&line).into_owned();
                tail.push(format!("{line}\n").as_bytes());
                if let Some(step) = line.strip_prefix("I: ") {
                    (order.progress)(step);
                }
            }
            tail
        };
        let ended = async move { child.wait().await.ok().and_then(|status| status.code()) }.boxed().shared();
        let verdict = ended.clone();
        let bytes =
            only_whole(
                ReaderStream::with_capacity(stdout, 256 << 10),
                async move { verdict.await == Some(0) },
            );
        let imported = async { tokio::join!(self.import(engine, bytes), told) };
        let imported = order.until_stopped(imported).await;
        let status = match &imported {
            Ok(_) => ended.await,
            Err(_) => group.end(ended).await,
        };
        group.forget();
        let (imported, tail) = imported?;
        if status != Some(0) {
            let reason = tail.or_status(status.map_or(-1, i64::from));
            return Err(SandboxError::Image(format!("mmdebstrap failed: {}", last_error(&reason))));
        }
        imported
    }

    async fn build_in_container(
        &self,
        engine: &Engine,
        image: &str,
        order: &ImageOrder<'_>,
    ) -> Result<(), SandboxError> {
        (order.progress)(&format!("using mmdebstrap of {image}"));
        let mut spec = ContainerSpec::new(image, order.run, "builder", &["sleep", "infinity"]);
        spec.rights = Rights::find(engine, image, order.run).await?;
        spec.network = true;
        spec.environment.push(("SOURCE_DATE_EPOCH".to_owned(), order.epoch.to_string()));
        let container = Container::create(engine, &spec).await?;
        let built = async {
            container.upload(Upload::library().stream()).await?;
            let _leash = container.attach().await?;
            container.start().await?;
            let arguments = mmdebstrap_arguments(&self.packages, order.sources);
            let mut command = vec!["mmdebstrap"];
            command.extend(arguments.iter().map(String::as_str));
            let (output, _input, (_, id)) = Exec::start(&container, &command, false).await?.into_parts();
            let (bytes, complaints) = split(output);
            let (asked, asked_id, asked_complaints) = (engine.clone(), id.clone(), complaints.clone());
            let bytes = only_whole(bytes, async move {
                Exec::ended_well(&asked, &asked_id, "mmdebstrap", &asked_complaints).await.is_ok()
            });
            let imported = self.import(engine, bytes).await;
            match Exec::ended_well(engine, &id, "mmdebstrap", &complaints).await {
                Ok(()) => imported,
                Err(SandboxError::Helper { reason, .. }) => {
                    Err(SandboxError::Image(format!("mmdebstrap failed: {}", last_error(&reason))))
                }
                Err(error) => Err(error),
            }
        };
        let built = order.until_stopped(built).await;
        container.remove().await?;
        built?
    }

    async fn build_by_dockerfile(
        &self,
        engine: &Engine,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), SandboxError> {
        let context = dockerfile_context().map_err(|error| SandboxError::Image(error.to_string()))?;
        let labels = std::collections::HashMap::from([(BUILDER.to_owned(), self.digest.to_string())]);
        let options = BuildImageOptionsBuilder::default()
            .t(&self.name())
            .labels(&labels)
            .rm(true)
            .forcerm(true)
            .build();
        let mut steps = engine.docker.build_image(options, None, Some(bollard::body_full(context.into())));
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| {
                SandboxError::Image(format!("docker build of Dockerfile.builder failed: {}", chain(&error)))
            })?;
            if let Some(text) = step.stream.as_deref().map(str::trim).filter(|text| text.starts_with("Step"))
            {
                progress(text);
            }
            if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                return Err(SandboxError::Image(format!(
                    "docker build of Dockerfile.builder failed: {error}"
                )));
            }
        }
        Ok(())
    }

    /// Gives the engine a root file system as the image. Plain tar: engines before 23 take no zstd.
    async fn import(
        &self,
        engine: &Engine,
        tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), SandboxError> {
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(REPOSITORY)
            .tag(&self.tag())
            .changes(vec![format!("LABEL {BUILDER}={}", self.digest), "CMD [\"/bin/bash\"]".to_owned()])
            .build();
        let mut steps = std::pin::pin!(engine.docker.create_image(
            Some(options),
            Some(bollard::body_try_stream(tar)),
            None
        ));
        while let Some(step) = steps.next().await {
            step.map_err(|error| refused("import the builder image", &error))?;
        }
        Ok(())
    }
}

/// What a tool writes, with an error at its end if the tool did not end well: the engine would take a part
/// of a file system, even none at all, for the image.
fn only_whole(
    bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ended_well: impl Future<Output = bool> + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let verdict = async move {
        let failed = || std::io::Error::other("the tool that makes the image failed");
        (!ended_well.await).then(|| Err(failed()))
    };
    bytes.chain(futures_util::stream::once(verdict).filter_map(std::future::ready))
}

/// Names of all builder images in the engine.
pub async fn all(engine: &Engine) -> Result<Vec<String>, SandboxError> {
    let filters = std::collections::HashMap::from([("reference", vec![REPOSITORY])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let images =
        engine.docker.list_images(Some(options)).await.map_err(|error| refused("list images", &error))?;
    Ok(images.into_iter().flat_map(|image| image.repo_tags).collect())
}

/// Removes a builder image.
pub async fn remove(engine: &Engine, name: &str) -> Result<(), SandboxError> {
    let options = RemoveImageOptionsBuilder::default().build();
    match engine.docker.remove_image(name, Some(options), None).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(refused("remove a builder image", &error)),
    }
}

/// Whether an image that is there has no name.
async fn is_nameless(engine: &Engine, id: &str) -> bool {
    let facts = engine.docker.inspect_image(id).await;
    facts.is_ok_and(|facts| facts.repo_tags.unwrap_or_default().is_empty())
}

/// What mmdebstrap in a builder image would write to sources.list for a suite, asked without running it
/// further than that.
pub async fn default_sources(
    engine: &Engine,
    image: &str,
    suite: &str,
    components: &str,
) -> Result<String, SandboxError> {
    let script = format!(
        "mmdebstrap --mode=root --variant=custom --skip=check/qemu --components={components} \
         --setup-hook='cat \"$1\"/etc/apt/sources.list >&9; exit 1' {suite} /tmp/rootfs 9>&1 >/dev/null 2>&1; true"
    );
    let run: RunId = "sources".parse().map_err(|_| SandboxError::Image("bad run id".to_owned()))?;
    let mut spec = ContainerSpec::new(image, &run, "sources", &["bash", "-c", &script]);
    spec.rights = Rights::find(engine, image, &run).await?;
    output_of(engine, &spec).await
}

fn has_mmdebstrap() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("mmdebstrap").is_file())
}

/// Whether mmdebstrap is told a variable of the environment: where programs are, where there is room, how to get out.
fn is_passed_on(name: &str) -> bool {
    ["PATH", "HOME", "TMPDIR", "APT_CONFIG"].contains(&name) || name.to_ascii_lowercase().ends_with("_proxy")
}

/// Arguments that write the image's root file system as a tar to standard output.
fn mmdebstrap_arguments(packages: &[String], sources: &[String]) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--variant=minbase",
        "--format=tar",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=Acquire::Retries \"3\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        // What the tool copies from the machine that it runs on.
        "--customize-hook=rm -f \"$1\"/etc/hostname \"$1\"/etc/resolv.conf",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--include={}", packages.join(",")));
    arguments.extend([BUILDER_SUITE.to_owned(), "-".to_owned()]);
    arguments.extend(sources.iter().cloned());
    arguments
}

/// The line of a tool's complaints that says most.
fn last_error(complaints: &str) -> String {
    let error = complaints.lines().find(|line| line.starts_with("E: ") && !line.contains("failed to run"));
    error.or_else(|| complaints.lines().last()).unwrap_or_default().to_owned()
}

/// The build context: a tar with the recipe and the list.
fn dockerfile_context() -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", BUILDER_DOCKERFILE), ("packages.list", BUILDER_PACKAGES)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_follows_the_list_and_not_its_comments() {
        let plain = BuilderDefinition::new("qemu\nxorriso\n");
        assert_eq!(BuilderDefinition::new("# tools\nqemu # boots\n\nxorriso\n").name(), plain.name());
        assert_ne!(BuilderDefinition::new("qemu\n").name(), plain.name());
        assert!(plain.name().starts_with("isokiln-builder:"));
    }

    #[test]
    fn the_bundled_list_has_what_stages_call() {
        let definition = BuilderDefinition::bundled();
        for tool in ["mmdebstrap", "squashfs-tools", "xorriso", "qemu-system-x86", "ovmf", "jq", "socat"] {
            assert!(definition.packages.iter().any(|package| package == tool), "{tool}");
        }
    }

    #[test]
    fn the_first_real_error_is_told() {
        let text = "I: running apt-get update...\nE: The repository 'http://x trixie Release' does not have a Release file.\nE: apt-get update failed to run\n";
        assert_eq!(
            last_error(text),
            "E: The repository 'http://x trixie Release' does not have a Release file."
        );
    }
}
