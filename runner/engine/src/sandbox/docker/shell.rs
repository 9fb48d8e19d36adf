//! A shell in the place of a stage's script: the same mounts, files, variables and rights, in a container of its own.
//!
//! Nothing that is done there stays. The store's volume is mounted read-only; what is changed goes into a volume that
//! the engine removes with the container.

use std::collections::BTreeSet;
use std::io;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use bollard::container::LogOutput;
use futures_util::StreamExt;
use isokiln_core::digest::{DiffId, Digest};
use isokiln_core::names::{RunId, StageName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::super::{SandboxError, StageSpec};
use super::DockerSandbox;
use super::container::{Attachment, Container};
use super::engine::refused;
use super::exec::{Exec, ExecInput};
use super::layers::work;
use super::upload::Upload;

/// Where the volume lies that goes with the container.
const SCRATCH: &str = "/isokiln/scratch";
const PROGRAM: &str = "/isokiln/lib/shell";
const TERMINAL: &str = "/isokiln/lib/terminal";
/// How often the engine is asked whether a command has ended that has closed its output.
const ASKING: Duration = Duration::from_millis(100);
/// Status of a command whose output nobody takes any more, as shells have it (128 + SIGPIPE).
const NOBODY_READS: i64 = 141;

/// What lies in the volume.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Layers, unpacked and whole.
    pub layers: BTreeSet<DiffId>,
    /// Whether what the stage has changed is there, and has not become a layer.
    pub work: bool,
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// What is run in the place of a stage's script.
#[derive(Debug, Clone, Default)]
pub struct ShellCommand {
    /// The command and its arguments; a shell where there are none.
    pub words: Vec<String>,
    /// Whether it is run in the root file system itself, and not in the builder image.
    pub in_rootfs: bool,
    /// Name of the terminal's kind, where there is one.
    pub terminal: Option<String>,
}

/// Whoever uses a shell.
pub struct Console {
    /// What is typed, or a script.
    pub input: Box<dyn AsyncRead + Send + Unpin>,
    /// Takes what is printed.
    pub output: Box<dyn AsyncWrite + Send + Unpin>,
    /// Takes what is printed on standard error, where there is no terminal.
    pub errors: Box<dyn AsyncWrite + Send + Unpin>,
    /// Size of the terminal, as it changes; absent where there is none.
    pub size: Option<watch::Receiver<Size>>,
}

/// The container of a shell.
pub struct ShellContainer {
    container: Container,
    /// Holding it keeps the container alive. In a mutex only because the streams in it cannot be looked at from two
    /// threads.
    _attachment: Mutex<Attachment>,
}

impl DockerSandbox {
    /// What lies in the volume: layers, and what a stage of a run has changed.
    pub async fn held(&self, run: &RunId, stage: &StageName) -> Result<Held, SandboxError> {
        let listed = self.carry(&["held", &work(run, stage)], "looking into the volume").await?;
        let layer = |line: &str| format!("sha256:{}", line.strip_prefix("layer ")?).parse::<Digest>().ok();
        Ok(Held {
            layers: listed.lines().filter_map(layer).map(DiffId).collect(),
            work: listed.lines().any(|line| line.starts_with("work ")),
        })
    }

    /// Makes the place of a stage's script. With `evidence`, also what the stage left besides its tree is there.
    pub async fn open_shell(&self, spec: StageSpec, evidence: bool) -> Result<ShellContainer, SandboxError> {
        let mut order = self.stage_container(&spec).await?;
        "shell".clone_into(&mut order.purpose);
        order.command = ["sleep", "infinity"].map(str::to_owned).to_vec();
        order.volume = Some(self.mount(true).await?);
        order.scratch = Some(SCRATCH.to_owned());
        order.environment.retain(|(name, _)| name != "ISOKILN_WORK");
        order.environment.push(("ISOKILN_WORK".to_owned(), format!("{SCRATCH}/work")));
        let left = work(&spec.run, &spec.stage);
        let upload = Upload::library().files(spec.files).inputs(spec.inputs);
        let (container, attachment) = Container::launch(&self.engine, &order, upload).await?;
        let command: &[&str] = if evidence { &[PROGRAM, "mount", &left] } else { &[PROGRAM, "mount"] };
        let mounting = async {
            let what = format!("mounting what stage {} works on", spec.stage);
            Exec::start(&container, command, false).await?.finish(&what).await
        };
        match mounting.await {
            Ok(_) => Ok(ShellContainer { container, _attachment: Mutex::new(attachment) }),
            Err(error) => {
                // The first error is the one to tell; the command's end removes what this could not.
                drop(container.remove().await);
                Err(error)
            }
        }
    }
}

impl ShellContainer {
    /// Runs a command there until it ends; gives its exit status.
    pub async fn run(&self, command: &ShellCommand, mut console: Console) -> Result<i64, SandboxError> {
        let place = if command.in_rootfs { "rootfs" } else { "tools" };
        let mut words: Vec<String> = vec!["/usr/bin/env".to_owned()];
        if let Some(size) = &console.size {
            let Size { rows, columns } = *size.borrow();
            words.push(format!("TERM={}", command.terminal.as_deref().unwrap_or("dumb")));
            words.extend([TERMINAL.to_owned(), rows.to_string(), columns.to_string()]);
        }
        words.extend([PROGRAM, "run", place].map(str::to_owned));
        words.extend(command.words.iter().cloned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let exec = Exec::start(&self.container, &words, true).await?;
        let (mut printed, mut input, (engine, id)) = exec.into_parts();
        {
            let mut typing = pin!(type_in(&mut console.input, console.size, &mut input));
            let mut types = true;
            loop {
                let item = tokio::select! {
                    // What ends the typing ends no command; one that no longer listens may go on.
                    _ = &mut typing, if types => {
                        types = false;
                        continue;
                    }
                    item = printed.next() => item,
                };
                let (sink, bytes) = match item {
                    None => break,
                    Some(Ok(LogOutput::StdErr { message })) => (&mut console.errors, message),
                    Some(Ok(other)) => (&mut console.output, other.into_bytes()),
                    Some(Err(error)) => return Err(refused("pass on what a shell prints", &error)),
                };
                if sink.write_all(&bytes).await.is_err() || sink.flush().await.is_err() {
                    return Ok(NOBODY_READS);
                }
            }
        }
        loop {
            if let Some(status) = Exec::ended(&engine, &id).await? {
                return Ok(status);
            }
            tokio::time::sleep(ASKING).await;
        }
    }

    /// Ends it and everything in it.
    pub async fn remove(self) -> Result<(), SandboxError> {
        self.container.remove().await
    }
}

/// Passes on what is typed until there is no more: as it is, or in frames with a terminal's size (images/stage/terminal).
async fn type_in(
    source: &mut (dyn AsyncRead + Send + Unpin),
    mut size: Option<watch::Receiver<Size>>,
    input: &mut ExecInput,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        tokio::select! {
            count = source.read(&mut buffer) => {
                let count = count?;
                if count == 0 {
                    return input.shutdown().await;
                }
                if size.is_some() {
                    input.write_all(&frame(b'd', &buffer[..count])).await?;
                } else {
                    input.write_all(&buffer[..count]).await?;
                }
            }
            now = changed(&mut size) => {
                let sizes = [now.rows.to_be_bytes(), now.columns.to_be_bytes()].concat();
                input.write_all(&frame(b's', &sizes)).await?;
            }
        }
        input.flush().await?;
    }
}

/// Resolves when a terminal has another size; never where there is none.
async fn changed(size: &mut Option<watch::Receiver<Size>>) -> Size {
    if let Some(size) = size
        && size.changed().await.is_ok()
    {
        return *size.borrow_and_update();
    }
    std::future::pending().await
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    // No content is longer than the buffer that is typed into.
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind], &length[..], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_script_is_passed_on_as_it_is_and_ends() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let mut input: ExecInput = Box::pin(near);
        let script = vec![7; 100_000];
        type_in(&mut script.as_slice(), None, &mut input).await.unwrap();
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, script);
    }

    #[tokio::test]
    async fn what_is_typed_at_a_terminal_is_framed_and_so_is_its_size() {
        let (mut far, near) = tokio::io::duplex(1 << 10);
        let (mut keys, mut typed) = tokio::io::duplex(64);
        let (resize, size) = watch::channel(Size { rows: 24, columns: 80 });
        let typing = tokio::spawn(async move {
            let mut input: ExecInput = Box::pin(near);
            type_in(&mut typed, Some(size), &mut input).await
        });
        let mut arrived = [0; 5];
        keys.write_all(b"\x03x").await.unwrap();
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"d\0\x02\x03x");
        resize.send_replace(Size { rows: 50, columns: 300 });
        let mut arrived = [0; 7];
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"s\0\x04\0\x32\x01\x2c");
        drop(keys);
        typing.await.unwrap().unwrap();
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
