//! A sandbox made of containers, over the Docker API.
//!
//! - Every container has the labels of its run (`labels`) and is on a leash: its first process ends
//!   when this process lets go of its stdin, so nothing outlives isokiln even after `kill -9`.
//! - Layers and caches lie in a volume inside the engine. One helper container a run, the porter, moves
//!   them in and out.
//! - Bytes move through a pipe in a shared folder where the engine runs on this machine, and over the
//!   API where it does not.

mod builder;
mod container;
mod engine;
mod exec;
mod guest;
mod labels;
mod layers;
mod pipes;
mod porter;
mod rights;
mod shell;
mod stage;
mod stats;
mod sweep;
mod upload;
mod volume;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isokiln_core::names::RunId;
use tokio::sync::OnceCell;

pub use builder::{
    BUILDER_SUITE, BuilderDefinition, BuilderImage, ImageOrder, Route, all as builder_images,
    default_sources, remove as remove_builder_image,
};
pub use engine::{Engine, EngineFacts};
pub use guest::{Channel, GuestContainer, GuestOrder};
pub use rights::Rights;
pub use shell::{Console, Held, ShellCommand, ShellContainer, Size};
pub use sweep::{Fate, Leftover, leftovers, remove_own, sweep};
pub use upload::{InputError, digest_input};
pub use volume::{StoreVolume, orphaned_volumes};

use porter::Porter;

/// Folder in containers that holds what isokiln puts there.
pub const HOME: &str = "/isokiln";
/// Where the volume is mounted in containers.
pub const VOLUME: &str = "/isokiln/volume";

/// A sandbox on a container engine.
pub struct DockerSandbox {
    engine: Engine,
    /// Name of the builder image.
    image: String,
    volume: StoreVolume,
    run: RunId,
    /// A word that messages of stages begin with.
    token: String,
    rights: OnceCell<Rights>,
    porter: OnceCell<Arc<Porter>>,
    /// Whether people have been told what is special about the engine.
    remarked: AtomicBool,
}

impl DockerSandbox {
    /// A sandbox for one run, on an engine that has the builder image.
    pub fn new(engine: Engine, image: String, volume: StoreVolume, run: RunId) -> Self {
        let token = isokiln_core::digest::Digest::of(format!("{run}{}", std::process::id())).short();
        Self {
            engine,
            image,
            volume,
            run,
            token,
            rights: OnceCell::new(),
            porter: OnceCell::new(),
            remarked: AtomicBool::new(false),
        }
    }

    /// Another sandbox for the same run, after [`super::Sandbox::destroy`] has ended this one.
    pub fn again(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            image: self.image.clone(),
            volume: self.volume.clone(),
            run: self.run.clone(),
            token: self.token.clone(),
            rights: OnceCell::new_with(self.rights.get().cloned()),
            porter: OnceCell::new(),
            remarked: AtomicBool::new(self.remarked.load(Ordering::Relaxed)),
        }
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
