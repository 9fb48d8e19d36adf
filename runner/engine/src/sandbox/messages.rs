//! Telling a stage's messages from its output.
//!
//! A message is a line of JSON behind a byte and a word that were made up for the run, so that no
//! program in the root file system can speak in isokiln's name.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use isokiln_core::image::{Environment, MountPoint, Process, Surroundings};
use isokiln_core::review::Room;
use serde::Deserialize;

/// What a stage tells isokiln.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StageMessage {
    /// For people.
    Said(Saying),
    /// Room left on a file system.
    Room(Room),
    /// Whether the archive's host has an address there.
    Resolves(bool),
    /// Time that the kind's script took.
    Script(Duration),
    /// What is around the kind's script.
    Surroundings(Surroundings),
    /// Names of the files that the stage leaves.
    Artifacts(Vec<String>),
    /// The stage has ended; the container waits to be dismissed.
    Ended(i64),
}

/// What a stage tells people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saying {
    /// Something worth their attention.
    Note(String),
    /// Something that went wrong and was got over.
    Warning(String),
    /// What it is doing now.
    Progress(String),
    /// Why it is about to fail, and what to do about it.
    Failed {
        /// One line.
        cause: String,
        /// What to do; may be empty.
        hint: String,
    },
}

/// Longest message accepted, in bytes.
const MAX_MESSAGE: usize = 64 << 10;

/// Splits a stream into output and messages.
pub(super) struct Separator {
    mark: Vec<u8>,
    waiting: BytesMut,
}

#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Log(Bytes),
    Message(StageMessage),
}

impl Separator {
    pub(super) fn new(token: &str) -> Self {
        Self { mark: format!("\u{1e}{token} ").into_bytes(), waiting: BytesMut::new() }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Part> {
        self.waiting.extend_from_slice(bytes);
        let mut parts = Vec::new();
        while !self.waiting.is_empty() {
            match self.waiting.iter().position(|byte| *byte == self.mark[0]) {
                None => parts.push(Part::Log(self.waiting.split().freeze())),
                Some(0) => match self.message() {
                    Some(part) => parts.push(part),
                    None => break,
                },
                Some(start) => parts.push(Part::Log(self.waiting.split_to(start).freeze())),
            }
        }
        parts
    }

    /// What is left when the stream ends.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        (!self.waiting.is_empty()).then(|| self.waiting.split().freeze())
    }

    /// The message at the start, or output that only looks like one; `None` where more is to come.
    fn message(&mut self) -> Option<Part> {
        let compared = self.waiting.len().min(self.mark.len());
        if self.waiting[..compared] != self.mark[..compared] {
            return Some(Part::Log(self.waiting.split_to(1).freeze()));
        }
        match self.waiting.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = self.waiting.split_to(end + 1).freeze();
                let message = line.get(self.mark.len()..).and_then(parse);
                Some(message.map_or(Part::Log(line), Part::Message))
            }
            None if self.waiting.len() > MAX_MESSAGE => Some(Part::Log(self.waiting.split().freeze())),
            None => None,
        }
    }
}

fn parse(json: &[u8]) -> Option<StageMessage> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wire {
        Note { note: String },
        Warning { warning: String },
        Progress { progress: String },
        Failed { failed: Failure },
        Room { room: Room },
        Resolves { resolves: bool },
        Script { script_microseconds: u64 },
        Surroundings { surroundings: Around },
        Artifacts { artifacts: Vec<String> },
        Ended { ended: i64 },
    }
    #[derive(Deserialize)]
    struct Around {
        environment: Environment,
        mounts: String,
        processes: String,
    }
    #[derive(Deserialize)]
    struct Failure {
        cause: String,
        hint: String,
    }
    Some(match serde_json::from_slice(json).ok()? {
        Wire::Note { note } => StageMessage::Said(Saying::Note(note)),
        Wire::Warning { warning } => StageMessage::Said(Saying::Warning(warning)),
        Wire::Progress { progress } => StageMessage::Said(Saying::Progress(progress)),
        Wire::Failed { failed } => {
            StageMessage::Said(Saying::Failed { cause: failed.cause, hint: failed.hint })
        }
        Wire::Room { room } => StageMessage::Room(room),
        Wire::Resolves { resolves } => StageMessage::Resolves(resolves),
        Wire::Script { script_microseconds } => {
            StageMessage::Script(Duration::from_micros(script_microseconds))
        }
        Wire::Surroundings { surroundings: Around { environment, mounts, processes } } => {
            let (mounts, processes) = (MountPoint::parse(&mounts), Process::parse(&processes));
            StageMessage::Surroundings(Surroundings { environment, mounts, processes })
        }
        Wire::Artifacts { artifacts } => StageMessage::Artifacts(artifacts),
        Wire::Ended { ended } => StageMessage::Ended(ended),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(text: &str) -> Part {
        Part::Log(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn messages_are_taken_out_of_the_output() {
        let mut separator = Separator::new("tok");
        let parts = separator.feed(b"hello\n\x1etok {\"note\":\"hi\"}\nrest");
        assert_eq!(
            parts,
            [log("hello\n"), Part::Message(StageMessage::Said(Saying::Note("hi".into()))), log("rest")]
        );
    }

    #[test]
    fn a_wrong_word_or_broken_json_is_output() {
        let mut separator = Separator::new("tok");
        assert_eq!(separator.feed(b"\x1eother {\"note\":\"hi\"}\n").len(), 2);
        assert_eq!(separator.feed(b"\x1etok {oops\n"), [log("\u{1e}tok {oops\n")]);
    }

    #[test]
    fn endless_messages_are_let_go() {
        let mut separator = Separator::new("tok");
        separator.feed(b"\x1etok ");
        let parts = separator.feed(&vec![b'x'; MAX_MESSAGE]);
        assert!(matches!(&parts[..], [Part::Log(bytes)] if bytes.len() > MAX_MESSAGE));
    }

    #[test]
    fn every_kind_of_message_is_read() {
        for (json, message) in [
            (r#"{"warning":"w"}"#, StageMessage::Said(Saying::Warning("w".into()))),
            (r#"{"progress":"p"}"#, StageMessage::Said(Saying::Progress("p".into()))),
            (
                r#"{"failed":{"cause":"c","hint":"h"}}"#,
                StageMessage::Said(Saying::Failed { cause: "c".into(), hint: "h".into() }),
            ),
            (
                r#"{"room":{"what":"a disk","bytes":5,"inodes":6}}"#,
                StageMessage::Room(Room { what: "a disk".into(), bytes: 5, inodes: 6 }),
            ),
            (r#"{"resolves":false}"#, StageMessage::Resolves(false)),
            (r#"{"script_microseconds":1500000}"#, StageMessage::Script(Duration::from_millis(1500))),
            (r#"{"artifacts":["a.iso"]}"#, StageMessage::Artifacts(vec!["a.iso".into()])),
            (r#"{"ended":137}"#, StageMessage::Ended(137)),
        ] {
            assert_eq!(parse(json.as_bytes()), Some(message));
        }
    }

    proptest! {
        /// However the stream is cut, no byte of output is lost or reordered and no message is missed.
        #[test]
        fn cuts_do_not_matter(cuts in proptest::collection::vec(1usize..9, 1..60)) {
            let stream = b"a\x1e\x1etok {\"ended\":0}\nb\x1etoc\n\x1etok {\"note\":\"n\"}\n\xff\xfe";
            let mut separator = Separator::new("tok");
            let (mut output, mut messages) = (Vec::new(), 0);
            let mut rest = stream.as_slice();
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                for part in separator.feed(now) {
                    match part {
                        Part::Log(bytes) => output.extend_from_slice(&bytes),
                        Part::Message(_) => messages += 1,
                    }
                }
                rest = later;
            }
            output.extend(separator.finish().into_iter().flatten());
            prop_assert_eq!(output, b"a\x1eb\x1etoc\n\xff\xfe");
            prop_assert_eq!(messages, 2);
        }
    }
}
