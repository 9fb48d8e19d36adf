//! Running a stage in a container of its own.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::errors::Error;
use futures_util::future::Fuse;
use futures_util::{FutureExt, Stream, StreamExt};
use isokiln_core::event::Usage;
use isokiln_core::image::Surroundings;
use isokiln_core::kind::{Privilege, RootfsUse};
use isokiln_core::pipeline::Limits;
use isokiln_core::review::Room;
use tokio::sync::mpsc;

use super::super::messages::{Part, Separator, StageMessage};
use super::super::{
    CancelWatch, SandboxError, StageEnd, StageExit, StageOutput, StageSpec, Tree, cancelled_now,
};
use super::container::{Attachment, Container, ContainerSpec};
use super::layers::work;
use super::stats::later;
use super::upload::Upload;
use super::{DockerSandbox, VOLUME};

/// Where a tree lies in the volume.
fn path_of(tree: &Tree, spec: &StageSpec) -> String {
    match tree {
        Tree::Layer(layer) => format!("layers/{}/fs", layer.0.hex()),
        Tree::Work(stage) => format!("work/{}/upper", work(&spec.run, stage)),
    }
}

/// How the script ended, while the container may still be there.
struct Ended {
    exit: StageExit,
    script_time: Duration,
    rooms: Vec<Room>,
    resolves: Option<bool>,
    surroundings: Option<Surroundings>,
    artifacts: Vec<String>,
    usage: Usage,
    /// Holding it keeps the container on its leash.
    output: Option<Printed>,
}

type Printed = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// How long to wait for the engine's last count of what a container has used. It counts once a second.
const COUNTING: Duration = Duration::from_millis(250);
/// How long output may lag behind the end of a script, or of its container (attach streams have been
/// seen to stay open).
const LAG: Duration = Duration::from_millis(30);
const GRACE: Duration = Duration::from_secs(3);
/// Bytes of what preparing a layer printed that are told when it fails.
const LAST_WORDS: usize = 2000;
/// Status of a container whose leash was let go of (`images/stage/leash`).
const LET_GO: i64 = 129;

/// Lets a container go. Its leash keeps it for a moment after the script's end, so that the engine can
/// still be asked what it has used.
async fn dismiss(container: Container, usage: Usage, output: Option<Printed>) -> Result<Usage, SandboxError> {
    let usage = match tokio::time::timeout(COUNTING, container.usage_now()).await {
        Ok(Some(now)) if output.is_some() => later(usage, now),
        _ => usage,
    };
    container.remove().await?;
    drop(output);
    Ok(usage)
}

impl DockerSandbox {
    pub(super) async fn run_stage_container(
        &self,
        spec: StageSpec,
        output: mpsc::Sender<StageOutput>,
        cancel: CancelWatch,
    ) -> Result<StageEnd, SandboxError> {
        let container = Container::create(&self.engine, &self.stage_container(&spec).await?).await?;
        match self.follow(&container, &spec, output, cancel).await {
            Ok(ended) => Ok(StageEnd {
                exit: ended.exit,
                script_time: ended.script_time,
                rooms: ended.rooms,
                resolves: ended.resolves,
                surroundings: ended.surroundings,
                artifacts: ended.artifacts,
                dismissed: Box::pin(dismiss(container, ended.usage, ended.output)),
            }),
            Err(error) => {
                // The first error is the one to tell; the run's end removes what this could not.
                drop(container.remove().await);
                Err(error)
            }
        }
    }

    /// As a stage's container, but for one layer: without a root file system, an audience or a claim to processors.
    pub(super) async fn run_layer_container(
        &self,
        spec: StageSpec,
        cancel: CancelWatch,
    ) -> Result<(), SandboxError> {
        let mut container = self.stage_container(&spec).await?;
        // No stage can be called so.
        container.purpose = format!("{}.LAYER", spec.stage);
        container.yields = true;
        container.environment.push(("ISOKILN_ONLY_LAYERS".to_owned(), "yes".to_owned()));
        let container = Container::create(&self.engine, &container).await?;
        let (output, mut printed) = mpsc::channel(1);
        let following = self.follow(&container, &spec, output, cancel);
        let last_words = async {
            let mut last = Vec::new();
            while let Some(output) = printed.recv().await {
                if let StageOutput::Log(bytes) = output {
                    last.extend_from_slice(&bytes);
                    last.drain(..last.len().saturating_sub(LAST_WORDS));
                }
            }
            String::from_utf8_lossy(&last).into_owned()
        };
        let (ended, last_words) = tokio::join!(following, last_words);
        container.remove().await?;
        match ended?.exit {
            StageExit::Status(0) => Ok(()),
            exit => {
                let what = format!("preparing a layer for stage {}", spec.stage);
                Err(SandboxError::Helper { what, reason: format!("{exit:?}: {last_words}") })
            }
        }
    }

    pub(super) async fn stage_container(&self, spec: &StageSpec) -> Result<ContainerSpec, SandboxError> {
        let mut container =
            ContainerSpec::new(&self.image, &self.run, spec.stage.as_str(), &["/isokiln/lib/stage"]);
        container.rights = self.rights().await?.clone();
        container.network = spec.network;
        container.limits = Some(self.within_reach(spec.limits).await?);
        container.volume = Some(self.mount(false).await?);
        let top_first: Vec<_> = spec.trees.iter().rev().map(|tree| path_of(tree, spec)).collect();
        let word = |word: &str| word.to_owned();
        let yes_or_no = |yes: bool| word(if yes { "yes" } else { "no" });
        container.environment = vec![
            (word("ISOKILN_TOKEN"), self.token.clone()),
            (word("ISOKILN_WORK"), format!("{VOLUME}/work/{}", work(&spec.run, &spec.stage))),
            (word("ISOKILN_TREES"), top_first.join(" ")),
            (
                word("ISOKILN_ROOTFS"),
                word(match spec.rootfs {
                    RootfsUse::New => "new",
                    RootfsUse::Change => "change",
                    RootfsUse::Read => "read",
                }),
            ),
            (
                word("ISOKILN_PRIVILEGE"),
                word(match spec.privilege {
                    Privilege::None => "none",
                    Privilege::Chroot => "chroot",
                    Privilege::Full => "full",
                }),
            ),
            (word("ISOKILN_ARCHIVE"), yes_or_no(spec.archive)),
            (word("ISOKILN_NETWORK"), yes_or_no(spec.network)),
            (word("ISOKILN_FRESH_CACHE"), yes_or_no(spec.fresh_cache)),
            (word("SOURCE_DATE_EPOCH"), spec.epoch.to_string()),
            (word("LC_ALL"), word("C.UTF-8")),
            (word("TZ"), word("UTC")),
        ];
        let own = |name: &str| name.starts_with("ISOKILN_") && name != "ISOKILN_ENVIRONMENT";
        container.environment.extend(spec.environment.clone().into_iter().filter(|(name, _)| !own(name)));
        Ok(container)
    }

    /// Limits that the engine accepts: it refuses a container more processors than there are.
    async fn within_reach(&self, mut limits: Limits) -> Result<Limits, SandboxError> {
        if let Some(cpus) = &mut limits.cpus {
            *cpus = cpus.min(self.engine.facts().await?.cpus as f64);
        }
        Ok(limits)
    }

    async fn follow(
        &self,
        container: &Container,
        spec: &StageSpec,
        output: mpsc::Sender<StageOutput>,
        mut cancel: CancelWatch,
    ) -> Result<Ended, SandboxError> {
        let upload = Upload::library().files(spec.files.clone()).inputs(spec.inputs.clone());
        container.upload(upload.stream()).await?;
        let Attachment { output: mut printed, input } = container.attach().await?;
        container.start().await?;

        let mut hearing = Hearing::new(&self.token, output);
        let mut usage_stream = std::pin::pin!(container.usage_stream());
        let mut wait = std::pin::pin!(container.wait());
        let mut deadline = std::pin::pin!(tokio::time::sleep(spec.limits.time));
        let mut stop = std::pin::pin!(cancelled_now(&mut cancel));
        // Output is taken in meanwhile: an engine does not end a container that nobody listens to.
        let mut killing = std::pin::pin!(Fuse::terminated());
        let mut usage = Usage::default();
        let mut stopped: Option<StageExit> = None;

        while hearing.ended.is_none() {
            tokio::select! {
                item = printed.next() => match item {
                    Some(Ok(item)) => hearing.hear(item).await,
                    // The output is over, or the connection is: how the stage ended is for `wait` to say.
                    Some(Err(_)) | None => break,
                },
                status = &mut wait => {
                    status?;
                    break;
                }
                Some(now) = usage_stream.next() => {
                    usage = later(usage, now);
                    hearing.tell(StageOutput::Usage(usage)).await;
                }
                () = &mut deadline, if stopped.is_none() => {
                    stopped = Some(StageExit::TimedOut);
                    killing.set(container.kill().fuse());
                }
                () = &mut stop, if stopped.is_none() => {
                    stopped = Some(StageExit::Cancelled);
                    killing.set(container.kill().fuse());
                }
                () = &mut killing => {}
            }
        }
        if let (None, Some(0)) = (stopped, hearing.ended) {
            hearing.rest(&mut printed, LAG).await;
            return Ok(hearing.end(StageExit::Status(0), usage, Some(printed)));
        }
        // Whether memory ran out is known once the container has ended.
        hearing.rest(&mut printed, GRACE).await;
        drop(input);
        drop(printed);
        let status = match tokio::time::timeout(GRACE, container.wait()).await {
            Ok(status) => status?,
            Err(_) => None,
        };
        if let (None, None, Some(LET_GO)) = (stopped, hearing.ended, status) {
            return Err(SandboxError::HungUp {
                action: format!("pass on the output of stage {}", spec.stage),
                reason: "the stage was let go of while it ran".to_owned(),
            });
        }
        let exit = match (stopped, hearing.ended) {
            (Some(stopped), _) => stopped,
            _ if container.ran_out_of_memory().await => StageExit::OutOfMemory,
            (None, Some(status)) => StageExit::Status(status),
            // The first process was killed, and everything with it.
            (None, None) => StageExit::Lost,
        };
        Ok(hearing.end(exit, usage, None))
    }
}

/// Takes in what a stage prints and passes it on.
struct Hearing {
    started: Instant,
    script_time: Option<Duration>,
    surroundings: Option<Surroundings>,
    artifacts: Vec<String>,
    output: mpsc::Sender<StageOutput>,
    /// One for standard output, one for standard error.
    separators: [Separator; 2],
    rooms: Vec<Room>,
    resolves: Option<bool>,
    ended: Option<i64>,
}

impl Hearing {
    fn new(token: &str, output: mpsc::Sender<StageOutput>) -> Self {
        let separators = [Separator::new(token), Separator::new(token)];
        Self {
            started: Instant::now(),
            script_time: None,
            surroundings: None,
            artifacts: Vec::new(),
            output,
            separators,
            rooms: Vec::new(),
            resolves: None,
            ended: None,
        }
    }

    async fn tell(&self, item: StageOutput) {
        // Nobody listening is no reason to stop a stage; the run's own end will.
        drop(self.output.send(item).await);
    }

    async fn hear(&mut self, item: LogOutput) {
        let separator = &mut self.separators[usize::from(matches!(item, LogOutput::StdErr { .. }))];
        for part in separator.feed(&item.into_bytes()) {
            match part {
                Part::Log(bytes) => self.tell(StageOutput::Log(bytes)).await,
                Part::Message(StageMessage::Room(room)) => self.rooms.push(room),
                Part::Message(StageMessage::Resolves(resolves)) => self.resolves = Some(resolves),
                Part::Message(StageMessage::Script(time)) => self.script_time = Some(time),
                Part::Message(StageMessage::Surroundings(told)) => self.surroundings = Some(told),
                Part::Message(StageMessage::Artifacts(names)) => self.artifacts = names,
                Part::Message(StageMessage::Ended(status)) => self.ended = Some(status),
                Part::Message(StageMessage::Said(saying)) => self.tell(StageOutput::Said(saying)).await,
            }
        }
    }

    fn end(self, exit: StageExit, usage: Usage, output: Option<Printed>) -> Ended {
        let script_time = self.script_time.unwrap_or_else(|| self.started.elapsed());
        let Self { rooms, resolves, surroundings, artifacts, .. } = self;
        Ended { exit, script_time, rooms, resolves, surroundings, artifacts, usage, output }
    }

    /// Takes in what still comes, until nothing does for so long.
    async fn rest(&mut self, printed: &mut Printed, patience: Duration) {
        while let Ok(Some(Ok(item))) = tokio::time::timeout(patience, printed.next()).await {
            self.hear(item).await;
        }
        for index in 0..self.separators.len() {
            if let Some(bytes) = self.separators[index].finish() {
                self.tell(StageOutput::Log(bytes)).await;
            }
        }
    }
}
