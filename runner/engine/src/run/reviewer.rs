//! Reviewing stages' logs: the rules read them, the council is asked, and what comes of it is told and kept.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use isokiln_core::event::Event;
use isokiln_core::names::{PipelineName, StageName};
use isokiln_core::pipeline::{Gate, Pipeline, ReviewWhen, Stage};
use isokiln_core::record::{RunRecord, StageState};
use isokiln_core::review::{
    Action, Diagnosis, Excerpt, Facts, GoodLogs, Judgement, Learnings, LogReading, Reducer, Review, RuleSet,
    Templates, diagnose,
};
use serde_json::json;

use super::coordination::{Coordination, Subject};
use super::events::Events;
use super::home::{Home, RunFolder, replace_file};

/// Bytes of a log that are read at a time.
const PIECE: usize = 256 << 10;
/// Good logs that a failed stage's is compared with.
const GOOD_LOGS: usize = 2;

/// Reads a log of any size with the rules; `good` tells what is nothing new.
pub fn read_log(path: &Path, rules: &RuleSet, good: Option<&Templates>) -> io::Result<LogReading> {
    let mut reducer = Reducer::new(rules, good);
    pieces(path, |piece| reducer.feed(piece))?;
    Ok(reducer.finish())
}

fn pieces(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(size) => take(&piece[..size]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What there is to review.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) stage: StageName,
    /// Which run of its script this is in this build, from 1.
    pub(super) attempt: usize,
    pub(super) log: PathBuf,
    pub(super) facts: Facts,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Reviewed {
    pub(super) review: Review,
    pub(super) diagnosis: Diagnosis,
}

/// Reviews the stages of one build.
pub(super) struct Reviewer {
    rules: Arc<RuleSet>,
    when: ReviewWhen,
    pub(super) gate: Gate,
    pipeline: PipelineName,
    pub(super) coordination: Coordination,
    events: Events,
    /// Folders of all runs.
    runs: PathBuf,
    /// Where what is learnt outlives the run.
    memory: PathBuf,
    learnings: Mutex<Learnings>,
    /// Decisions so far, as in `decision-consensus.json`.
    decisions: Mutex<Vec<serde_json::Value>>,
}

impl Reviewer {
    pub(super) fn new(
        home: &Home,
        run: &RunFolder,
        pipeline: &Pipeline,
        rules: Arc<RuleSet>,
        events: Events,
    ) -> Self {
        let memory = home.learnings();
        let reviewer = Self {
            rules,
            when: pipeline.review,
            gate: pipeline.gate,
            pipeline: pipeline.name.clone(),
            coordination: Coordination::of(run.path()),
            events,
            runs: home.runs(),
            learnings: Mutex::new(load_learnings(&memory)),
            memory,
            decisions: Mutex::default(),
        };
        reviewer.kept(reviewer.coordination.prepare());
        reviewer
    }

    /// Whether a stage that ended like this is reviewed.
    pub(super) fn looks_at(&self, ended_well: bool) -> bool {
        match self.when {
            ReviewWhen::EveryStage => true,
            ReviewWhen::OnFailure => !ended_well,
            ReviewWhen::Off => false,
        }
    }

    /// Reviews a stage's end, and tells.
    pub(super) async fn review(&self, stage: &Stage, case: Case) -> io::Result<Reviewed> {
        let started = Instant::now();
        let (rules, log, facts) = (self.rules.clone(), case.log.clone(), case.facts.clone());
        let good = (!facts.ended_well()).then(|| self.good_logs(&case.stage));
        let read = tokio::task::spawn_blocking(move || {
            let good = good.map(|logs| templates_of(&logs)).filter(|templates| !templates.is_empty());
            let reading = read_log(&log, &rules, good.as_ref())?;
            let diagnosis = diagnose(&rules, &reading, &facts);
            Ok::<_, io::Error>((reading.excerpt, diagnosis))
        });
        let (excerpt, mut diagnosis) =
            read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        diagnosis.allowed = self.learnings().order(&diagnosis.signature, &diagnosis.allowed);
        let review = self.consult(stage, &case, &excerpt, &diagnosis).await;
        let seconds = started.elapsed().as_secs_f64();
        let subject = Subject { stage: &case.stage, attempt: case.attempt };
        self.kept(self.coordination.context(subject, &excerpt));
        self.events.emit(Event::StageReviewed {
            stage: case.stage.clone(),
            attempt: case.attempt,
            review: Box::new(review.clone()),
            seconds,
        });
        Ok(Reviewed { review, diagnosis })
    }

    /// What the rules say, and what the council makes of it.
    async fn consult(
        &self,
        _stage: &Stage,
        _case: &Case,
        _excerpt: &Excerpt,
        diagnosis: &Diagnosis,
    ) -> Review {
        Review::of(diagnosis)
    }

    /// What was decided about a stage is kept.
    pub(super) fn decided(&self, case: &Case, reviewed: &Reviewed, outcome: &str, action: Option<Action>) {
        let decision = json!({
            "stage": case.stage, "attempt": case.attempt, "signature": reviewed.diagnosis.signature,
            "facts": case.facts, "review": reviewed.review, "action": action, "outcome": outcome,
        });
        let subject = Subject { stage: &case.stage, attempt: case.attempt };
        self.kept(self.coordination.decision(subject, &decision));
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.push(json!({
            "stage": case.stage, "attempt": case.attempt, "verdict": reviewed.review.verdict,
            "proposed": reviewed.review.action, "action": action, "outcome": outcome,
            "votes": reviewed.review.votes,
        }));
        self.kept(self.coordination.document("decision-consensus", &*decisions));
    }

    /// What is known of what has helped.
    fn learnings(&self) -> Learnings {
        self.learnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A cure's outcome is known.
    pub(super) fn learn(&self, signature: &str, action: Action, helped: bool) {
        let mut learnings = self.learnings.lock().unwrap_or_else(PoisonError::into_inner);
        // Another build may have learnt something meanwhile.
        *learnings = load_learnings(&self.memory);
        learnings.note(signature, action, helped);
        let json = serde_json::to_vec_pretty(&*learnings).unwrap_or_default();
        self.kept(replace_file(&self.memory, &json));
        self.kept(self.coordination.learnings(&learnings));
    }

    /// What cannot be kept is no reason to fail a build.
    pub(super) fn kept(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("the coordination folder of this run is incomplete: {error}");
        }
    }

    /// Logs of the newest runs in which the stage ended well.
    fn good_logs(&self, stage: &StageName) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.runs) else { return Vec::new() };
        let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let is_good = |folder: &PathBuf| {
            let record: RunRecord =
                serde_json::from_slice(&std::fs::read(folder.join("run.json")).ok()?).ok()?;
            let done = |record: &isokiln_core::record::StageRecord| {
                record.stage == *stage && record.state == StageState::Done
            };
            let log = folder.join("stages").join(stage.as_str()).join("log");
            (record.pipeline.as_ref() == Some(&self.pipeline)
                && record.stages.iter().any(done)
                && log.is_file())
            .then_some(log)
        };
        folders.iter().rev().filter_map(is_good).take(GOOD_LOGS).collect()
    }
}

fn templates_of(logs: &[PathBuf]) -> Templates {
    let mut good = GoodLogs::default();
    for log in logs {
        // One that cannot be read tells nothing.
        if pieces(log, |piece| good.feed(piece)).is_ok() {
            good.feed(b"");
        }
    }
    good.templates()
}

fn load_learnings(path: &Path) -> Learnings {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default()
}

impl Reviewed {
    /// What may be done about it, the best first.
    pub(super) fn allowed(&self) -> Vec<Action> {
        self.diagnosis.allowed.clone()
    }

    /// Whether the stage ended well but what it made is not to be trusted.
    pub(super) fn is_suspect(&self) -> bool {
        self.review.verdict == Judgement::Suspect
    }
}
