//! Where in its life a build is struck.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::random::Random;

/// A part of a build's life. Each begins with an event of the run and is struck within a while after that, because time
/// alone would say little: how long anything takes depends on what else the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The process has started; there is no run yet.
    Start,
    /// The run has begun, no stage has.
    Planning,
    /// Layers are unpacked from the store.
    Restoring,
    /// A stage's script runs.
    Stage,
    /// What a stage has changed is read, packed and written.
    Capturing,
    /// A layer is there; its manifest and the index are written.
    Saving,
    /// A checkpoint was told of; the next stage begins or is there already.
    Between,
    /// The ISO is made.
    Iso,
    /// The ISO is taken over and handed out; the build ends.
    Delivering,
    /// A machine boots an ISO.
    BootTest,
}

/// The pipeline's stages that change the root file system, in the order in which they are saved.
const LAYERS: [&str; 4] = ["base", "fill", "change", "branch"];

/// What has to have happened, and how long after that a build is struck at most.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    event: Option<(&'static str, Option<String>)>,
    pub(super) delay: Duration,
}

impl Trigger {
    /// Whether the run's events hold what is waited for.
    pub(super) fn is_in(&self, events: &[Value]) -> bool {
        let Some((name, stage)) = &self.event else { return true };
        let is_it = |event: &Value| {
            let is_unpacking = event["text"].as_str().is_some_and(|text| text.starts_with("unpacking layer"));
            event["event"] == *name
                && stage.as_ref().is_none_or(|stage| event["stage"] == stage.as_str())
                && (*name != "working" || is_unpacking)
        };
        events.iter().any(is_it)
    }
}

/// What is there when a build begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// How many of the first stages have a checkpoint.
    pub(super) saved: usize,
    /// Whether the engine still has the volume with their layers.
    pub(super) volume: bool,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Planning,
        Self::Restoring,
        Self::Stage,
        Self::Capturing,
        Self::Saving,
        Self::Between,
        Self::Iso,
        Self::Delivering,
        Self::BootTest,
    ];

    /// What there is at first, so that the phase comes.
    pub(super) fn start(self, random: &mut Random) -> Start {
        let any = random.next().is_multiple_of(2);
        match self {
            Self::Start | Self::Planning => Start { saved: random.below(6), volume: any },
            Self::Restoring => Start { saved: 1 + random.below(3), volume: false },
            Self::Stage | Self::Capturing | Self::Saving | Self::Between => {
                Start { saved: random.below(4), volume: any }
            }
            Self::Iso | Self::Delivering => Start { saved: 3 + random.below(2), volume: any },
            Self::BootTest => Start { saved: 5, volume: any },
        }
    }

    /// When it is struck, where so many stages have a checkpoint already.
    pub(super) fn trigger(self, saved: usize, random: &mut Random) -> Trigger {
        let layer = || LAYERS[saved.min(LAYERS.len() - 1)].to_owned();
        let (event, longest) = match self {
            Self::Start => (None, 60),
            Self::Planning => (Some(("run-started", None)), 150),
            Self::Restoring => (Some(("working", None)), 250),
            Self::Stage => (Some(("stage-started", Some(layer()))), 500),
            Self::Capturing => (Some(("stage-finished", Some(layer()))), 150),
            Self::Saving => (Some(("layer-stored", Some(layer()))), 30),
            Self::Between => (Some(("checkpoint-stored", Some(layer()))), 80),
            Self::Iso => (Some(("stage-started", Some("disc".to_owned()))), 600),
            Self::Delivering => (Some(("stage-finished", Some("disc".to_owned()))), 150),
            Self::BootTest => (Some(("boot-started", None)), 1_500),
        };
        Trigger { event, delay: random.within(Duration::from_millis(longest)) }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Planning => "planning",
            Self::Restoring => "restoring",
            Self::Stage => "stage",
            Self::Capturing => "capturing",
            Self::Saving => "saving",
            Self::Between => "between",
            Self::Iso => "iso",
            Self::Delivering => "delivering",
            Self::BootTest => "boot test",
        })
    }
}
