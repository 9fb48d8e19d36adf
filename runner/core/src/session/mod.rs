//! A build and those who watch it: where a command was started, what a supervisor tells its viewers, and what
//! they may wish.

mod logout;
mod place;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::Event;

pub use logout::{LoginManager, Logout};
pub use place::{Kind, Multiplexer, Place};

/// What a supervisor tells a viewer, as a JSON value a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// Something happened.
    Event {
        /// When: seconds since 1970.
        at: f64,
        /// What.
        event: Event,
    },
    /// The command has ended; nothing follows.
    Ended(Ending),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// What its process ends with.
    pub exit_code: u8,
    /// What went wrong, if anything did.
    pub problem: Option<Problem>,
}

/// An error as it is told, whoever tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// What happened, in one line.
    pub message: String,
    /// What it comes from, the nearest first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Mistakes in a file, each with file, line and column, for programs.
    pub diagnostics: Vec<Value>,
    /// The same mistakes with the lines that they are in, for people: shown in place of all the rest.
    pub shown: Option<String>,
    /// Whether an event has told people already.
    pub told: bool,
}

/// What a viewer tells the supervisor, as a JSON value a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// A person is there who can answer questions.
    Present,
    /// The answer to a question.
    Answer {
        /// The question, as it was asked: another may be open by now.
        question: String,
        /// Whether it is to be done.
        yes: bool,
    },
    /// Stop at the next safe point.
    Stop,
    /// Stop now.
    StopNow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_and_wishes_are_a_line_each_and_are_read_back() {
        let event = Event::Note { stage: None, text: "two\nlines".into() };
        let ending =
            Ending { exit_code: 3, problem: Some(Problem { message: "no".into(), ..Problem::default() }) };
        for news in [News::Event { at: 1.5, event }, News::Ended(ending)] {
            let line = serde_json::to_string(&news).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<News>(&line).unwrap(), news);
        }
        for wish in
            [Wish::Present, Wish::Answer { question: "again?".into(), yes: true }, Wish::Stop, Wish::StopNow]
        {
            let line = serde_json::to_string(&wish).unwrap();
            assert_eq!(serde_json::from_str::<Wish>(&line).unwrap(), wish);
        }
    }
}
