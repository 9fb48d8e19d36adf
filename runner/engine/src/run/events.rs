//! The event stream: recorded in the run folder, and told to whoever watches.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use isokiln_core::boot::BootReport;
use isokiln_core::event::Event;
use isokiln_core::exit;
use isokiln_core::names::StageName;
use isokiln_core::record::RunRecord;
use serde::Serialize;
use tokio::sync::Notify;

use super::clock::Clock;
use super::error::RunError;
use super::home::{RunFolder, replace_file};
use super::results::write_junit;

/// Someone who watches a run: the terminal, or a program that reads JSON.
pub trait Reporter: Send + Sync {
    /// Is told of every event, from any thread, in order; `at` is when it was, in seconds since 1970.
    fn event(&self, event: &Event, at: f64);
}

/// Where events go.
#[derive(Clone)]
pub struct Events {
    reporters: Arc<[Arc<dyn Reporter>]>,
    recorder: Arc<Mutex<Option<Recorder>>>,
    clock: Arc<dyn Clock>,
    lost: Arc<LostSlot>,
    /// Where else the boot tests' results go as JUnit XML.
    junit: Option<PathBuf>,
}

/// Why a run's record has come to an end before the run.
#[derive(Debug)]
pub(super) struct Lost {
    /// The stage that was the last to do something.
    pub(super) stage: Option<StageName>,
    /// What could not be written.
    pub(super) error: RunError,
}

#[derive(Default)]
struct LostSlot {
    lost: Mutex<Option<Lost>>,
    told: Notify,
}

/// Writes a run's files: every event to `events.jsonl`, what they come to into `run.json` and `junit.xml`.
struct Recorder {
    events: File,
    record: RunRecord,
    path: PathBuf,
    /// As many as the record has boot tests, in the same order.
    reports: Vec<BootReport>,
    junit: Vec<PathBuf>,
    /// The stage that was the last to do something.
    stage: Option<StageName>,
}

#[derive(Serialize)]
struct Stamped<'e> {
    time: String,
    #[serde(flatten)]
    event: &'e Event,
}

impl Events {
    /// Events that are told to `reporters` and, once there is a run, recorded in its folder.
    pub fn new(reporters: impl Into<Arc<[Arc<dyn Reporter>]>>, clock: Arc<dyn Clock>) -> Self {
        let reporters = reporters.into();
        Self { reporters, recorder: Arc::default(), clock, lost: Arc::default(), junit: None }
    }

    /// The same, but boot tests' results also go to this file as JUnit XML. Until the run has ended, the file says that
    /// it has not: whatever was there before, or nothing, would be taken for its result.
    pub fn with_junit(self, path: &Path) -> Result<Self, RunError> {
        write_junit(path, &RunRecord::default(), &[])
            .map_err(|source| RunError::Folder { path: path.to_owned(), source })?;
        Ok(Self { junit: Some(path.to_owned()), ..self })
    }

    /// From now on, also records events in this run's folder.
    pub fn record_to(&self, run: &RunFolder) -> Result<(), RunError> {
        let recorder = Recorder {
            events: run.events()?,
            record: RunRecord::default(),
            path: run.record(),
            reports: Vec::new(),
            junit: [run.junit()].into_iter().chain(self.junit.clone()).collect(),
            stage: None,
        };
        if let Ok(mut slot) = self.recorder.lock() {
            *slot = Some(recorder);
        }
        Ok(())
    }

    /// Something happened.
    pub fn emit(&self, mut event: Event) {
        // Held until all are told: whoever was told a part of what happened finds the rest in what is recorded.
        let mut slot = if event.is_ephemeral() { None } else { self.recorder.lock().ok() };
        let now = self.clock.nanoseconds();
        if let Some(slot) = &mut slot
            && let Some(recorder) = slot.as_mut()
            && let Err((path, source)) = recorder.take(&event, now)
        {
            if let Event::RunFinished { exit_code, error, .. } = &mut event
                && *exit_code == exit::OK
            {
                // What is told last must not differ from what the command ends with.
                *exit_code = exit::NOT_READY;
                *error = Some(format!("cannot write {}: {source}", path.display()));
            }
            let lost = Lost { stage: recorder.stage.take(), error: RunError::Folder { path, source } };
            **slot = None;
            *self.lost.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(lost);
            self.lost.told.notify_one();
        }
        for reporter in self.reporters.iter() {
            reporter.event(&event, now as f64 / 1e9);
        }
    }

    /// Resolves when events can no longer be recorded.
    pub(super) async fn lost(&self) -> Lost {
        loop {
            if let Some(lost) = self.take_lost() {
                return lost;
            }
            self.lost.told.notified().await;
        }
    }

    /// Why events are no longer recorded, where nobody has asked before.
    pub(super) fn take_lost(&self) -> Option<Lost> {
        self.lost.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Something worth a person's attention.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { stage: None, text: text.into() });
    }
}

impl Recorder {
    /// Writes an event down; fails with what could not be written.
    fn take(&mut self, event: &Event, nanoseconds: u128) -> Result<(), (PathBuf, io::Error)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        let events = self.path.with_file_name("events.jsonl");
        let time = jiff::Timestamp::from_nanosecond(nanoseconds.try_into().unwrap_or(0))
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let stamped = Stamped { time: time.to_string(), event };
        if let Some(stage) = event.stage() {
            self.stage = Some(stage.clone());
        }
        // In one piece, so that a reader finds whole lines, and a full disk cuts none in two.
        let line = serde_json::to_string(&stamped).map_err(io::Error::from).map_err(at(&events))? + "\n";
        self.events.write_all(line.as_bytes()).map_err(at(&events))?;
        self.record.absorb(event);
        if let Event::BootFinished { report, .. } = event {
            self.reports.push((**report).clone());
        }
        // A reader finds the run from its first moment, and is told when it is over.
        if matches!(event, Event::RunStarted { .. } | Event::RunFinished { .. }) {
            let record = serde_json::to_string_pretty(&self.record).map_err(io::Error::from);
            let written = record.and_then(|record| replace_file(&self.path, (record + "\n").as_bytes()));
            written.map_err(at(&self.path))?;
        }
        if matches!(event, Event::RunFinished { .. }) {
            for path in &self.junit {
                write_junit(path, &self.record, &self.reports).map_err(at(path))?;
            }
        }
        Ok(())
    }
}
