//! Reviewing stages' logs: the rules read them, the council is asked, and what comes of it is told and kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use isokiln_core::digest::Digest;
use isokiln_core::event::Event;
use isokiln_core::image::{ReviewMemory, StageReview, canonical_json};
use isokiln_core::kind::KindCatalog;
use isokiln_core::names::{PipelineName, StageName};
use isokiln_core::pipeline::{Gate, ReviewWhen, Stage};
use isokiln_core::record::{RunRecord, StageRecord, StageState};
use isokiln_core::review::{Action, Diagnosis, Excerpt, Facts, GoodLogs, Learnings, Templates, diagnose};
use serde::Deserialize;
use serde_json::json;

use super::consult::{About, Conversation, Reviewed, consult, pieces, read_log};
use super::coordination::{Coordination, Subject};
use super::error::RunError;
use super::events::Events;
use super::home::{Home, RunFolder, replace_file};
use super::project::Project;
use crate::guard::FolderGuard;
use crate::review::{Council, Deliberation, SeatSetting};
use crate::rules::LazyRules;

/// Good logs that a failed stage's is compared with.
const GOOD_LOGS: usize = 2;

/// What there is to review.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) stage: StageName,
    /// Which run of its script this is in this build, from 1.
    pub(super) attempt: usize,
    pub(super) log: PathBuf,
    pub(super) facts: Facts,
}

/// Reviews the stages of one build.
pub(super) struct Reviewer {
    rules: Arc<LazyRules>,
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
    council: Option<Arc<Council>>,
    kinds: KindCatalog,
    records: Mutex<Records>,
}

/// What the documents about the whole run hold so far.
#[derive(Default)]
struct Records {
    /// `decision-consensus.json`.
    decisions: Vec<serde_json::Value>,
    /// `performance-metrics.json`.
    metrics: Vec<serde_json::Value>,
}

impl Reviewer {
    pub(super) fn new(
        home: &Home,
        run: &RunFolder,
        project: &Project,
        council: Option<Arc<Council>>,
        events: Events,
    ) -> Result<Self, RunError> {
        let pipeline = &project.pipeline;
        let rules = LazyRules::beside(project.file.parent().unwrap_or(Path::new("")))?;
        let memory = home.review().join("learnings.json");
        let reviewer = Self {
            rules: Arc::new(rules),
            when: pipeline.review,
            gate: pipeline.gate,
            pipeline: pipeline.name.clone(),
            coordination: Coordination::of(run.path()),
            events,
            runs: home.runs(),
            learnings: Mutex::new(load_learnings(&memory)),
            memory,
            council,
            kinds: project.kinds.catalog.clone(),
            records: Mutex::default(),
        };
        reviewer.kept(reviewer.begin());
        Ok(reviewer)
    }

    /// Makes the folder and the documents about the whole run.
    fn begin(&self) -> io::Result<()> {
        self.coordination.prepare()?;
        let records = Records::default();
        self.coordination.document("agent-assignments", &self.assignments(None))?;
        self.coordination.document("performance-metrics", &records.metrics)?;
        self.coordination.document("decision-consensus", &records.decisions)
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
        let (runs, pipeline, name) = (self.runs.clone(), self.pipeline.clone(), case.stage.clone());
        let read = tokio::task::spawn_blocking(move || {
            let logs = if facts.ended_well() { Vec::new() } else { good_logs(&runs, &pipeline, &name) };
            let good = Some(templates_of(&logs)).filter(|templates| !templates.is_empty());
            let rules = rules.get().map_err(|error| io::Error::other(error.to_string()))?;
            let reading = read_log(&log, rules, good.as_ref())?;
            let diagnosis = diagnose(rules, &reading, &facts);
            Ok::<_, io::Error>((reading.excerpt, diagnosis))
        });
        let (excerpt, mut diagnosis) =
            read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        diagnosis.allowed = self.learnings().order(&diagnosis.signature, &diagnosis.allowed);
        let reviewed = self.consult(stage, &case, &excerpt, diagnosis, started).await;
        let review = &reviewed.review;
        let seconds = started.elapsed().as_secs_f64();
        let subject = Subject { stage: &case.stage, attempt: case.attempt };
        self.kept(self.coordination.context(subject, &excerpt.redacted()));
        self.events.emit(Event::StageReviewed {
            stage: case.stage.clone(),
            attempt: case.attempt,
            review: Box::new(review.clone()),
            seconds,
        });
        Ok(reviewed)
    }

    /// What the rules say, and what the council makes of it.
    async fn consult(
        &self,
        stage: &Stage,
        case: &Case,
        excerpt: &Excerpt,
        diagnosis: Diagnosis,
        started: Instant,
    ) -> Reviewed {
        let kind = self.kinds.get(stage.kind.as_str());
        let about = About {
            stage: stage.name.to_string(),
            kind: stage.kind.to_string(),
            role: kind.map(|kind| kind.summary.clone()).unwrap_or_default(),
        };
        let (reviewed, conversation) =
            consult(self.council.as_deref(), about, excerpt, &case.facts, diagnosis).await;
        let told = conversation.as_ref().map(|conversation| &conversation.told);
        let agents = told.map(|told| {
            json!({"milliseconds": told.millis, "calls": told.attempts.len(), "tokens": told.tokens(),
                "micro_dollars": told.cost()})
        });
        {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            records.metrics.push(json!({
                "stage": case.stage, "attempt": case.attempt,
                "milliseconds": started.elapsed().as_millis() as u64, "agents": agents,
            }));
            self.kept(self.coordination.document("performance-metrics", &records.metrics));
        }
        if let Some(conversation) = conversation {
            self.keep_conversation(case, &conversation);
        }
        reviewed
    }

    fn keep_conversation(&self, case: &Case, conversation: &Conversation) {
        let Conversation { question, told, consensus } = conversation;
        let subject = Subject { stage: &case.stage, attempt: case.attempt };
        let question = question.redacted();
        let document = json!({
            "stage": question.stage, "facts": question.facts, "allowed": question.allowed,
            "known": question.known, "log": question.excerpt.render(), "attempts": told.attempts,
            "holders": told.holders, "consensus": consensus, "milliseconds": told.millis,
        });
        self.kept(self.coordination.conversation(subject, &document));
        self.kept(self.coordination.document("agent-assignments", &self.assignments(Some(told))));
    }

    /// Who holds which seat, by configuration and, once asked, in fact.
    fn assignments(&self, told: Option<&Deliberation>) -> serde_json::Value {
        let Some(council) = &self.council else {
            return json!({"seats": [], "reviewers": ["rules"]});
        };
        let seats = council.seats();
        let of = |setting: &SeatSetting| {
            let provider = setting.own.and_then(|index| seats.providers.get(index));
            let held = told.and_then(|told| told.holders.iter().find(|holder| holder.seat == setting.seat));
            json!({
                "seat": setting.seat, "role": setting.seat.role(), "open": setting.open,
                "provider": provider.map(|provider| &provider.name),
                "model": provider.map(|provider| &provider.endpoint.model),
                "held": held.map(|holder| &holder.held),
            })
        };
        json!({"seats": seats.seats.iter().map(of).collect::<Vec<_>>(), "reviewers": ["rules"]})
    }

    /// What was decided about a stage is kept.
    pub(super) fn decided(&self, case: &Case, reviewed: &Reviewed, outcome: &str, action: Option<Action>) {
        let decision = json!({
            "stage": case.stage, "attempt": case.attempt, "signature": reviewed.diagnosis.signature,
            "facts": case.facts, "review": reviewed.review, "action": action, "outcome": outcome,
        });
        let subject = Subject { stage: &case.stage, attempt: case.attempt };
        self.kept(self.coordination.decision(subject, &decision));
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.decisions.push(json!({
            "stage": case.stage, "attempt": case.attempt, "verdict": reviewed.review.verdict,
            "proposed": reviewed.review.action, "action": action, "outcome": outcome,
            "votes": reviewed.review.votes,
        }));
        self.kept(self.coordination.document("decision-consensus", &records.decisions));
    }

    /// What is known of what has helped.
    fn learnings(&self) -> Learnings {
        self.learnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What reviews have come to so far, for the record of a stage's checkpoint.
    pub(super) fn memory(&self, stage: &StageName) -> ReviewMemory {
        let learnings = self.learnings();
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let of_stage = records.decisions.iter().filter(|decision| decision["stage"] == stage.as_str());
        ReviewMemory {
            learnings: (!learnings.is_empty()).then(|| Digest::of(canonical_json(&learnings))),
            signatures: learnings.len(),
            reviews: of_stage.filter_map(|decision| StageReview::deserialize(decision).ok()).collect(),
        }
    }

    /// A cure's outcome is known.
    pub(super) fn learn(&self, signature: &str, action: Action, helped: bool) {
        let mut learnings = self.learnings.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.memory.parent().unwrap_or(Path::new("."));
        // Another build may have learnt something meanwhile, or be about to note it.
        let guard = std::fs::create_dir_all(folder).and_then(|()| FolderGuard::take(folder));
        *learnings = load_learnings(&self.memory);
        learnings.note(signature, action, helped);
        let json = serde_json::to_vec_pretty(&*learnings).unwrap_or_default();
        self.kept(guard.and_then(|_guard| replace_file(&self.memory, &json)));
        self.kept(self.coordination.learnings(&learnings));
    }

    /// What cannot be kept is no reason to fail a build.
    pub(super) fn kept(&self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("the coordination folder of this run is incomplete: {error}");
        }
    }
}

/// Logs of the newest runs in which a stage of the pipeline ended well.
fn good_logs(runs: &Path, pipeline: &PipelineName, stage: &StageName) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(runs) else { return Vec::new() };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let good_log = |folder: &PathBuf| {
        let record: RunRecord = serde_json::from_slice(&std::fs::read(folder.join("run.json")).ok()?).ok()?;
        let is_done = |of: &StageRecord| of.stage == *stage && of.state == StageState::Done;
        let log = folder.join("stages").join(stage.as_str()).join("log");
        let is_good = record.pipeline.as_ref() == Some(pipeline) && record.stages.iter().any(is_done);
        (is_good && log.is_file()).then_some(log)
    };
    folders.iter().rev().filter_map(good_log).take(GOOD_LOGS).collect()
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
