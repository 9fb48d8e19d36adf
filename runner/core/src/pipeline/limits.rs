//! `[limits]`, and `limits = { … }` of a stage: what a stage's container may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, number, wrong_type};
use crate::units::{parse_duration, parse_size};

/// What a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors, also in parts; `None` for all.
    pub cpus: Option<f64>,
    /// Bytes of memory, swap included; `None` for all.
    pub memory: Option<u64>,
    /// Wall time after which a stage is stopped.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpus: None, memory: None, time: Duration::from_secs(2 * 3600) }
    }
}

/// Container engines refuse less than 6 MiB, and the shell that runs a stage needs more than that.
const LEAST_MEMORY: u64 = 16 << 20;

fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        memory if memory < LEAST_MEMORY => Err("memory must be at least 16MiB".to_owned()),
        memory => Ok(memory),
    }
}

impl Limits {
    /// These limits with what the table says instead.
    pub(super) fn read(mut self, mut table: Table<'_>, out: &mut Diagnostics) -> Self {
        if let Some(value) = table.any("cpus") {
            match number(value.get_ref()) {
                Some(cpus) if (0.1..=4096.0).contains(&cpus) => self.cpus = Some(cpus),
                Some(_) => out.push(Diagnostic::new("cpus must be from 0.1 to 4096", value.span())),
                None => out.push(wrong_type(value, "a number", "cpus")),
            }
        }
        if let Some(memory) = table.read("memory", out, parse_memory) {
            self.memory = Some(memory);
        }
        if let Some(time) = table.read("time", out, parse_duration) {
            self.time = time;
        }
        table.finish(out);
        self
    }
}
