//! Chat completions, as OpenAI, Groq, xAI and local servers have them.

use serde_json::{Value, json};

use super::{Endpoint, Parts, Prompt, Protocol, Reply, Trouble, bearer, reply};

/// Tokens that a model may think before it answers; they count as answer.
const THOUGHTS: u32 = 1_500;

pub(super) fn request(endpoint: &Endpoint, base: &str, prompt: &Prompt, max_tokens: u32) -> Parts {
    let mut body = json!({
        "model": endpoint.model,
        "messages": messages(prompt),
        "response_format": { "type": "json_object" },
        "temperature": 0,
        "stream": false,
    });
    if endpoint.protocol == Protocol::Groq {
        if thoughts(endpoint) > 0 {
            body["reasoning_effort"] = "low".into();
        }
        body["max_completion_tokens"] = super::most_written(endpoint, max_tokens).into();
    } else {
        body["max_tokens"] = max_tokens.into();
    }
    (format!("{base}/chat/completions"), bearer(endpoint), body)
}

/// What Groq's thinking models may think.
pub(super) fn thoughts(endpoint: &Endpoint) -> u32 {
    if endpoint.model.contains("gpt-oss") { THOUGHTS } else { 0 }
}

pub(super) fn messages(prompt: &Prompt) -> Value {
    json!([{ "role": "system", "content": prompt.system }, { "role": "user", "content": prompt.user }])
}

pub(super) fn read(body: &Value) -> Result<Reply, Trouble> {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    if let Some(refusal) = message["refusal"].as_str().filter(|refusal| !refusal.is_empty()) {
        return Err(Trouble::Refused(super::trouble::words(&json!({ "message": refusal }))));
    }
    match choice["finish_reason"].as_str() {
        Some("stop" | "end_turn" | "eos") => {}
        Some("length" | "model_length" | "max_tokens") => return Err(Trouble::Truncated),
        Some(reason @ ("content_filter" | "refusal" | "safety")) => {
            return Err(Trouble::Refused(reason.into()));
        }
        Some(_) => return Err(Trouble::Malformed("it did not end normally".into())),
        None => return Err(Trouble::Malformed("there is no end".into())),
    }
    let usage = &body["usage"];
    reply(text(&message["content"]), &usage["prompt_tokens"], &usage["completion_tokens"])
}

/// Content is text, or parts of which those of type text count: others are thoughts.
fn text(content: &Value) -> String {
    match content {
        Value::Array(parts) => parts
            .iter()
            .filter(|part| part["type"] == "text")
            .filter_map(|part| part["text"].as_str())
            .collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}
