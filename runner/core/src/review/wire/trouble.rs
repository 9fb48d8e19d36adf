//! Why a call gave no answer.

use std::time::Duration;

use serde_json::Value;

use super::super::redact;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Too many calls or tokens.
    #[error("too many requests{}", if *.retryable { "" } else { ", and no more in this build" })]
    RateLimited {
        /// How long to wait at least, if it said so.
        after: Option<Duration>,
        /// Whether waiting helps within a build: not for a quota of the day, of a workspace, of money.
        retryable: bool,
    },
    /// It has too much to do.
    #[error("it is overloaded")]
    Overloaded {
        /// How long to wait at least, if it said so.
        after: Option<Duration>,
    },
    /// It failed.
    #[error("it answers {status}")]
    Server {
        /// The status.
        status: u16,
        /// How long to wait at least, if it said so.
        after: Option<Duration>,
    },
    /// The key is wrong or may not do this.
    #[error("it refuses the key ({status})")]
    Auth {
        /// The status.
        status: u16,
    },
    /// The question is too long for it.
    #[error("the question is too long for it")]
    TooLarge,
    /// It does not take such questions: a wrong address, a model that it does not have.
    #[error("it answers {status}: {said}")]
    Rejected {
        /// The status.
        status: u16,
        /// Its words, shortened and redacted.
        said: String,
    },
    /// The model declines.
    #[error("the model declines: {0}")]
    Refused(String),
    /// The answer was cut off.
    #[error("the answer is cut off")]
    Truncated,
    /// The answer does not read.
    #[error("the answer does not read: {0}")]
    Malformed(String),
    /// The answer does not end.
    #[error("the answer is longer than {0} bytes")]
    Endless(usize),
    /// Nobody is there, or hangs up.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
}

impl Trouble {
    /// Whether the same call may do better a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::RateLimited { retryable, .. } => *retryable,
            Self::Overloaded { .. } | Self::Server { .. } | Self::Unreachable(_) => true,
            _ => false,
        }
    }

    /// How long the provider asks to be left alone.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after, .. } | Self::Overloaded { after } | Self::Server { after, .. } => {
                *after
            }
            _ => None,
        }
    }

    /// Whether no call to this provider can do better in this build.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Auth { .. } | Self::Rejected { .. } | Self::RateLimited { retryable: false, .. })
    }

    /// Whether the model answered, but not with something that counts as a vote.
    pub fn is_void_answer(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Truncated | Self::Malformed(_) | Self::Endless(_))
    }
}

/// Words for limits that no waiting within a build lifts.
const LASTING: [&str; 12] = [
    "insufficient_quota",
    "billing",
    "credit balance",
    "credits",
    "monthly",
    "per day",
    "perday",
    "spend",
    "usage limit",
    "usage cap",
    "workspace",
    "current quota",
];

/// What an answer with an error's status means, in the forms of OpenAI, Groq, Mistral and Anthropic.
pub(super) fn of(status: u16, body: &Value, after: Option<Duration>) -> Trouble {
    let words = words(body);
    let all = body.to_string().to_ascii_lowercase();
    let lasting = LASTING.iter().any(|word| all.contains(word));
    let says = |word: &str| all.contains(word);
    match status {
        401 | 403 => Trouble::Auth { status },
        402 => Trouble::RateLimited { after: None, retryable: false },
        429 => Trouble::RateLimited { after: after.or_else(|| said_delay(&words)), retryable: !lasting },
        413 => Trouble::TooLarge,
        // 529 is Anthropic's, 498 Groq's.
        498 | 503 | 529 => Trouble::Overloaded { after },
        400 if says("credit balance") => Trouble::RateLimited { after: None, retryable: false },
        400 if says("api key") || says("api_key_invalid") => Trouble::Auth { status },
        // Groq's JSON mode found that the model wrote none.
        400 if says("json_validate_failed") => Trouble::Malformed("the model wrote no JSON".into()),
        400 if says("too long") || says("context_length") || says("maximum context") => Trouble::TooLarge,
        408 | 409 | 425 | 500.. => Trouble::Server { status, after },
        _ => Trouble::Rejected { status, said: words },
    }
}

/// The message of an error's body, one line, short and redacted.
pub(super) fn words(body: &Value) -> String {
    let error = if body["error"].is_null() { body } else { &body["error"] };
    let text = [&error["message"], &body["detail"], error].into_iter().find_map(Value::as_str);
    let text: String = text
        .unwrap_or("no reason given")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    redact(text.trim()).into_owned()
}

/// "Please try again in 5.289s."
pub(super) fn said_delay(words: &str) -> Option<Duration> {
    let (_, rest) = words.split_once("try again in ")?;
    super::duration(rest.split_whitespace().next()?.trim_end_matches(['.', ',']))
}

/// Where and how JSON ends early, without the text itself.
pub(super) fn json_fault(error: &serde_json::Error) -> String {
    if error.is_eof() { "the JSON is cut off".into() } else { format!("no JSON at line {}", error.line()) }
}
