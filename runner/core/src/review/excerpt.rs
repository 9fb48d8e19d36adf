//! The part of a log that a review looks at.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::redact::{KeyBlock, redact};

/// Most bytes of a log that leave the machine.
pub const MOST_BYTES: usize = 16 << 10;

/// Lines of a log, in order, with their numbers in the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// At most [`MOST_BYTES`] when rendered.
    pub lines: Vec<ExcerptLine>,
    /// Lines of the whole log.
    pub total: u64,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExcerptLine {
    /// Its number in the log, from 1.
    pub number: u64,
    /// What it says, without colours, redraws and time stamps.
    pub text: String,
    /// How many lines of its kind there are in the log, itself included; the others are left out.
    pub times: u64,
}

impl ExcerptLine {
    /// The line as it is shown: number, text, and how often.
    pub fn render(&self) -> String {
        let mut out = format!("{:>6}  {}", self.number, self.text);
        if self.times > 1 {
            // A String takes whatever it is given.
            let _ = write!(out, "  [{} such lines]", self.times);
        }
        out
    }
}

impl Excerpt {
    /// The excerpt as it is shown and sent, a gap marked by three dots.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut last = 0;
        for line in &self.lines {
            if line.number > last + 1 {
                out.push_str("   ...\n");
            }
            out.push_str(&line.render());
            out.push('\n');
            last = line.number;
        }
        out
    }

    /// The line that holds exactly these words, compared without the white space around them.
    pub fn find(&self, quote: &str) -> Option<&ExcerptLine> {
        let quote = quote.trim();
        (!quote.is_empty()).then(|| self.lines.iter().find(|line| line.text.trim() == quote)).flatten()
    }

    /// The same lines without anything that must not leave the machine or be stored.
    pub fn redacted(&self) -> Self {
        let mut block = KeyBlock::default();
        let clean = |line: &ExcerptLine| {
            let text = block.hides(&line.text).map_or_else(|| redact(&line.text).into_owned(), str::to_owned);
            ExcerptLine { text, ..line.clone() }
        };
        Self { lines: self.lines.iter().map(clean).collect(), total: self.total }
    }
}
