//! How much room a build needs, from what earlier runs took.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::names::{PipelineName, StageName};

/// What a stage took once, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of the tar of what it changed: about what that takes in the engine.
    pub unpacked: u64,
    /// Of its layer in the store.
    pub stored: u64,
    /// Of the files that it left, which lie in the engine first and in the store then.
    pub artifacts: u64,
}

/// What the stages of a pipeline took, in the newest run that made them.
#[derive(Debug, Default)]
pub struct History {
    stages: BTreeMap<StageName, Taken>,
}

impl History {
    /// Takes in a run of the pipeline by its events; runs of other pipelines tell nothing. Of a stage that an earlier call
    /// has told of, nothing more is learnt: the newest run comes first.
    pub fn absorb(&mut self, pipeline: &PipelineName, events: impl IntoIterator<Item = Event>) {
        let mut run: BTreeMap<StageName, Taken> = BTreeMap::new();
        for event in events {
            match event {
                Event::RunStarted { pipeline: of, .. } if of.as_ref() != Some(pipeline) => return,
                // What a checkpoint has delivered was not made by this run.
                Event::StageStarted { stage, .. } => drop(run.insert(stage, Taken::default())),
                Event::LayerStored { stage, unpacked, stored, .. } => {
                    if let Some(taken) = run.get_mut(&stage) {
                        (taken.unpacked, taken.stored) = (unpacked, stored);
                    }
                }
                Event::Artifact { stage, size, .. } => {
                    if let Some(taken) = run.get_mut(&stage) {
                        taken.artifacts += size;
                    }
                }
                // What failed took less than it would have.
                Event::StageFailed { stage, .. } => drop(run.remove(&stage)),
                _ => {}
            }
        }
        for (stage, taken) in run {
            // Nor does one tell anything that was broken off.
            if taken != Taken::default() {
                self.stages.entry(stage).or_insert(taken);
            }
        }
    }

    /// What a stage took.
    pub fn of(&self, stage: &StageName) -> Option<Taken> {
        self.stages.get(stage).copied()
    }

    /// What these stages will take, together; `None` where nothing is known of any.
    pub fn estimate(&self, stages: impl IntoIterator<Item = StageName>) -> Option<Estimate> {
        let mut estimate = Estimate::default();
        for stage in stages {
            match self.of(&stage) {
                Some(taken) => {
                    estimate.store += taken.stored + taken.artifacts;
                    estimate.engine += taken.unpacked + taken.artifacts;
                    estimate.stages.push(stage);
                }
                None => estimate.unknown.push(stage),
            }
        }
        (!estimate.stages.is_empty()).then_some(estimate)
    }
}

/// What a build will take, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimate {
    /// In the store.
    pub store: u64,
    /// In the engine.
    pub engine: u64,
    /// The stages that this is for.
    pub stages: Vec<StageName>,
    /// Stages that run too, but never did before.
    pub unknown: Vec<StageName>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{DiffId, Digest};

    fn name(stage: &str) -> StageName {
        stage.parse().unwrap()
    }

    fn begins(pipeline: &str) -> Event {
        let pipeline = Some(pipeline.parse().unwrap());
        let stages = Vec::new();
        let run = "r1".parse().unwrap();
        Event::RunStarted { run, pipeline, stages, baseline: None, place: None, foreground: true }
    }

    fn starts(stage: &str) -> Event {
        Event::StageStarted { stage: name(stage), changed: Vec::new() }
    }

    fn stores(stage: &str, unpacked: u64, stored: u64) -> Event {
        let diff_id = DiffId(Digest::of(stage));
        Event::LayerStored { stage: name(stage), diff_id, unpacked, stored, seconds: 1.0 }
    }

    fn leaves(stage: &str, size: u64) -> Event {
        Event::Artifact { stage: name(stage), path: "x".into(), size, digest: Digest::of("x") }
    }

    fn history(runs: &[&[Event]]) -> History {
        let mut history = History::default();
        for run in runs {
            history.absorb(&"demo".parse().unwrap(), run.iter().cloned());
        }
        history
    }

    #[test]
    fn the_newest_run_that_made_a_stage_tells() {
        let history = history(&[
            &[begins("demo"), leaves("iso", 7), starts("base"), stores("base", 100, 30)],
            &[
                begins("demo"),
                starts("base"),
                stores("base", 200, 60),
                starts("iso"),
                leaves("iso", 9),
                leaves("iso", 1),
            ],
            &[begins("other"), starts("live"), stores("live", 1, 1)],
        ]);
        let estimate = history.estimate(["base", "iso", "live"].map(name)).unwrap();
        let wanted = Estimate {
            store: 30 + 10,
            engine: 100 + 10,
            stages: vec![name("base"), name("iso")],
            unknown: vec![name("live")],
        };
        assert_eq!(estimate, wanted);
        assert_eq!(history.estimate([name("live")]), None);
    }

    #[test]
    fn what_failed_or_was_broken_off_tells_nothing() {
        let fails = Event::StageFailed {
            stage: name("base"),
            cause: "c".into(),
            hint: None,
            log: "l".into(),
            tail: Vec::new(),
        };
        let history = history(&[
            &[begins("demo"), starts("base"), stores("base", 1, 1), fails, starts("live")],
            &[begins("demo"), starts("live"), stores("live", 10, 5)],
        ]);
        assert_eq!(history.of(&name("base")), None);
        assert_eq!(history.of(&name("live")).map(|taken| taken.unpacked), Some(10));
    }
}
