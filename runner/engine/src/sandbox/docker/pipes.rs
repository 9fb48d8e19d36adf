//! Ways for bytes between this process and a helper in the engine.
//!
//! Over the API bytes pass through the engine's process several times: 340 MB/s were measured where a
//! pipe in a shared folder carries 2 GB/s. So where the engine runs on this machine, a folder of
//! isokiln's own is shared with the porter, with a named pipe in it for each transfer.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::super::{Inflow, Outflow, SandboxError};
use super::container::Container;
use super::exec::{Exec, split};

/// Where the shared folder is in the porter.
pub(super) const SHARED: &str = "/isokiln/pipes";
/// Room in a pipe: the most that Linux gives without privilege.
const PIPE_SIZE: i32 = 1 << 20;
/// A pipe between processes of one machine answers at once.
const PROBE: Duration = Duration::from_secs(5);

/// The folder for named pipes on this machine.
pub(super) struct Pipes {
    folder: TempDir,
    count: AtomicU64,
}

impl Pipes {
    pub(super) fn new() -> Result<Self, SandboxError> {
        let folder = super::sweep::make_owned_folder().map_err(|source| SandboxError::Io {
            what: "cannot make a folder for pipes".to_owned(),
            source,
        })?;
        Ok(Self { folder, count: AtomicU64::new(0) })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether what the porter writes into a pipe arrives here. It does not where the engine is on
    /// another machine or in a virtual one, though folders may be shared with that.
    pub(super) async fn work(&self, porter: &Container) -> bool {
        let probe = async {
            let (path, name) = self.make().ok()?;
            let mut receiver = pipe::OpenOptions::new().open_receiver(&path).ok()?;
            let script = format!("echo ok >{name}");
            let exec = Exec::start(porter, &["sh", "-c", &script], false).await.ok()?;
            receiver.readable().await.ok()?;
            let mut answer = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut receiver, &mut answer).await.ok()?;
            exec.finish("testing a pipe").await.ok()?;
            (answer == b"ok\n").then_some(())
        };
        matches!(tokio::time::timeout(PROBE, probe).await, Ok(Some(())))
    }

    /// Makes a pipe: its path here and in the porter.
    fn make(&self) -> Result<(PathBuf, String), SandboxError> {
        let name = self.count.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.folder.path().join(&name);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|error| SandboxError::Io {
            what: "cannot make a pipe".to_owned(),
            source: error.into(),
        })?;
        Ok((path, format!("{SHARED}/{name}")))
    }
}

fn broken(source: io::Error) -> SandboxError {
    SandboxError::Io { what: "cannot use a pipe to the engine".to_owned(), source }
}

/// Bytes that the porter's command writes to the file named by its last argument.
pub(super) async fn outflow(
    porter: &Container,
    pipes: Option<&Pipes>,
    command: &[&str],
    what: &'static str,
) -> Result<Outflow, SandboxError> {
    let Some(pipes) = pipes else { return outflow_by_api(porter, command, what).await };
    let (path, name) = pipes.make()?;
    let receiver = pipe::OpenOptions::new().open_receiver(&path).map_err(broken)?;
    let exec = Exec::start(porter, &[command, &[&name]].concat(), false).await?;
    let mut helper = tokio::spawn(exec.finish(what));
    // Nothing can be read before the helper has opened the pipe; it may also fail before that.
    let early = tokio::select! {
        ready = receiver.readable() => { ready.map_err(broken)?; None }
        ended = &mut helper => Some(ended),
    };
    let has_ended = early.is_some();
    if let Some(ended) = early {
        joined(ended)?;
    }
    let file = File::from(receiver.into_blocking_fd().map_err(broken)?);
    widen(&file);
    drop(std::fs::remove_file(&path));
    let done = async move { if has_ended { Ok(()) } else { joined(helper.await).map(drop) } };
    Ok(Outflow { bytes: Box::new(file), done: Box::pin(done) })
}

/// Bytes that the porter's command reads from the file named by its last argument.
pub(super) async fn inflow(
    porter: &Container,
    pipes: Option<&Pipes>,
    command: &[&str],
    what: &'static str,
) -> Result<Inflow, SandboxError> {
    let Some(pipes) = pipes else { return inflow_by_api(porter, command, what).await };
    let (path, name) = pipes.make()?;
    let exec = Exec::start(porter, &[command, &[&name]].concat(), false).await?;
    let helper = tokio::spawn(exec.finish(what));
    let sender = loop {
        match pipe::OpenOptions::new().open_sender(&path) {
            Ok(sender) => break sender,
            // No reader yet.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => {
                if helper.is_finished() {
                    joined(helper.await)?;
                    return Err(SandboxError::Helper {
                        what: what.to_owned(),
                        reason: "it read nothing".to_owned(),
                    });
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(error) => return Err(broken(error)),
        }
    };
    let file = File::from(sender.into_blocking_fd().map_err(broken)?);
    widen(&file);
    drop(std::fs::remove_file(&path));
    Ok(Inflow { bytes: Box::new(file), done: Box::pin(async move { joined(helper.await).map(drop) }) })
}

/// Larger pieces mean fewer switches between the processes; a smaller pipe works as well.
fn widen(file: &File) {
    if let Err(error) = nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)) {
        tracing::debug!("the pipe stays small: {error}");
    }
}

fn joined<T>(result: Result<Result<T, SandboxError>, tokio::task::JoinError>) -> Result<T, SandboxError> {
    result.unwrap_or_else(|error| {
        Err(SandboxError::Helper { what: "a transfer".to_owned(), reason: error.to_string() })
    })
}

async fn outflow_by_api(
    porter: &Container,
    command: &[&str],
    what: &'static str,
) -> Result<Outflow, SandboxError> {
    let exec = Exec::start(porter, &[command, &["/dev/stdout"]].concat(), false).await?;
    let (output, _input, (engine, id)) = exec.into_parts();
    let (bytes, complaints) = split(output);
    let bytes = SyncIoBridge::new(StreamReader::new(bytes.boxed()));
    let done = async move { Exec::ended_well(&engine, &id, what, &complaints).await };
    Ok(Outflow { bytes: Box::new(bytes), done: Box::pin(done) })
}

async fn inflow_by_api(
    porter: &Container,
    command: &[&str],
    what: &'static str,
) -> Result<Inflow, SandboxError> {
    let exec = Exec::start(porter, &[command, &["/dev/stdin"]].concat(), true).await?;
    let (output, input, (engine, id)) = exec.into_parts();
    let (bytes, complaints) = split(output);
    // Nothing is printed, but the end of the output is the end of the command: whoever still writes then
    // would wait for a reader that is gone.
    let (sender, ended) = watch::channel(false);
    let command = tokio::spawn(async move {
        bytes.for_each(|_| std::future::ready(())).await;
        sender.send_replace(true);
        Exec::ended_well(&engine, &id, what, &complaints).await
    });
    let handle = tokio::runtime::Handle::current();
    let bytes = Box::new(ClosingWriter { input, ended, handle });
    Ok(Inflow { bytes, done: Box::pin(async move { joined(command.await) }) })
}

/// Writes from a blocking thread; tells the other end when dropped that nothing more comes.
struct ClosingWriter {
    input: super::exec::ExecInput,
    /// Whether the reader has ended.
    ended: watch::Receiver<bool>,
    handle: tokio::runtime::Handle,
}

impl ClosingWriter {
    /// Does something with the input, as long as somebody reads it.
    fn while_read<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut super::exec::ExecInput) -> io::Result<T>,
    ) -> io::Result<T> {
        let (input, ended) = (&mut self.input, &mut self.ended);
        self.handle.block_on(async {
            tokio::select! {
                done = work(input) => done,
                _ = ended.wait_for(|ended| *ended) => Err(io::ErrorKind::BrokenPipe.into()),
            }
        })
    }
}

impl Write for ClosingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.while_read(async |input| input.write(bytes).await)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.while_read(async |input| input.flush().await)
    }
}

impl Drop for ClosingWriter {
    fn drop(&mut self) {
        // If the connection is gone, so is the reader.
        drop(self.while_read(async |input| input.shutdown().await));
    }
}
