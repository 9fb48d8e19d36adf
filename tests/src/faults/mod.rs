//! Faults injected into real stages, and whether isokiln gets over them, or stops for the right reason.
//!
//! Each fault is a real one: a mirror that answers wrongly ([`Mirror`]), a stage whose script breaks something on its
//! first attempt, an engine that is restarted ([`Daemon`]). The tables say what each is and what must come of it.

mod archive_faults;
mod base_faults;
mod bench;
mod daemon;
mod engine_faults;
mod judge;
mod local_faults;
mod mirror;
mod table;
mod upstream;
mod witness;

pub use bench::Bench;
pub use daemon::Daemon;
pub use judge::{Row, Score, markdown};
pub use mirror::{How, Mirror, Tamper};
pub use table::{Expected, Fault, Kind, Meddle, World, all};
pub use witness::is_forbidden;
