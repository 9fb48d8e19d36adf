//! Reading what a seat answered.

use serde::{Deserialize, Serialize};

use super::line::is_hidden;
use super::{Action, Excerpt, Seat, redact};

/// Most characters that are kept of a cause or a cure.
const MOST_WORDS: usize = 400;

/// What a seat says, and who said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The seat.
    pub seat: Seat,
    /// Who held it.
    pub provider: String,
    /// Which model that was.
    pub model: String,
    /// What it says.
    #[serde(flatten)]
    pub reading: Reading,
}

/// A valid answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// What it would do.
    pub action: Action,
    /// The line it points at, as it stands in the excerpt; empty for a stage that is good.
    pub quote: String,
    /// That line's number in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What it takes for the cause.
    pub cause: String,
    /// What it would have a person do.
    pub cure: String,
    /// How sure it is, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
}

/// Why an answer is not a vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVote {
    /// It is not one JSON object.
    #[error("the answer is not one JSON object")]
    NotJson,
    /// It is one, but not with the fields that were asked for.
    #[error("the answer does not have the fields asked for: {0}")]
    Schema(String),
    /// There is no such action.
    #[error("the answer chooses {0:?}, which is not an action")]
    UnknownAction(String),
    /// The action exists, but was not offered.
    #[error("the answer chooses {0}, which was not allowed")]
    NotAllowed(Action),
    /// It points at nothing.
    #[error("the answer quotes no line of the log")]
    NoQuote,
    /// It points at something that the log does not say.
    #[error("the answer quotes what is not in the log")]
    Ungrounded,
}

/// The fields that were asked for. More are not looked at.
#[derive(Deserialize)]
struct Answer {
    action: String,
    quote: String,
    cause: String,
    cure: String,
    #[serde(default)]
    confidence: Option<f64>,
}

/// Reads an answer: one JSON object, perhaps in a fence, that chooses what was allowed and quotes a line of the
/// excerpt.
pub fn read_vote(text: &str, excerpt: &Excerpt, allowed: &[Action]) -> Result<Reading, InvalidVote> {
    let text = unfenced(text.trim());
    if !(text.starts_with('{') && text.ends_with('}')) {
        return Err(InvalidVote::NotJson);
    }
    let answer: Answer = serde_json::from_str(text).map_err(|error| {
        if error.is_data() {
            InvalidVote::Schema(shortened(&error.to_string()))
        } else {
            InvalidVote::NotJson
        }
    })?;
    let confidence = match answer.confidence {
        Some(given) if !(0.0..=1.0).contains(&given) => {
            return Err(InvalidVote::Schema("confidence is not between 0 and 1".into()));
        }
        // It is between 0 and 100.
        given => given.map(|given| (given * 100.0).round() as u8),
    };
    let action: Action =
        answer.action.trim().parse().map_err(|_| InvalidVote::UnknownAction(shortened(&answer.action)))?;
    if !allowed.contains(&action) {
        return Err(InvalidVote::NotAllowed(action));
    }
    let (quote, line) = match answer.quote.trim() {
        "" if action == Action::None => (String::new(), None),
        "" => return Err(InvalidVote::NoQuote),
        quote => {
            let (text, number) = grounded(quote, excerpt).ok_or(InvalidVote::Ungrounded)?;
            (text.to_owned(), Some(number))
        }
    };
    let cause = shortened(&answer.cause);
    if cause.is_empty() {
        return Err(InvalidVote::Schema("cause is empty".into()));
    }
    Ok(Reading { action, quote, line, cause, cure: shortened(&answer.cure), confidence })
}

/// The inside of a ```` ```json ```` fence; text without one as it is.
fn unfenced(text: &str) -> &str {
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inside.map_or(text, |inside| inside.strip_prefix("json").unwrap_or(inside).trim())
}

/// The line that a quote repeats, and its number. The number and the count that the excerpt shows around a line
/// may be repeated too.
fn grounded<'a>(quote: &str, excerpt: &'a Excerpt) -> Option<(&'a str, u64)> {
    if let Some(line) = excerpt.find(quote) {
        return Some((line.text.trim(), line.number));
    }
    let shown = excerpt.lines.iter().find(|line| {
        let whole = line.render();
        let text = line.text.trim();
        let mut with_number = quote.splitn(2, char::is_whitespace);
        let numbered = with_number.next() == Some(line.number.to_string().as_str())
            && with_number.next().is_some_and(|rest| rest.trim() == text);
        let counted = || quote.strip_prefix(text).is_some_and(|rest| whole.ends_with(rest));
        !text.is_empty() && (numbered || whole.trim() == quote || counted())
    })?;
    Some((shown.text.trim(), shown.number))
}

/// Words of an agent as they may be kept: one line, not long, with nothing that must not be stored.
fn shortened(text: &str) -> String {
    let mut clean: String = text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    if let Some((end, _)) = clean.char_indices().nth(MOST_WORDS) {
        clean.truncate(end);
        clean.push('…');
    }
    redact(clean.trim()).into_owned()
}

#[cfg(test)]
#[path = "vote_tests.rs"]
mod tests;
