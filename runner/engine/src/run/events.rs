//! The event stream: recorded in the run folder, and told to whoever watches.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use isokiln_core::event::Event;
use serde::Serialize;

use super::clock::Clock;

/// Someone who watches a run: the terminal, or a program that reads JSON.
pub trait Reporter: Send + Sync {
    /// Is told of every event, from any thread, in order.
    fn event(&self, event: &Event);
}

/// Where events go.
#[derive(Clone)]
pub struct Events {
    reporter: Arc<dyn Reporter>,
    record: Arc<Mutex<Option<File>>>,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
struct Stamped<'e> {
    time: String,
    #[serde(flatten)]
    event: &'e Event,
}

impl Events {
    /// Events that are told to `reporter` and, once there is a file for them, recorded.
    pub fn new(reporter: Arc<dyn Reporter>, clock: Arc<dyn Clock>) -> Self {
        Self { reporter, record: Arc::new(Mutex::new(None)), clock }
    }

    /// From now on, also writes events to this file, one JSON object a line.
    pub fn record_to(&self, file: File) {
        if let Ok(mut record) = self.record.lock() {
            *record = Some(file);
        }
    }

    /// Something happened.
    pub fn emit(&self, event: Event) {
        if !event.is_ephemeral()
            && let Ok(mut record) = self.record.lock()
            && let Some(file) = record.as_mut()
        {
            let time = jiff::Timestamp::from_nanosecond(self.clock.nanoseconds().try_into().unwrap_or(0));
            let stamped =
                Stamped { time: time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string(), event: &event };
            let line = serde_json::to_string(&stamped).unwrap_or_default();
            if let Err(error) = writeln!(file, "{line}") {
                tracing::warn!("events are no longer recorded: {error}");
                *record = None;
            }
        }
        self.reporter.event(&event);
    }

    /// Something worth a person's attention.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { stage: None, text: text.into() });
    }
}
