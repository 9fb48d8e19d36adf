//! What a run came to: the event stream summed up, as `run.json` in the run folder.

use serde::{Deserialize, Serialize};

use crate::boot::Verdict;
use crate::digest::Digest;
use crate::event::Event;
use crate::names::{PipelineName, ProfileName, RunId, StageName};
use crate::review::Action;

/// A run so far; complete once `exit_code` is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub run: Option<RunId>,
    /// What was built; absent where an ISO was only tested.
    pub pipeline: Option<PipelineName>,
    /// File name of the ISO that the tested one was compared with.
    pub baseline: Option<String>,
    /// Exit code; absent while the run goes on, and for ever where it was killed.
    pub exit_code: Option<u8>,
    /// What went wrong, in one line.
    pub error: Option<String>,
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds in all that stages' own scripts took.
    pub script_seconds: f64,
    /// The stages that were reached, in the order in which they were.
    pub stages: Vec<StageRecord>,
    /// Files that left the build.
    pub artifacts: Vec<ArtifactRecord>,
    /// Boot tests that ended.
    pub boot_tests: Vec<BootRecord>,
}

/// A stage in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage.
    pub stage: StageName,
    /// What became of it.
    pub state: StageState,
    /// Digest of its checkpoint's manifest.
    pub manifest: Option<Digest>,
    /// Seconds from the making of its container until it was done.
    pub seconds: f64,
    /// What was done each time it had failed and was run again.
    #[serde(default)]
    pub recoveries: Vec<Action>,
}

/// What became of a stage in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Its checkpoint was found.
    Hit,
    /// It was started.
    Started,
    /// It has run.
    Done,
    /// It failed.
    Failed,
}

/// A file that left a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// The stage that made it.
    pub stage: StageName,
    /// Where it lies.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// A boot test in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootRecord {
    /// File name of the ISO.
    pub iso: String,
    /// The machine.
    pub profile: ProfileName,
    /// How it ended.
    pub verdict: Verdict,
    /// Whether an earlier run came to it.
    pub cached: bool,
    /// Folder with logs and pictures.
    pub folder: String,
}

impl RunRecord {
    /// Takes another event in.
    pub fn absorb(&mut self, event: &Event) {
        match event {
            Event::RunStarted { run, pipeline, baseline, .. } => {
                *self = Self {
                    run: Some(run.clone()),
                    pipeline: pipeline.clone(),
                    baseline: baseline.clone(),
                    ..Self::default()
                };
            }
            Event::StageHit { stage, manifest, .. } => {
                let record = self.stage(stage);
                record.state = StageState::Hit;
                record.manifest = Some(*manifest);
            }
            Event::StageStarted { stage, .. } => self.stage(stage).state = StageState::Started,
            Event::StageFinished { stage, seconds, .. } => {
                let record = self.stage(stage);
                record.state = StageState::Done;
                record.seconds = *seconds;
            }
            Event::CheckpointStored { stage, manifest, .. } => {
                self.stage(stage).manifest = Some(*manifest);
            }
            Event::StageRecovering { stage, action, .. } => self.stage(stage).recoveries.push(*action),
            Event::StageFailed { stage, cause, .. } => {
                self.stage(stage).state = StageState::Failed;
                self.error = Some(format!("stage {stage}: {cause}"));
            }
            Event::Artifact { stage, path, size, digest } => {
                // The newest file of a name has taken the place of those before.
                self.artifacts.retain(|artifact| artifact.path != *path);
                self.artifacts.push(ArtifactRecord {
                    stage: stage.clone(),
                    path: path.clone(),
                    size_bytes: *size,
                    digest: *digest,
                });
            }
            Event::BootFinished { report, folder, cached } => self.boot_tests.push(BootRecord {
                iso: report.iso.clone(),
                profile: report.profile.clone(),
                verdict: report.verdict,
                cached: *cached,
                folder: folder.clone(),
            }),
            Event::RunFinished { exit_code, seconds, script_seconds, error, .. } => {
                self.exit_code = Some(*exit_code);
                self.seconds = *seconds;
                self.script_seconds = *script_seconds;
                self.error = error.clone().or_else(|| self.error.take());
            }
            _ => {}
        }
    }

    /// How many stages ended like this.
    pub fn count(&self, state: StageState) -> usize {
        self.stages.iter().filter(|record| record.state == state).count()
    }

    /// The ISOs among the files that left the build.
    pub fn isos(&self) -> impl Iterator<Item = &ArtifactRecord> {
        self.artifacts.iter().filter(|artifact| artifact.path.ends_with(".iso"))
    }

    fn stage(&mut self, stage: &StageName) -> &mut StageRecord {
        let index = self.stages.iter().position(|record| record.stage == *stage).unwrap_or_else(|| {
            self.stages.push(StageRecord {
                stage: stage.clone(),
                state: StageState::Started,
                manifest: None,
                seconds: 0.0,
                recoveries: Vec::new(),
            });
            self.stages.len() - 1
        });
        &mut self.stages[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Usage;

    fn record(events: &[Event]) -> RunRecord {
        let mut record = RunRecord::default();
        events.iter().for_each(|event| record.absorb(event));
        record
    }

    fn finished(exit_code: u8, script_seconds: f64) -> Event {
        let (error, hint) = (None, None);
        Event::RunFinished { exit_code, seconds: 3.0, script_seconds, error, causes: Vec::new(), hint }
    }

    #[test]
    fn a_run_is_summed_up() {
        let base: StageName = "base".parse().unwrap();
        let iso: StageName = "iso".parse().unwrap();
        let manifest = Digest::of("manifest");
        let record = record(&[
            Event::RunStarted {
                run: "r1".parse().unwrap(),
                pipeline: Some("p".parse().unwrap()),
                stages: vec![base.clone(), iso.clone()],
                baseline: None,
                place: None,
                foreground: true,
            },
            Event::StageHit { stage: base.clone(), manifest, pinned: false },
            Event::StageStarted { stage: iso.clone(), changed: Vec::new() },
            Event::StageFinished {
                stage: iso.clone(),
                script_seconds: 1.0,
                seconds: 2.0,
                usage: Usage::default(),
            },
            Event::Artifact {
                stage: iso.clone(),
                path: "/x/p.iso".into(),
                size: 7,
                digest: Digest::of("iso"),
            },
            finished(0, 1.0),
        ]);
        assert_eq!(record.exit_code, Some(0));
        assert_eq!((record.count(StageState::Hit), record.count(StageState::Done)), (1, 1));
        assert_eq!(record.stages[0].manifest.as_ref(), Some(&manifest));
        assert_eq!(record.isos().map(|iso| iso.size_bytes).collect::<Vec<_>>(), [7]);
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<RunRecord>(&json).unwrap(), record);
    }

    #[test]
    fn a_failed_stage_is_the_error() {
        let base: StageName = "base".parse().unwrap();
        let record = record(&[
            Event::StageStarted { stage: base.clone(), changed: Vec::new() },
            Event::StageFailed {
                stage: base,
                cause: "no mirror".into(),
                hint: None,
                log: "log".into(),
                tail: Vec::new(),
            },
            finished(1, 0.0),
        ]);
        assert_eq!(record.error.as_deref(), Some("stage base: no mirror"));
        assert_eq!(record.count(StageState::Failed), 1);
    }
}
