//! What connects a session with its machine, and what it means when it is lost.

use std::time::Duration;

use isokiln_core::boot::GuestFiles;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedSender;

use super::eye::{Eye, Seen};
use super::probe::Probe;
use super::{BootError, Guest};

/// How long QEMU may take to end after a connection to it was lost.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What connects the session with the machine.
pub(super) struct Lines {
    pub(super) probe: Probe,
    pub(super) serial: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) firmware: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) shell: Ends,
}

/// Both ends of a serial port.
pub(super) type Ends = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

pub(super) fn closed() -> Ends {
    (Box::new(tokio::io::empty()), Box::new(tokio::io::sink()))
}

/// Connects everything; the machine stands still until the eye runs.
pub(super) async fn connect<'g>(
    guest: &'g dyn Guest,
    files: &GuestFiles,
    events: UnboundedSender<Value>,
    seen: UnboundedSender<Seen>,
) -> Result<(Eye<'g>, Lines), BootError> {
    let eye = Eye::open(guest, files.clone(), events, seen).await?;
    let probe = Probe::new(guest.connect(&files.path("probe.sock")).await?);
    let shell = guest.connect(&files.path("shell.sock")).await?;
    let serial = guest.follow(&files.path("serial.log")).await?;
    let firmware = guest.follow(&files.path("firmware.log")).await?;
    Ok((eye, Lines { probe, serial, firmware, shell: (shell.reader, shell.writer) }))
}

/// The bytes that were read; where there are none, the machine is gone.
pub(super) async fn some(
    count: std::io::Result<usize>,
    ended: &mut (impl Future<Output = Result<(i64, String), BootError>> + Unpin),
) -> Result<usize, BootError> {
    match count {
        Ok(0) => Err(last_words(ended).await.unwrap_or_else(lost)),
        Ok(count) => Ok(count),
        Err(error) => Err(BootError::Host(error.to_string())),
    }
}

/// What QEMU's end means to the session.
pub(super) fn quit(ended: Result<(i64, String), BootError>) -> BootError {
    match ended {
        Ok((status, words)) => BootError::QemuEnded { status, words },
        Err(error) => error,
    }
}

pub(super) fn lost() -> BootError {
    BootError::Host("the connection to the machine was lost".to_owned())
}

/// Whatever is lost first when QEMU ends, its last words say why.
pub(super) async fn last_words(
    ended: &mut (impl Future<Output = Result<(i64, String), BootError>> + Unpin),
) -> Option<BootError> {
    tokio::time::timeout(LAST_WORDS, ended).await.ok().map(quit)
}
