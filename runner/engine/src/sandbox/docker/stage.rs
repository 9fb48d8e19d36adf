//! Running a stage in a container of its own.

use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use futures_util::StreamExt;
use isokiln_core::event::Usage;
use isokiln_core::kind::{Privilege, RootfsUse};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::super::messages::{Part, Separator};
use super::super::{
    CancelWatch, SandboxError, StageEnd, StageExit, StageMessage, StageOutput, StageSpec, cancelled_now,
};
use super::DockerSandbox;
use super::container::{Attachment, Container, ContainerSpec, VolumeMount};
use super::layers::work;
use super::stats::later;
use super::upload::Upload;

/// How long output may lag behind the end of its container (attach streams have been seen to stay open).
const GRACE: Duration = Duration::from_secs(3);

impl DockerSandbox {
    pub(super) async fn run_stage_container(
        &self,
        spec: StageSpec,
        output: mpsc::Sender<StageOutput>,
        cancel: CancelWatch,
    ) -> Result<StageEnd, SandboxError> {
        let container = Container::create(&self.engine, &self.stage_container(&spec).await?).await?;
        let end = self.follow(&container, &spec, output, cancel).await;
        let removed = container.remove().await;
        let end = end?;
        removed?;
        Ok(end)
    }

    async fn stage_container(&self, spec: &StageSpec) -> Result<ContainerSpec, SandboxError> {
        let mut container =
            ContainerSpec::new(&self.image, &self.run, spec.stage.as_str(), &["/isokiln/lib/stage"]);
        container.rights = self.rights().await?.clone();
        container.network = spec.network;
        container.limits = Some(spec.limits);
        container.volume = Some(VolumeMount { name: self.volume.clone(), read_only: false });
        let top_first: Vec<_> = spec.layers.iter().rev().map(|layer| layer.0.hex()).collect();
        let word = |word: &str| word.to_owned();
        container.environment = vec![
            (word("ISOKILN_TOKEN"), self.token.clone()),
            (word("ISOKILN_WORK"), work(&spec.run, &spec.stage)),
            (word("ISOKILN_LAYERS"), top_first.join(" ")),
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
            (word("ISOKILN_ARCHIVE"), word(if spec.archive { "yes" } else { "no" })),
            (word("SOURCE_DATE_EPOCH"), spec.epoch.to_string()),
            (word("LC_ALL"), word("C.UTF-8")),
            (word("TZ"), word("UTC")),
        ];
        container.environment.extend(spec.environment.clone());
        Ok(container)
    }

    async fn follow(
        &self,
        container: &Container,
        spec: &StageSpec,
        output: mpsc::Sender<StageOutput>,
        mut cancel: CancelWatch,
    ) -> Result<StageEnd, SandboxError> {
        let upload = Upload::library().files(spec.files.clone()).inputs(spec.inputs.clone());
        container.upload(upload.stream()).await?;
        let Attachment { output: mut printed, mut input } = container.attach().await?;
        container.start().await?;
        let started = Instant::now();

        let mut separators = [Separator::new(&self.token), Separator::new(&self.token)];
        let mut usage_stream = std::pin::pin!(container.usage_stream());
        let mut wait = std::pin::pin!(container.wait());
        let mut deadline = std::pin::pin!(tokio::time::sleep(spec.limits.time));
        let mut stop = std::pin::pin!(cancelled_now(&mut cancel));
        let mut usage = Usage::default();
        let mut free = None;
        let mut ended: Option<(i64, Duration)> = None;
        let mut stopped: Option<StageExit> = None;
        // Nobody listening is no reason to stop a stage; the run's own end will.
        let tell = async |item| drop(output.send(item).await);

        let status = loop {
            tokio::select! {
                item = printed.next() => match item {
                    Some(Ok(item)) => {
                        let separator = &mut separators[usize::from(matches!(item, LogOutput::StdErr { .. }))];
                        for part in separator.feed(&item.into_bytes()) {
                            match part {
                                Part::Log(bytes) => tell(StageOutput::Log(bytes)).await,
                                Part::Message(StageMessage::Free { bytes, inodes }) => free = Some((bytes, inodes)),
                                Part::Message(StageMessage::Ended(status)) => {
                                    ended = Some((status, started.elapsed()));
                                    if let Some(now) = container.usage_now().await {
                                        usage = later(usage, now);
                                    }
                                    // If it has gone by itself meanwhile, so much the better.
                                    drop(input.write_all(b"bye\n").await);
                                    drop(input.flush().await);
                                }
                                Part::Message(message) => tell(StageOutput::Message(message)).await,
                            }
                        }
                    }
                    // The output is over, or the connection is: how the stage ended is for `wait` to say.
                    Some(Err(_)) | None => break wait.await,
                },
                status = &mut wait => break status,
                Some(now) = usage_stream.next() => {
                    usage = later(usage, now);
                    tell(StageOutput::Usage(usage)).await;
                }
                () = &mut deadline, if stopped.is_none() => {
                    stopped = Some(StageExit::TimedOut);
                    container.kill().await;
                }
                () = &mut stop, if stopped.is_none() => {
                    stopped = Some(StageExit::Cancelled);
                    container.kill().await;
                }
            }
        };
        let rest = async {
            while let Some(Ok(item)) = printed.next().await {
                let separator = &mut separators[usize::from(matches!(item, LogOutput::StdErr { .. }))];
                for part in separator.feed(&item.into_bytes()) {
                    match part {
                        Part::Log(bytes) => tell(StageOutput::Log(bytes)).await,
                        Part::Message(StageMessage::Free { bytes, inodes }) => free = Some((bytes, inodes)),
                        Part::Message(message) => tell(StageOutput::Message(message)).await,
                    }
                }
            }
        };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::debug!("the output of {} stayed open after its end", spec.stage);
        }
        for separator in &mut separators {
            if let Some(bytes) = separator.finish() {
                tell(StageOutput::Log(bytes)).await;
            }
        }
        let script_time = ended.map_or_else(|| started.elapsed(), |(_, time)| time);
        let exit = match (stopped, ended, status) {
            (Some(stopped), ..) => stopped,
            (None, Some((0, _)), _) => StageExit::Status(0),
            _ if container.ran_out_of_memory().await => StageExit::OutOfMemory,
            (None, Some((status, _)), _) => StageExit::Status(status),
            // The first process was killed, and everything with it.
            (None, None, Ok(_)) => StageExit::Lost,
            (None, None, Err(error)) => return Err(error),
        };
        Ok(StageEnd { exit, usage, script_time, free })
    }
}
