//! Everything that happens in a run, as one stream. The terminal, the JSON lines and the files of the
//! run folder are readers of it.

use serde::{Deserialize, Serialize};

use crate::boot::{BootReport, CheckResult, Comparison, Phase};
use crate::digest::{DiffId, Digest};
use crate::names::{PipelineName, ProfileName, RunId, StageName};
use crate::review::{Action, Review};
use crate::session::Place;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run begins.
    RunStarted {
        /// Its identity.
        run: RunId,
        /// What is built; absent where an ISO is only tested.
        pipeline: Option<PipelineName>,
        /// The stages, in order.
        stages: Vec<StageName>,
        /// File name of the ISO that the tested one is compared with.
        baseline: Option<String>,
        /// Where the command was started; absent where nobody asked.
        #[serde(default)]
        place: Option<Place>,
        /// Whether the run is the command's own process, and ends with it.
        #[serde(default)]
        foreground: bool,
    },
    /// Something worth a person's attention.
    Note {
        /// The stage that says so.
        stage: Option<StageName>,
        /// One line.
        text: String,
    },
    /// Something that went wrong and was got over.
    Warning {
        /// The stage that says so.
        stage: Option<StageName>,
        /// One line.
        text: String,
    },
    /// Somebody else has what the run needs; it goes on when that is done.
    Waiting {
        /// Who, in words that follow "waiting for".
        holder: String,
    },
    /// Work before, between or after the stages begins.
    Working {
        /// What is being done, for example "building the builder image".
        text: String,
    },
    /// The builder image is there.
    ImageReady {
        /// Its name.
        image: String,
        /// Whether it had to be made.
        built: bool,
        /// Seconds spent.
        seconds: f64,
    },
    /// What the stages that are to run will need, going by earlier runs, and what is free.
    RoomEstimated {
        /// The stages that this is for.
        stages: Vec<StageName>,
        /// Stages that are to run too, but of which no earlier run tells.
        unknown: Vec<StageName>,
        /// Where the store lies.
        store: RoomNeed,
        /// Where the engine keeps layers and works.
        engine: RoomNeed,
    },
    /// A stage's checkpoint was found.
    StageHit {
        /// The stage.
        stage: StageName,
        /// Digest of the checkpoint's manifest.
        manifest: Digest,
        /// Whether the user rolled back to it.
        pinned: bool,
    },
    /// A stage begins to run.
    StageStarted {
        /// The stage.
        stage: StageName,
        /// Why it runs: names of the changed inputs; empty where there was no checkpoint.
        changed: Vec<String>,
    },
    /// A line of a stage's output. Not recorded: the stage's log has it.
    StageLine {
        /// The stage.
        stage: StageName,
        /// The line, made printable.
        text: String,
    },
    /// What a stage is doing now.
    StageProgress {
        /// The stage.
        stage: StageName,
        /// One line.
        text: String,
    },
    /// What a stage is using now. Not recorded.
    StageUsage {
        /// The stage.
        stage: StageName,
        /// So far.
        usage: Usage,
    },
    /// A layer was taken out of the engine into the store.
    LayerStored {
        /// The stage that made it.
        stage: StageName,
        /// Its identity.
        diff_id: DiffId,
        /// Bytes of the tar.
        unpacked: u64,
        /// Bytes of the blob.
        stored: u64,
        /// Seconds spent.
        seconds: f64,
    },
    /// A layer was brought back from the store into the engine.
    LayerRestored {
        /// Its identity.
        diff_id: DiffId,
        /// Seconds spent.
        seconds: f64,
    },
    /// A stage's script has ended well.
    StageFinished {
        /// The stage.
        stage: StageName,
        /// Seconds that the script took.
        script_seconds: f64,
        /// Seconds from the making of its container until it was done.
        seconds: f64,
        /// What it had used when the engine last counted.
        usage: Usage,
    },
    /// A stage's checkpoint is in the store.
    CheckpointStored {
        /// The stage.
        stage: StageName,
        /// Digest of the checkpoint's manifest.
        manifest: Digest,
        /// Seconds that storing it took.
        seconds: f64,
        /// What the stage used in all.
        usage: Usage,
    },
    /// A stage failed.
    StageFailed {
        /// The stage.
        stage: StageName,
        /// Why, in one line.
        cause: String,
        /// What to do about it.
        hint: Option<String>,
        /// Path of its log.
        log: String,
        /// The log's last lines.
        tail: Vec<String>,
    },
    /// A stage's log was reviewed.
    StageReviewed {
        /// The stage.
        stage: StageName,
        /// Which run of its script this was, from 1.
        attempt: usize,
        /// What the review came to.
        review: Box<Review>,
        /// Seconds that it took.
        seconds: f64,
    },
    /// A person is asked whether a failed stage is run again.
    Asking {
        /// The stage.
        stage: StageName,
        /// What is asked.
        question: String,
    },
    /// A failed stage is run again.
    StageRecovering {
        /// The stage.
        stage: StageName,
        /// What is done about it.
        action: Action,
        /// Which run of its script failed, from 1.
        attempt: usize,
        /// Why it failed, in one line.
        cause: String,
        /// Seconds to wait first.
        pause_seconds: f64,
    },
    /// A file left the build.
    Artifact {
        /// The stage that made it.
        stage: StageName,
        /// Where it lies now.
        path: String,
        /// Bytes.
        size: u64,
        /// Digest of its bytes.
        digest: Digest,
    },
    /// A boot test begins.
    BootStarted {
        /// File name of the ISO.
        iso: String,
        /// The machine.
        profile: ProfileName,
        /// `kvm` or `tcg`.
        accelerator: String,
        /// Why that one.
        reason: String,
    },
    /// A guest got further.
    BootPhase {
        /// File name of the ISO.
        iso: String,
        /// The machine.
        profile: ProfileName,
        /// Which of the machines that the boot test starts one after the other, from 1.
        machine: usize,
        /// How far.
        phase: Phase,
        /// Seconds from the machine's start.
        seconds: f64,
    },
    /// A check ended.
    BootCheck {
        /// File name of the ISO.
        iso: String,
        /// The machine.
        profile: ProfileName,
        /// How.
        result: CheckResult,
    },
    /// A boot test ended.
    BootFinished {
        /// Everything about it.
        report: Box<BootReport>,
        /// Folder with logs and pictures.
        folder: String,
        /// Whether an earlier run tested the same ISO on the same machine with the same checks.
        cached: bool,
    },
    /// Two ISOs' boot tests on one machine were compared.
    BootCompared {
        /// What has changed.
        comparison: Box<Comparison>,
    },
    /// The user asked to stop.
    Cancelling {
        /// Whether the stage in progress may finish.
        gracefully: bool,
    },
    /// A run ends.
    RunFinished {
        /// Exit code.
        exit_code: u8,
        /// Seconds in all.
        seconds: f64,
        /// Seconds in all that stages' own scripts took.
        script_seconds: f64,
        /// What went wrong, where it was not a stage or a boot test.
        error: Option<String>,
        /// What that comes from, the nearest first.
        #[serde(default)]
        causes: Vec<String>,
        /// What to do about it.
        #[serde(default)]
        hint: Option<String>,
    },
}

impl Event {
    /// Whether the event is only for who is watching, not for the record.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::StageLine { .. } | Self::StageUsage { .. })
    }

    /// The stage that the event is about, where it is about one.
    pub fn stage(&self) -> Option<&StageName> {
        match self {
            Self::StageHit { stage, .. }
            | Self::StageStarted { stage, .. }
            | Self::StageLine { stage, .. }
            | Self::StageProgress { stage, .. }
            | Self::StageUsage { stage, .. }
            | Self::LayerStored { stage, .. }
            | Self::StageFinished { stage, .. }
            | Self::CheckpointStored { stage, .. }
            | Self::StageFailed { stage, .. }
            | Self::StageReviewed { stage, .. }
            | Self::Asking { stage, .. }
            | Self::StageRecovering { stage, .. }
            | Self::Artifact { stage, .. } => Some(stage),
            Self::Note { stage, .. } | Self::Warning { stage, .. } => stage.as_ref(),
            Self::RunStarted { .. }
            | Self::Waiting { .. }
            | Self::Working { .. }
            | Self::ImageReady { .. }
            | Self::RoomEstimated { .. }
            | Self::LayerRestored { .. }
            | Self::BootStarted { .. }
            | Self::BootPhase { .. }
            | Self::BootCheck { .. }
            | Self::BootFinished { .. }
            | Self::BootCompared { .. }
            | Self::Cancelling { .. }
            | Self::RunFinished { .. } => None,
        }
    }
}

/// Room that is needed on a file system, and room that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomNeed {
    /// Bytes, about.
    pub needed: u64,
    /// Bytes; absent where they cannot be found out.
    pub free: Option<u64>,
}

impl RoomNeed {
    /// Whether more is needed than there is.
    pub fn is_short(self) -> bool {
        self.free.is_some_and(|free| free < self.needed)
    }
}

/// What a container has used, as its engine counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds of processor time.
    pub cpu_seconds: f64,
    /// Most bytes of memory seen in use.
    pub memory_peak: u64,
    /// Bytes read from disks.
    pub disk_read: u64,
    /// Bytes written to disks.
    pub disk_written: u64,
    /// Bytes received over the network.
    pub network_received: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_tagged_json_and_read_back() {
        let event = Event::StageProgress { stage: "base".parse().unwrap(), text: "unpacking".into() };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"stage-progress","stage":"base","text":"unpacking"}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
