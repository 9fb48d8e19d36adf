//! Every edge of isokiln. `run` is the only module that knows the others; they know only the core.

pub mod archive;
pub mod boot;
pub mod definition;
mod guard;
pub mod hooks;
pub mod inspect;
pub mod kinds;
pub mod library;
mod process;
pub mod review;
pub mod rules;
pub mod run;
pub mod sandbox;
pub mod store;
pub mod testbed;
