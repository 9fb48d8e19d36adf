//! QEMU's monitor (QMP), through `qapi`.
//!
//! `qapi` ends its stream at an event it does not know, and drops events that are not polled for. So a
//! task of ours reads the socket, keeps the events for itself and lets only greetings and answers
//! through. A command that is not answered in time poisons the connection (`qapi` then mixes up
//! answers, or panics), so the connection is thrown away and the next command opens another.

use std::time::Duration;

use qapi::ExecuteError;
use qapi::futures::{QapiService, QmpStreamTokio};
use qapi::qmp::{self, QmpCommand};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{BootError, Guest, Wire};

type Sink = QmpStreamTokio<Box<dyn AsyncWrite + Send + Unpin>>;

/// QEMU's monitor, over as many connections as it takes.
pub(super) struct Monitor<'g> {
    guest: &'g dyn Guest,
    socket: String,
    events: mpsc::UnboundedSender<Value>,
    connection: Option<Connection>,
}

/// One connection.
struct Connection {
    service: QapiService<Sink>,
    tasks: [JoinHandle<()>; 2],
}

/// Why a command has no result.
enum Failed {
    /// QEMU says no.
    Refused(BootError),
    /// The connection is of no more use.
    Lost(BootError),
}

/// QEMU answers in milliseconds; a host that swaps or a huge screenshot takes longer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest line taken from the monitor, in bytes; none that isokiln asks for comes near it.
const MAX_LINE: u64 = 4 << 20;

impl<'g> Monitor<'g> {
    /// Connects to a socket of the guest's QEMU. Events go to `events` as QEMU wrote them.
    pub(super) async fn open(
        guest: &'g dyn Guest,
        socket: String,
        events: mpsc::UnboundedSender<Value>,
    ) -> Result<Self, BootError> {
        let mut monitor = Self { guest, socket, events, connection: None };
        monitor.connection().await?;
        Ok(monitor)
    }

    /// Asks for something; once more, where only the connection was lost.
    pub(super) async fn execute<C>(&mut self, command: C) -> Result<C::Ok, BootError>
    where
        C: QmpCommand + Clone + 'static,
    {
        match self.execute_once(command.clone()).await {
            Err(Failed::Lost(_)) => self.execute_once(command).await,
            result => result,
        }
        .map_err(|(Failed::Refused(error) | Failed::Lost(error))| error)
    }

    async fn execute_once<C: QmpCommand + 'static>(&mut self, command: C) -> Result<C::Ok, Failed> {
        let connection = self.connection().await.map_err(Failed::Lost)?;
        let result = connection.execute(command).await;
        if let Err(Failed::Lost(_)) = result {
            // QEMU greets the next connection only once this one is closed.
            self.connection = None;
        }
        result
    }

    async fn connection(&mut self) -> Result<&Connection, BootError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let wire = self.guest.connect(&self.socket).await?;
                Connection::open(wire, self.events.clone()).await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Takes a picture of the screen into a PPM file of QEMU's folder. The machine stands still while QEMU writes one,
    /// and for a PNG that is three times as long.
    pub(super) async fn screenshot(&mut self, path: &str) -> Result<(), BootError> {
        let format = Some(qmp::ImageFormat::ppm);
        let command = qmp::screendump { filename: path.to_owned(), device: None, head: None, format };
        self.execute(command).await.map(drop)
    }
}

impl Connection {
    /// Shakes hands.
    async fn open(wire: Wire, events: mpsc::UnboundedSender<Value>) -> Result<Self, BootError> {
        let (answers, to_qapi) = tokio::io::duplex(64 << 10);
        let sorting = tokio::spawn(sort(wire.reader, to_qapi, events));
        let failed = |command, reason: String| BootError::Monitor { command, reason };
        let negotiation = tokio::time::timeout(ANSWER, async {
            QmpStreamTokio::open_split(answers, wire.writer).await?.negotiate().await
        });
        let stream = match negotiation.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed("the greeting", error.to_string())),
            Err(_) => {
                return Err(failed("the greeting", format!("no answer in {} seconds", ANSWER.as_secs())));
            }
        };
        let (service, answers) = stream.into_parts();
        let answering = tokio::spawn(async move {
            if let Err(error) = answers.await {
                tracing::debug!("the monitor's connection ended: {error}");
            }
        });
        Ok(Self { service, tasks: [sorting, answering] })
    }

    async fn execute<C: QmpCommand + 'static>(&self, command: C) -> Result<C::Ok, Failed> {
        let failed = |reason: String| BootError::Monitor { command: C::NAME, reason };
        match tokio::time::timeout(ANSWER, self.service.execute(command)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ExecuteError::Qapi(error))) => Err(Failed::Refused(failed(error.to_string()))),
            Ok(Err(ExecuteError::Io(error))) => Err(Failed::Lost(failed(error.to_string()))),
            Err(_) => Err(Failed::Lost(failed(format!("no answer in {} seconds", ANSWER.as_secs())))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Reads the socket line by line; events to their channel, everything else on to `qapi`.
async fn sort(
    reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    mut to_qapi: DuplexStream,
    events: mpsc::UnboundedSender<Value>,
) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() as u64 == MAX_LINE => return,
            Ok(_) => {}
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(message) if message.get("event").is_some() => {
                if events.send(message).is_err() {
                    return;
                }
            }
            Ok(message)
                if message.get("QMP").is_some()
                    || message.get("return").is_some()
                    || message.get("error").is_some() =>
            {
                if to_qapi.write_all(&line).await.is_err() {
                    return;
                }
            }
            // Half a line, or something that is not QMP: nothing that could be answered.
            _ => tracing::debug!("the monitor said {:?}", String::from_utf8_lossy(&line)),
        }
    }
}
