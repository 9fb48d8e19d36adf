//! Boot tests: which machine, what to ask of the booted system, and what the answers prove.

mod canary;
mod check;
mod console;
mod iso;
mod probe;
mod profile;
mod qemu;
mod verdict;

pub use canary::{CANARY_EXIT_STATUS, canary_args, canary_disk};
pub use check::{Answer, CheckSpec, Finding, Judgement};
pub use console::{ConsoleReader, Failure, Phase, Sighting};
pub use iso::{BootEntry, IsoFacts, NotAnIso, Platform};
pub use probe::{PROBE_PORT, ProbeMessage, hello_reply, probe_credentials, request};
pub use profile::{Firmware, MachineProfile, Medium};
pub use qemu::{Accelerator, GuestFiles, Machine, qemu_args};
pub use verdict::{BootReport, CheckResult, Lane, PhaseTime, Verdict};
