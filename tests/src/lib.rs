//! What black-box tests share: the binary under test, projects to run it in, and the container engine
//! to look at from outside.
//!
//! The tests need a container engine and the builder image; `./test.sh` installs and starts what is
//! missing. They use the release binary, which is built first if need be.

pub mod by_hand;
pub mod corpus;
pub mod crashes;
mod engine;
pub mod faults;
pub mod footprint;
mod forwarder;
mod iso;
mod isokiln;
mod project;
mod stand_in;
mod wait;

pub use engine::{Engine, Labels};
pub use footprint::Guard;
pub use forwarder::Forwarder;
pub use iso::{boot_sector_iso, talking_iso};
pub use isokiln::{Finished, Running, binary, builder_image, repository};
pub use project::{LISTER, MINIMAL_STAGES, Project, TINY};
pub use stand_in::{Answer, Request, StandIn};
pub use wait::wait_until;
