//! How questions and answers travel: what each provider wants to be sent, and how its replies read. No connection
//! is made here.

mod anthropic;
mod delay;
mod gemini;
mod mistral;
mod openai;
mod trouble;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use delay::{delay_of, duration};
pub use trouble::Trouble;

use super::{Prompt, Secret};

/// The forms that providers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Chat completions as OpenAI has them; xAI and local servers too.
    OpenAi,
    /// The same, with Groq's differences.
    Groq,
    /// The same, with Mistral's differences.
    Mistral,
    /// `generateContent`.
    Gemini,
    /// Messages.
    Anthropic,
}

impl Protocol {
    /// Its name in variables and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Groq => "groq",
            Self::Mistral => "mistral",
            Self::Gemini => "gemini",
            Self::Anthropic => "anthropic",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a protocol; there are openai, xai, groq, mistral, gemini and anthropic")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text.to_ascii_lowercase().as_str() {
            "openai" | "xai" => Ok(Self::OpenAi),
            "groq" => Ok(Self::Groq),
            "mistral" => Ok(Self::Mistral),
            "gemini" => Ok(Self::Gemini),
            "anthropic" => Ok(Self::Anthropic),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// Where a model is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The form it speaks.
    pub protocol: Protocol,
    /// Its address, up to and with the version: what comes before `/chat/completions`, `/models/…` or `/messages`.
    pub url: String,
    /// The model.
    pub model: String,
    /// The key, where one is needed.
    pub key: Option<Secret>,
}

/// What is sent, by POST.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The address; never holds a key.
    pub url: String,
    /// Headers. They hold the key and are never shown.
    pub headers: Vec<(&'static str, Secret)>,
    /// JSON.
    pub body: Vec<u8>,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("url", &self.url)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// Headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpReply {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What a model said, and what it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Its words.
    pub text: String,
    /// Tokens it read.
    pub tokens_in: u64,
    /// Tokens it wrote, thoughts included.
    pub tokens_out: u64,
}

/// What to send to ask a model.
pub fn request(endpoint: &Endpoint, prompt: &Prompt, max_tokens: u32) -> HttpRequest {
    let base = endpoint.url.trim_end_matches('/');
    let (url, mut headers, body) = match endpoint.protocol {
        Protocol::OpenAi | Protocol::Groq => openai::request(endpoint, base, prompt, max_tokens),
        Protocol::Mistral => mistral::request(endpoint, base, prompt, max_tokens),
        Protocol::Gemini => gemini::request(endpoint, base, prompt, max_tokens),
        Protocol::Anthropic => anthropic::request(endpoint, base, prompt, max_tokens),
    };
    headers.push(("content-type", Secret::new("application/json")));
    HttpRequest { url, headers, body: body.to_string().into_bytes() }
}

/// Most tokens that a model may write for an answer of `max_tokens`: its thoughts count too.
pub fn most_written(endpoint: &Endpoint, max_tokens: u32) -> u32 {
    let thoughts = match endpoint.protocol {
        Protocol::Groq => openai::thoughts(endpoint),
        Protocol::Gemini => gemini::THOUGHTS,
        Protocol::OpenAi | Protocol::Mistral | Protocol::Anthropic => 0,
    };
    max_tokens.saturating_add(thoughts)
}

/// More tokens than any call can take.
const MOST_TOKENS: u64 = 10_000_000;

/// Reads an endpoint's reply. A key that it repeats is not repeated to anybody, and no count of tokens is believed that no
/// model could reach.
pub fn read_from(endpoint: &Endpoint, reply: &HttpReply, now: jiff::Timestamp) -> Result<Reply, Trouble> {
    let body = match endpoint.key.as_ref().map(Secret::reveal) {
        Some(key) if !key.is_empty() && memchr::memmem::find(&reply.body, key.as_bytes()).is_some() => {
            String::from_utf8_lossy(&reply.body).replace(key, "[secret]").into_bytes()
        }
        _ => reply.body.clone(),
    };
    let answer = read(endpoint.protocol, &HttpReply { body, ..reply.clone() }, now)?;
    let (tokens_in, tokens_out) = (answer.tokens_in.min(MOST_TOKENS), answer.tokens_out.min(MOST_TOKENS));
    Ok(Reply { tokens_in, tokens_out, ..answer })
}

/// Reads what came back. `now` is for delays that are given as a date.
fn read(protocol: Protocol, reply: &HttpReply, now: jiff::Timestamp) -> Result<Reply, Trouble> {
    if (300..400).contains(&reply.status) {
        return Err(Trouble::Rejected { status: reply.status, said: "it sends elsewhere".into() });
    }
    let json = serde_json::from_slice::<serde_json::Value>(&reply.body);
    if reply.status >= 400 {
        let body = json.unwrap_or_default();
        let after = delay_of(reply, now);
        return Err(match protocol {
            Protocol::Gemini => gemini::trouble(reply, &body, after),
            _ => trouble::of(reply.status, &body, after),
        });
    }
    let body = json.map_err(|error| Trouble::Malformed(trouble::json_fault(&error)))?;
    match protocol {
        Protocol::OpenAi | Protocol::Groq => openai::read(&body),
        Protocol::Mistral => mistral::read(&body),
        Protocol::Gemini => gemini::read(&body),
        Protocol::Anthropic => anthropic::read(&body),
    }
}

/// What a provider's module says of a request.
type Parts = (String, Vec<(&'static str, Secret)>, serde_json::Value);

fn bearer(endpoint: &Endpoint) -> Vec<(&'static str, Secret)> {
    let key = endpoint.key.as_ref();
    key.map(|key| ("authorization", Secret::new(format!("Bearer {}", key.reveal())))).into_iter().collect()
}

/// Words and counts as a reply; words that are empty are none.
fn reply(
    text: String,
    tokens_in: &serde_json::Value,
    tokens_out: &serde_json::Value,
) -> Result<Reply, Trouble> {
    if text.trim().is_empty() {
        return Err(Trouble::Malformed("the answer is empty".into()));
    }
    let count = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    Ok(Reply { text, tokens_in: count(tokens_in), tokens_out: count(tokens_out) })
}

#[cfg(test)]
mod tests;
