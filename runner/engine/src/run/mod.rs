//! Runs: builds, plans and boot tests put together from the other modules.

mod artifacts;
mod boot_test;
mod budget;
mod build;
mod builder_image;
mod checkpoints;
mod clean;
mod clock;
mod coordination;
mod doctor;
mod error;
mod events;
mod failure;
mod guest;
mod home;
mod listen;
mod mirrors;
mod planning;
mod prepare;
mod project;
mod recover;
mod results;
mod reviewer;
mod reviews;
mod save;
mod schedule;
mod session;
mod stage;
#[cfg(test)]
mod tests;
mod unpack;

pub use boot_test::TestRequest;
pub use build::{Build, BuildOptions, Edges, Outcome};
pub use checkpoints::{RollbackReport, rollback, unpin};
pub use clean::{CleanReport, verify};
pub use clock::{Clock, SystemClock};
pub use doctor::{Diagnosis, Health};
pub use error::RunError;
pub use events::{Events, Reporter};
pub use home::{Home, RunFolder};
pub use mirrors::{ArchiveMirrors, Mirrors};
pub use planning::Planned;
pub use project::Project;
pub use recover::Consent;
pub use reviewer::read_log;
pub use session::{Session, Tested, Testing};
