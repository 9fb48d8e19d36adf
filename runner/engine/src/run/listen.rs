//! Taking in what a stage prints and says: its log, its messages, the lines for whoever watches.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};

use bytes::Bytes;
use isokiln_core::event::{Event, Usage};
use isokiln_core::names::StageName;
use tokio::sync::mpsc;

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
    let mut lines = Lines::default();
    let mut failed = None;
    let mut broken = None;
    let mut latest = Usage::default();
    while let Some(item) = output.recv().await {
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
#[derive(Default)]
struct Lines {
    unfinished: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    fn feed(&mut self, bytes: &Bytes) -> Vec<String> {
        let mut shown = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.unfinished.len() < LONGEST_LINE {
                let room = LONGEST_LINE - self.unfinished.len();
                self.unfinished.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            if piece.ends_with(b"\n") {
                let line = printable(&std::mem::take(&mut self.unfinished));
                if self.last.len() == TAIL {
                    self.last.pop_front();
                }
                self.last.push_back(line.clone());
                shown.push(line);
            }
        }
        shown
    }

    fn tail(mut self) -> Vec<String> {
        let rest = printable(&self.unfinished);
        if !rest.is_empty() {
            self.last.push_back(rest);
        }
        self.last.into()
    }
}

/// A line as text that does nothing to a terminal: what a progress display last drew, without colours.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // A control sequence ends with a letter.
            '\u{1b}' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            '\t' => out.push(' '),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_joined_and_made_printable() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(&Bytes::from_static(b"one\ntw")), ["one"]);
        assert_eq!(
            lines.feed(&Bytes::from_static(b"o\n\x1b[31mred\x1b[0m\n10%\r20%\n")),
            ["two", "red", "20%"]
        );
        assert_eq!(lines.feed(&Bytes::from_static(b"\xff\x00bin\nend")), ["\u{fffd}\u{fffd}bin"]);
        assert_eq!(lines.tail().last().unwrap(), "end");
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::default();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..20 {
            assert!(lines.feed(&piece).is_empty());
        }
        assert!(lines.unfinished.len() <= LONGEST_LINE);
        assert_eq!(lines.feed(&Bytes::from_static(b"\n"))[0].len(), LONGEST_LINE);
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.feed(&Bytes::from(format!("{number}\n")));
        }
        let tail = lines.tail();
        assert_eq!((tail.len(), tail[0].as_str()), (TAIL, "80"));
    }
}
