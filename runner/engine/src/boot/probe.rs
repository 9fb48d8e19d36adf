//! The conversation with the probe in the guest.

use std::time::Duration;

use isokiln_core::boot::{ProbeMessage, hello_reply, request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::time::timeout;

use super::Wire;

/// Longest line taken from the guest, in bytes: a megabyte of output in base64, and its frame.
const MAX_LINE: u64 = 2 << 20;
/// A guest that reads takes a line in moments; one that has stopped reading would block the port for ever.
const READING: Duration = Duration::from_secs(20);

/// The host's end of the probe's port.
pub(super) struct Probe {
    reader: BufReader<Take<Box<dyn tokio::io::AsyncRead + Send + Unpin>>>,
    /// What there is of the line that is being read.
    line: Vec<u8>,
    writer: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    last_id: u64,
    /// The question that has no answer yet.
    open: Option<u64>,
}

impl Probe {
    pub(super) fn new(wire: Wire) -> Self {
        let reader = BufReader::new(wire.reader.take(MAX_LINE));
        Self { reader, line: Vec::new(), writer: wire.writer, last_id: 0, open: None }
    }

    /// What the guest says next; `None` when it has hung up for good. May be given up at any time.
    pub(super) async fn next(&mut self) -> Option<ProbeMessage> {
        loop {
            let count = self.reader.read_until(b'\n', &mut self.line).await.ok()?;
            if count == 0 && self.line.is_empty() {
                return None;
            }
            self.reader.get_mut().set_limit(MAX_LINE);
            // A guest may write anything to its port, not only text.
            let message = ProbeMessage::parse(&String::from_utf8_lossy(&self.line));
            self.line.clear();
            match message {
                // Answers to questions that were given up come late, and others answer no question.
                Some(ProbeMessage::Answer { id, .. }) if self.open != Some(id) => {}
                Some(message) => {
                    if matches!(message, ProbeMessage::Answer { .. }) {
                        self.open = None;
                    }
                    return Some(message);
                }
                None => {}
            }
        }
    }

    /// Sends the agent to a guest that has said hello.
    pub(super) async fn send_agent(&mut self) -> Option<()> {
        self.send(&hello_reply()).await
    }

    /// Asks the agent to run a script for at most so many seconds.
    pub(super) async fn ask(&mut self, seconds: u64, script: &str) -> Option<()> {
        self.last_id += 1;
        self.open = Some(self.last_id);
        let line = request(self.last_id, seconds, script);
        self.send(&line).await
    }

    async fn send(&mut self, line: &str) -> Option<()> {
        let sending = async {
            self.writer.write_all(line.as_bytes()).await?;
            self.writer.flush().await
        };
        timeout(READING, sending).await.ok()?.ok()
    }
}
