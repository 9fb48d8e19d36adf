//! The event stream: recorded in the run folder, and told to whoever watches.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use isokiln_core::boot::BootReport;
use isokiln_core::event::Event;
use isokiln_core::record::RunRecord;
use serde::Serialize;

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
    /// Where else the boot tests' results go as JUnit XML.
    junit: Option<PathBuf>,
}

/// Writes a run's files: every event to `events.jsonl`, what they come to into `run.json` and `junit.xml`.
struct Recorder {
    events: File,
    record: RunRecord,
    path: PathBuf,
    /// As many as the record has boot tests, in the same order.
    reports: Vec<BootReport>,
    junit: Vec<PathBuf>,
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
        Self { reporters: reporters.into(), recorder: Arc::new(Mutex::new(None)), clock, junit: None }
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
        };
        if let Ok(mut slot) = self.recorder.lock() {
            *slot = Some(recorder);
        }
        Ok(())
    }

    /// Something happened.
    pub fn emit(&self, event: Event) {
        let now = self.clock.nanoseconds();
        if !event.is_ephemeral()
            && let Ok(mut slot) = self.recorder.lock()
            && let Some(recorder) = slot.as_mut()
            && let Err(error) = recorder.take(&event, now)
        {
            tracing::warn!("events are no longer recorded: {error}");
            *slot = None;
        }
        for reporter in self.reporters.iter() {
            reporter.event(&event, now as f64 / 1e9);
        }
    }

    /// Something worth a person's attention.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { stage: None, text: text.into() });
    }
}

impl Recorder {
    fn take(&mut self, event: &Event, nanoseconds: u128) -> io::Result<()> {
        let time = jiff::Timestamp::from_nanosecond(nanoseconds.try_into().unwrap_or(0))
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let stamped = Stamped { time: time.to_string(), event };
        writeln!(self.events, "{}", serde_json::to_string(&stamped)?)?;
        self.record.absorb(event);
        if let Event::BootFinished { report, .. } = event {
            self.reports.push((**report).clone());
        }
        // A reader finds the run from its first moment, and is told when it is over.
        if matches!(event, Event::RunStarted { .. } | Event::RunFinished { .. }) {
            replace_file(&self.path, (serde_json::to_string_pretty(&self.record)? + "\n").as_bytes())?;
        }
        if matches!(event, Event::RunFinished { .. }) {
            for path in &self.junit {
                write_junit(path, &self.record, &self.reports)?;
            }
        }
        Ok(())
    }
}
