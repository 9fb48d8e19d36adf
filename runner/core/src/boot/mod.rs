//! Boot tests: which machine, what to ask of the booted system, and what the answers prove.

mod canary;
mod cause;
mod channel;
mod check;
mod comparison;
mod console;
pub mod iso;
mod keys;
mod login;
mod menu_edit;
mod probe;
mod processor;
mod profile;
#[cfg(test)]
mod properties;
mod qemu;
mod ride;
pub mod screen;
mod verdict;

pub use canary::{CANARY_EXIT_STATUS, canary_args, canary_files, canary_prepare};
pub use cause::Cause;
pub use channel::Channel;
pub use check::{
    Answer, Check, CheckCatalog, CheckDefinition, CheckSpec, Finding, Judgement, OnScreen, Reference,
    UnknownCheck,
};
pub use comparison::{CheckChange, Comparison, Pace, PhaseChange, SetChange};
pub use console::{ConsoleReader, Phase, Sighting};
pub use iso::{BootEntry, Expectation, Expectations, Inspection, IsoFacts, NotAnIso, Outlook, Platform};
pub use keys::{Chord, chords};
pub use login::Login;
pub use menu_edit::MenuEdit;
pub use probe::{
    AGENT_PORT, Credentials, PROBE_PORT, ProbeMessage, hello_command, hello_reply, initrd_hook, probe_digest,
    request,
};
pub use processor::{Processor, disk_bytes};
pub use profile::{Firmware, MachineProfile, Medium};
pub use qemu::{
    Accelerator, DirectKernel, GuestFiles, HOOK_FOLDER, Machine, Start, hides_record, prepare_script,
    qemu_args, qemu_args_by_hand, record_order,
};
pub use ride::{Ride, plan_rides};
pub use verdict::{BootReport, CheckResult, Inventory, Lane, LaneReport, PhaseTime, Verdict};

#[cfg(test)]
pub(crate) use verdict::testing;
