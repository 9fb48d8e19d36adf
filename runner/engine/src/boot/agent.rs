//! QEMU's guest agent: where the ISO runs it, it is asked to start the probe.
//!
//! An agent that has not opened its port yet may leave a request unanswered for ever, so every attempt begins with a
//! connection of its own (QEMU drops what the guest did not read when the host hangs up).

use std::time::Duration;

use isokiln_core::boot::hello_command;
use qapi::futures::QgaStreamTokio;
use qapi::qga::guest_exec;
use tokio::time::{sleep, timeout};

use super::{BootError, Guest, Wire};

/// How long an agent that runs may take to answer.
const ANSWER: Duration = Duration::from_secs(8);
/// Pause between attempts.
const AGAIN: Duration = Duration::from_secs(4);

/// Asks the agent behind `socket` to start the probe, again and again until it does. Ends with the agent's words where
/// it refuses, and with an error where the machine is gone.
pub(super) async fn start_probe(guest: &dyn Guest, socket: &str) -> Result<Result<(), String>, BootError> {
    loop {
        let wire = guest.connect(socket).await?;
        if let Ok(outcome) = timeout(ANSWER, attempt(wire)).await
            && let Some(outcome) = outcome
        {
            return Ok(outcome);
        }
        sleep(AGAIN).await;
    }
}

/// `None` where nobody answers as an agent does.
async fn attempt(wire: Wire) -> Option<Result<(), String>> {
    let (service, answers) = QgaStreamTokio::open_split(wire.reader, wire.writer).into_parts();
    let conversation = async {
        service.guest_sync(std::process::id() as i32).await.ok()?;
        let command = guest_exec {
            path: "/bin/sh".to_owned(),
            arg: Some(vec!["-c".to_owned(), hello_command().to_owned()]),
            env: None,
            input_data: None,
            capture_output: None,
        };
        Some(service.execute(command).await.map(drop).map_err(|error| error.to_string()))
    };
    tokio::select! {
        outcome = conversation => outcome,
        _ = answers => None,
    }
}
