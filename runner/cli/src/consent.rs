//! Asking the person at the terminal.

use std::io::{self, IsTerminal};

use async_trait::async_trait;
use isokiln_engine::run::Consent;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Takes the answer from the terminal, where there is one on both ends. The question is told as an event.
#[derive(Default)]
pub(crate) struct AtTerminal {
    /// The reading of a line that nobody waits for any more: its question was withdrawn.
    reading: Mutex<Option<JoinHandle<io::Result<String>>>>,
}

impl AtTerminal {
    /// Whether a person is there to be asked.
    pub(crate) fn is_possible(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}

#[async_trait]
impl Consent for AtTerminal {
    async fn ask(&self, _question: &str) -> Option<bool> {
        if !self.is_possible() {
            return None;
        }
        let mut reading = self.reading.lock().await;
        // A line that was typed for an earlier question is no answer to this one.
        if reading.as_ref().is_some_and(JoinHandle::is_finished) {
            *reading = None;
        }
        let line = reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().read_line(&mut line).map(|_| line)
            })
        });
        let line = line.await;
        *reading = None;
        let line = line.ok()?.ok()?;
        Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
    }
}
