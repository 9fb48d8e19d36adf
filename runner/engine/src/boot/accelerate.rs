//! Which accelerator runs guests on this engine, and how fast: a canary decides, for each firmware.

use std::time::Duration;

use bytes::Bytes;
use isokiln_core::boot::{
    Accelerator, CANARY_EXIT_STATUS, Firmware, canary_args, canary_files, canary_prepare,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{BootError, FOLDER, GuestHost, Order};

/// What executes guests, by the firmware they begin with: a host may run SeaBIOS under KVM and not OVMF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acceleration {
    /// Through SeaBIOS.
    pub bios: Measured,
    /// Through OVMF.
    pub uefi: Measured,
}

/// What a canary has found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Why that one.
    pub reason: String,
    /// Seconds that the canary took.
    pub seconds: f64,
    /// How much longer than on the reference machine things may take, at least 1.
    pub scale: f64,
}

impl Acceleration {
    /// What executes machines with this firmware.
    pub fn of(&self, firmware: Firmware) -> &Measured {
        if firmware.is_uefi() { &self.uefi } else { &self.bios }
    }
}

/// A canary under KVM takes a third of a second where guests run, some seconds with OVMF; where they do not run,
/// for ever.
const KVM_PATIENCE: Duration = Duration::from_secs(15);
/// The slowest machine on which a boot test still makes sense takes this long for the canary under TCG.
const TCG_PATIENCE: Duration = Duration::from_secs(120);
/// Time limits are stretched at most this much.
const MAX_SCALE: f64 = 20.0;

/// How long the canary took on the machine that time limits were found on (2 processors, TCG).
fn reference(uefi: bool) -> Duration {
    Duration::from_millis(if uefi { 4000 } else { 1500 })
}

/// Runs the canaries: with KVM, then if need be with TCG, or only with the one that is wanted.
pub async fn find_acceleration(
    host: &dyn GuestHost,
    wanted: Option<Accelerator>,
) -> Result<Acceleration, BootError> {
    Ok(Acceleration { bios: find(host, false, wanted).await?, uefi: find(host, true, wanted).await? })
}

async fn find(host: &dyn GuestHost, uefi: bool, wanted: Option<Accelerator>) -> Result<Measured, BootError> {
    let measured = |accelerator, reason: String, time: Duration| Measured {
        accelerator,
        reason,
        seconds: time.as_secs_f64(),
        scale: (time.as_secs_f64() / reference(uefi).as_secs_f64()).clamp(1.0, MAX_SCALE),
    };
    let why_not = match wanted {
        Some(Accelerator::Tcg) => "TCG was asked for".to_owned(),
        _ => match canary(host, uefi, Accelerator::Kvm, KVM_PATIENCE).await {
            Ok(time) => return Ok(measured(Accelerator::Kvm, "KVM runs guests".to_owned(), time)),
            Err(Refusal::Host(error)) => return Err(error),
            Err(Refusal::Machine(reason)) if wanted.is_some() => {
                return Err(BootError::Host(format!("KVM does not run guests: {reason}")));
            }
            Err(Refusal::Machine(reason)) => format!("KVM does not run guests: {reason}"),
        },
    };
    match canary(host, uefi, Accelerator::Tcg, TCG_PATIENCE).await {
        Ok(time) => Ok(measured(Accelerator::Tcg, why_not, time)),
        Err(Refusal::Machine(reason)) => {
            Err(BootError::Host(format!("no guest runs, not even under TCG: {reason}")))
        }
        Err(Refusal::Host(error)) => Err(error),
    }
}

enum Refusal {
    /// This accelerator does not do.
    Machine(String),
    /// Nothing can be started at all.
    Host(BootError),
}

async fn canary(
    host: &dyn GuestHost,
    uefi: bool,
    accelerator: Accelerator,
    patience: Duration,
) -> Result<Duration, Refusal> {
    let files = canary_files(uefi).into_iter().map(|(path, bytes)| (path, Bytes::from(bytes)));
    let order = Order {
        purpose: format!("canary-{accelerator}"),
        prepare: canary_prepare(uefi, FOLDER),
        arguments: canary_args(uefi, FOLDER, accelerator),
        kvm: accelerator == Accelerator::Kvm,
        files: files.collect(),
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
            "a guest of one instruction loop does not end within {} seconds{}",
            patience.as_secs(),
            if uefi { " through UEFI" } else { "" }
        ))),
    }
}
