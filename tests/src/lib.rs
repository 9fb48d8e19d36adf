//! What black-box tests share: the binary under test, projects to run it in, and the container engine
//! to look at from outside.
//!
//! The tests need a container engine and the builder image; `./test.sh` installs and starts what is
//! missing. They use the release binary, which is built first if need be.

mod engine;
mod isokiln;
mod project;

pub use engine::{Engine, Labels};
pub use isokiln::{Finished, Running, binary, builder_image, repository};
pub use project::{LISTER, MINIMAL_STAGES, Project, TINY};
