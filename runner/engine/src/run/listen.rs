//! Taking in what a stage prints and says: its log, its messages, the lines for whoever watches.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};

use bytes::Bytes;
use isokiln_core::event::{Event, Usage};
use isokiln_core::names::StageName;
use isokiln_core::review::{Lines, printable};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::events::Events;
use crate::sandbox::{Saying, StageOutput};

/// Lines of a failed stage's log that are shown.
const TAIL: usize = 20;
/// Longest line told to whoever watches, in bytes.
const LONGEST_LINE: usize = 2000;

/// What a stage said while it ran.
pub(super) struct Heard {
    /// Cause and hint, where it gave them.
    pub(super) failed: Option<(String, String)>,
    /// Its last lines.
    pub(super) tail: Vec<String>,
    /// What it had used when last counted.
    pub(super) usage: Usage,
}

/// Writes the log and passes on what a stage says, until it has ended.
pub(super) async fn listen(
    mut output: mpsc::Receiver<StageOutput>,
    log: File,
    stage: &StageName,
    events: &Events,
) -> std::io::Result<Heard> {
    let mut log = BufWriter::new(log);
    let mut lines = Shown::default();
    let mut failed = None;
    let mut broken = None;
    let mut latest = Usage::default();
    loop {
        let item = match output.try_recv() {
            Ok(item) => item,
            // While nothing comes, whoever reads the log finds all that has come.
            Err(TryRecvError::Empty) => {
                if broken.is_none()
                    && let Err(error) = log.flush()
                {
                    broken = Some(error);
                }
                match output.recv().await {
                    Some(item) => item,
                    None => break,
                }
            }
            Err(TryRecvError::Disconnected) => break,
        };
        match item {
            StageOutput::Log(bytes) => {
                // The stage goes on though its log cannot: draining keeps it from blocking.
                if broken.is_none()
                    && let Err(error) = log.write_all(&bytes)
                {
                    broken = Some(error);
                }
                for text in lines.feed(&bytes) {
                    events.emit(Event::StageLine { stage: stage.clone(), text });
                }
            }
            StageOutput::Said(saying) => {
                let stage = stage.clone();
                match saying {
                    Saying::Note(text) => events.emit(Event::Note { stage: Some(stage), text }),
                    Saying::Warning(text) => events.emit(Event::Warning { stage: Some(stage), text }),
                    Saying::Progress(text) => events.emit(Event::StageProgress { stage, text }),
                    Saying::Failed { cause, hint } => drop(failed.get_or_insert((cause, hint))),
                }
            }
            StageOutput::Usage(usage) => {
                latest = usage;
                events.emit(Event::StageUsage { stage: stage.clone(), usage });
            }
        }
    }
    match broken {
        Some(error) => return Err(error),
        None => log.flush()?,
    }
    Ok(Heard { failed, tail: lines.tail(), usage: latest })
}

/// Cuts output into lines that can be shown.
struct Shown {
    lines: Lines,
    last: VecDeque<String>,
}

impl Default for Shown {
    fn default() -> Self {
        Self { lines: Lines::new(LONGEST_LINE), last: VecDeque::new() }
    }
}

impl Shown {
    fn feed(&mut self, bytes: &Bytes) -> Vec<String> {
        let mut shown = Vec::new();
        self.lines.feed(bytes, |line| shown.push(printable(line).into_owned()));
        for line in &shown {
            if self.last.len() == TAIL {
                self.last.pop_front();
            }
            self.last.push_back(line.clone());
        }
        shown
    }

    fn tail(mut self) -> Vec<String> {
        let last = &mut self.last;
        self.lines.finish(|line| {
            let rest = printable(line);
            if !rest.is_empty() {
                last.push_back(rest.into_owned());
            }
        });
        self.last.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_joined_and_made_printable() {
        let mut lines = Shown::default();
        assert_eq!(lines.feed(&Bytes::from_static(b"one\ntw")), ["one"]);
        assert_eq!(
            lines.feed(&Bytes::from_static(b"o\n\x1b[31mred\x1b[0m\n10%\r20%\n")),
            ["two", "red", "20%"]
        );
        assert_eq!(lines.feed(&Bytes::from_static(b"\xff\x00bin\nend")), ["\u{fffd}\u{fffd}bin"]);
        assert_eq!(lines.tail().last().unwrap(), "end");
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut lines = Shown::default();
        for number in 0..100 {
            lines.feed(&Bytes::from(format!("{number}\n")));
        }
        let tail = lines.tail();
        assert_eq!((tail.len(), tail[0].as_str()), (TAIL, "80"));
    }
}
