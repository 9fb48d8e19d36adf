//! The conversation with the probe in the guest.

use isokiln_core::boot::{ProbeMessage, hello_reply, request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take};

use super::Wire;

/// Longest line taken from the guest, in bytes: a megabyte of output in base64, and its frame.
const MAX_LINE: u64 = 2 << 20;

/// The host's end of the probe's port.
pub(super) struct Probe {
    lines: Lines<BufReader<Take<Box<dyn tokio::io::AsyncRead + Send + Unpin>>>>,
    writer: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    last_id: u64,
}

impl Probe {
    pub(super) fn new(wire: Wire) -> Self {
        let limited = wire.reader.take(MAX_LINE);
        Self { lines: BufReader::new(limited).lines(), writer: wire.writer, last_id: 0 }
    }

    /// What the guest says next; `None` when it has hung up for good. May be given up at any time.
    pub(super) async fn next(&mut self) -> Option<ProbeMessage> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            self.lines.get_mut().get_mut().set_limit(MAX_LINE);
            match ProbeMessage::parse(&line) {
                // Answers to questions that were given up come late.
                Some(ProbeMessage::Answer { id, .. }) if id != self.last_id => {}
                Some(message) => return Some(message),
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
        let line = request(self.last_id, seconds, script);
        self.send(&line).await
    }

    async fn send(&mut self, line: &str) -> Option<()> {
        self.writer.write_all(line.as_bytes()).await.ok()?;
        self.writer.flush().await.ok()
    }
}
