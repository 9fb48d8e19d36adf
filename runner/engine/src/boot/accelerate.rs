//! Which accelerator runs guests on this engine, and how fast: a canary decides.

use std::time::Duration;

use bytes::Bytes;
use isokiln_core::boot::{Accelerator, CANARY_EXIT_STATUS, canary_args, canary_disk};
use tokio::time::Instant;

use super::{BootError, GuestHost, Order};

/// What executes guests.
#[derive(Debug, Clone, PartialEq)]
pub struct Acceleration {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Why that one.
    pub reason: String,
    /// How much longer than on the reference machine things may take, at least 1.
    pub scale: f64,
}

/// How long the canary took on the machine that time limits were found on (2 processors, TCG).
const REFERENCE: Duration = Duration::from_millis(1500);
/// A canary under KVM takes a third of a second where guests run; where they do not, for ever.
const KVM_PATIENCE: Duration = Duration::from_secs(10);
/// The slowest machine on which a boot test still makes sense takes this long for the canary under TCG.
const TCG_PATIENCE: Duration = Duration::from_secs(120);
/// Time limits are stretched at most this much.
const MAX_SCALE: f64 = 20.0;

const DISK: &str = "/isokiln/canary.img";

/// Runs the canary with KVM, then if need be with TCG.
pub async fn find_acceleration(host: &dyn GuestHost) -> Result<Acceleration, BootError> {
    let why_not = match canary(host, Accelerator::Kvm, KVM_PATIENCE).await {
        Ok(time) => {
            return Ok(Acceleration {
                accelerator: Accelerator::Kvm,
                reason: "KVM runs guests".to_owned(),
                scale: scale(time),
            });
        }
        Err(Refusal::Host(error)) => return Err(error),
        Err(Refusal::Machine(reason)) => reason,
    };
    match canary(host, Accelerator::Tcg, TCG_PATIENCE).await {
        Ok(time) => Ok(Acceleration {
            accelerator: Accelerator::Tcg,
            reason: format!("KVM does not run guests: {why_not}"),
            scale: scale(time),
        }),
        Err(Refusal::Machine(reason)) => {
            Err(BootError::Host(format!("no guest runs, not even under TCG: {reason}")))
        }
        Err(Refusal::Host(error)) => Err(error),
    }
}

fn scale(time: Duration) -> f64 {
    (time.as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, MAX_SCALE)
}

enum Refusal {
    /// This accelerator does not do.
    Machine(String),
    /// Nothing can be started at all.
    Host(BootError),
}

async fn canary(
    host: &dyn GuestHost,
    accelerator: Accelerator,
    patience: Duration,
) -> Result<Duration, Refusal> {
    let order = Order {
        purpose: format!("canary-{accelerator}"),
        arguments: canary_args(DISK, &accelerator.to_string()),
        kvm: accelerator == Accelerator::Kvm,
        files: vec![(DISK.to_owned(), Bytes::from(canary_disk()))],
    };
    let guest = match host.start(order).await {
        Ok(guest) => guest,
        // The engine refuses the device where its host has none.
        Err(error) if accelerator == Accelerator::Kvm => {
            let text = error.to_string();
            let reason = if text.contains("/dev/kvm") { "there is no /dev/kvm".to_owned() } else { text };
            return Err(Refusal::Machine(reason));
        }
        Err(error) => return Err(Refusal::Host(error)),
    };
    let started = Instant::now();
    let ended = tokio::time::timeout(patience, guest.ended()).await;
    let time = started.elapsed();
    guest.remove().await.map_err(Refusal::Host)?;
    match ended {
        Ok(Ok((CANARY_EXIT_STATUS, _))) => Ok(time),
        Ok(Ok((status, words))) => {
            let first = words.lines().next().unwrap_or_default().trim_start_matches("qemu-system-x86_64: ");
            Err(Refusal::Machine(if first.is_empty() {
                format!("QEMU ends with status {status}")
            } else {
                first.to_owned()
            }))
        }
        Ok(Err(error)) => Err(Refusal::Host(error)),
        Err(_) => Err(Refusal::Machine(format!(
            "a guest of one instruction loop does not end within {} seconds",
            patience.as_secs()
        ))),
    }
}
