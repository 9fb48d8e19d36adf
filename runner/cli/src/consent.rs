//! Asking the person at the terminal.

use std::io::{self, IsTerminal};

use async_trait::async_trait;
use isokiln_engine::run::Consent;

/// Takes the answer from the terminal, where there is one on both ends. The question is told as an event.
pub(crate) struct AtTerminal;

#[async_trait]
impl Consent for AtTerminal {
    async fn ask(&self, _question: &str) -> Option<bool> {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return None;
        }
        // Who is not answered by the time the build is cancelled is not waited for.
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = answer.await.ok()?.ok()?;
        Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
    }
}
