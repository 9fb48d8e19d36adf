//! Asking the person at the terminal.

use std::io::{self, IsTerminal};

use async_trait::async_trait;
use isokiln_engine::run::Consent;

use crate::output;

/// Asks on the terminal, where there is one on both ends.
pub(crate) struct AtTerminal;

#[async_trait]
impl Consent for AtTerminal {
    async fn ask(&self, question: &str) -> Option<bool> {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return None;
        }
        output::tell(&format!("{question} [y/N]"));
        // Who is not answered by the time the build is cancelled is not waited for.
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = answer.await.ok()?.ok()?;
        Some(matches!(line.trim(), "y" | "Y" | "yes" | "Yes"))
    }
}
