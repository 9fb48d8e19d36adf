//! Commands run beside a container's first process, and containers run for what they print.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWrite;

use super::super::SandboxError;
use super::super::messages::{Part, Separator};
use super::container::{Container, ContainerSpec};
use super::engine::{Engine, refused};
use super::upload::Upload;

/// How much of what a helper prints on standard error is kept for the error message, in bytes.
const STDERR_KEPT: usize = 4096;

/// A command that runs in a container.
pub(super) struct Exec {
    engine: Engine,
    id: String,
    pub(super) output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    pub(super) input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Exec {
    pub(super) async fn start(
        container: &Container,
        command: &[&str],
        with_input: bool,
    ) -> Result<Self, SandboxError> {
        let engine = &container.engine;
        let what = || format!("run {} in a container", command.first().unwrap_or(&"nothing"));
        let options = CreateExecOptions {
            attach_stdin: Some(with_input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let created = engine
            .docker
            .create_exec(&container.id, options)
            .await
            .map_err(|error| refused(what(), &error))?;
        let options = StartExecOptions { output_capacity: Some(128 << 10), ..Default::default() };
        match engine.docker.start_exec(&created.id, Some(options)).await {
            Ok(StartExecResults::Attached { output, input }) => {
                Ok(Self { engine: engine.clone(), id: created.id, output, input })
            }
            Ok(StartExecResults::Detached) => {
                Err(SandboxError::Refused { action: what(), reason: "it was started detached".to_owned() })
            }
            Err(error) => Err(refused(what(), &error)),
        }
    }

    /// Its exit status, if it has ended.
    pub(super) async fn ended(engine: &Engine, id: &str) -> Result<Option<i64>, SandboxError> {
        let facts = engine.docker.inspect_exec(id).await;
        let facts = facts.map_err(|error| refused("tell how a command ended", &error))?;
        Ok(facts.exit_code.filter(|_| facts.running == Some(false)))
    }

    /// Its exit status, after its output has ended.
    pub(super) async fn status(engine: &Engine, id: &str) -> Result<i64, SandboxError> {
        // The output may end a moment before the engine knows about the exit.
        for pause in [0, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if let Some(status) = Self::ended(engine, id).await? {
                return Ok(status);
            }
        }
        Err(SandboxError::Refused {
            action: "tell how a command ended".to_owned(),
            reason: "it still runs though its output has ended".to_owned(),
        })
    }

    /// Whether it ended well; `what` and the end of its complaints make the error.
    pub(super) async fn ended_well(
        engine: &Engine,
        id: &str,
        what: &str,
        complaints: &Mutex<Tail>,
    ) -> Result<(), SandboxError> {
        match Self::status(engine, id).await? {
            0 => Ok(()),
            status => {
                let reason = complaints.lock().map(|tail| tail.or_status(status)).unwrap_or_default();
                Err(SandboxError::Helper { what: what.to_owned(), reason })
            }
        }
    }

    /// What it prints on standard output, when it has ended well.
    pub(super) async fn finish(self, what: &str) -> Result<Vec<u8>, SandboxError> {
        let (output, _input, (engine, id)) = self.into_parts();
        let (mut bytes, complaints) = split(output);
        let mut printed = Vec::new();
        while let Some(piece) = bytes.next().await {
            let piece =
                piece.map_err(|source| SandboxError::Io { what: format!("{what} broke off"), source })?;
            printed.extend_from_slice(&piece);
        }
        Self::ended_well(&engine, &id, what, &complaints).await?;
        Ok(printed)
    }

    /// Takes the command apart into its output, its input and the means to ask how it ended.
    pub(super) fn into_parts(self) -> (ExecOutput, ExecInput, (Engine, String)) {
        (self.output, self.input, (self.engine, self.id))
    }
}

pub(super) type ExecOutput = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
pub(super) type ExecInput = Pin<Box<dyn AsyncWrite + Send>>;

/// The end of what a helper complained about.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(STDERR_KEPT);
        self.0.drain(..surplus);
    }

    pub(super) fn or_status(&self, status: i64) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let text = text.trim();
        if text.is_empty() { format!("exit status {status}") } else { text.to_owned() }
    }
}

/// Standard output as bytes, and the end of standard error for when the command fails.
pub(super) fn split(output: ExecOutput) -> (impl Stream<Item = io::Result<Bytes>> + Send, Arc<Mutex<Tail>>) {
    let tail = Arc::new(Mutex::new(Tail::default()));
    let complaints = tail.clone();
    let bytes = output.filter_map(move |item| {
        std::future::ready(match item {
            Ok(LogOutput::StdErr { message }) => {
                if let Ok(mut tail) = complaints.lock() {
                    tail.push(&message);
                }
                None
            }
            Ok(other) => Some(Ok(other.into_bytes())),
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    (bytes, tail)
}

/// Runs a container for what it prints.
pub(super) async fn output_of(engine: &Engine, spec: &ContainerSpec) -> Result<String, SandboxError> {
    let container = Container::create(engine, spec).await?;
    let printed = async {
        container.upload(Upload::library().stream()).await?;
        let mut attachment = container.attach().await?;
        container.start().await?;
        // These containers are given no word for messages.
        let mut separator = Separator::new("");
        let mut printed = Vec::new();
        'container: while let Some(Ok(item)) = attachment.output.next().await {
            for part in separator.feed(&item.into_bytes()) {
                match part {
                    Part::Log(bytes) => printed.extend_from_slice(&bytes),
                    Part::Message(_) => break 'container,
                }
            }
        }
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
    .await;
    container.remove().await?;
    printed
}
