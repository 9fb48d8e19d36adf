//! Gemini's `generateContent`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Endpoint, HttpReply, Parts, Prompt, Reply, Secret, Trouble, reply, trouble};

/// Tokens that a model may think before it answers; they count against the limit.
pub(super) const THOUGHTS: u32 = 3_000;

pub(super) fn request(endpoint: &Endpoint, base: &str, prompt: &Prompt, max_tokens: u32) -> Parts {
    let body = json!({
        "systemInstruction": { "parts": [{ "text": prompt.system }] },
        "contents": [{ "role": "user", "parts": [{ "text": prompt.user }] }],
        "generationConfig": {
            "maxOutputTokens": super::most_written(endpoint, max_tokens),
            "responseMimeType": "application/json",
            "temperature": 0,
        },
    });
    let key = endpoint.key.as_ref().map(|key| ("x-goog-api-key", key.clone()));
    let model = endpoint.model.strip_prefix("models/").unwrap_or(&endpoint.model);
    (
        format!("{base}/models/{}:generateContent", escaped(model)),
        key.into_iter().collect::<Vec<(_, Secret)>>(),
        body,
    )
}

/// A model's name as a part of an address.
fn escaped(model: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    model
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(super) fn read(body: &Value) -> Result<Reply, Trouble> {
    if let Some(reason) = body["promptFeedback"]["blockReason"].as_str() {
        return Err(Trouble::Refused(trouble::words(&json!({ "message": reason }))));
    }
    let candidate = &body["candidates"][0];
    match candidate["finishReason"].as_str() {
        Some("STOP") => {}
        Some("MAX_TOKENS") => return Err(Trouble::Truncated),
        Some(reason) => return Err(Trouble::Refused(trouble::words(&json!({ "message": reason })))),
        None => return Err(Trouble::Malformed("there is no end".into())),
    }
    let parts = candidate["content"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = parts.iter().filter(|part| part["thought"] != true);
    let text: String = said.filter_map(|part| part["text"].as_str()).collect();
    let usage = &body["usageMetadata"];
    let count = |name: &str| usage[name].as_u64().unwrap_or_default();
    let written = count("candidatesTokenCount") + count("thoughtsTokenCount");
    reply(text, &usage["promptTokenCount"], &written.into())
}

pub(super) fn trouble(reply: &HttpReply, body: &Value, after: Option<Duration>) -> Trouble {
    // Some errors come inside an array.
    let body = if body.is_array() { &body[0] } else { body };
    let details = body["error"]["details"].as_array().map(Vec::as_slice).unwrap_or_default();
    if reply.status == 429 {
        let given = details.iter().find_map(|detail| super::duration(detail["retryDelay"].as_str()?));
        let is_daily =
            |violation: &Value| violation["quotaId"].as_str().is_some_and(|id| id.contains("PerDay"));
        let violations = details.iter().filter_map(|detail| detail["violations"].as_array()).flatten();
        let mut violations = violations.peekable();
        // "Check your current quota" is said of quotas of the minute too.
        let retryable = violations.peek().is_none() || !violations.any(is_daily);
        return Trouble::RateLimited { after: given.or(after).or_else(|| said(body)), retryable };
    }
    trouble::of(reply.status, body, after)
}

/// "Please retry in 34.07s."
fn said(body: &Value) -> Option<Duration> {
    let (_, rest) = body["error"]["message"].as_str()?.split_once("retry in ")?;
    super::duration(rest.split_whitespace().next()?.trim_end_matches(['.', ',']))
}
