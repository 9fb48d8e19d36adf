//! Anthropic's messages.

use serde_json::{Value, json};

use super::{Endpoint, Parts, Prompt, Reply, Secret, Trouble, reply, trouble};

const VERSION: &str = "2023-06-01";

pub(super) fn request(endpoint: &Endpoint, base: &str, prompt: &Prompt, max_tokens: u32) -> Parts {
    let body = json!({
        "model": endpoint.model,
        "max_tokens": max_tokens,
        "system": prompt.system,
        "messages": [{ "role": "user", "content": prompt.user }],
    });
    let mut headers = vec![("anthropic-version", Secret::new(VERSION))];
    headers.extend(endpoint.key.as_ref().map(|key| ("x-api-key", key.clone())));
    (format!("{base}/messages"), headers, body)
}

pub(super) fn read(body: &Value) -> Result<Reply, Trouble> {
    match body["stop_reason"].as_str() {
        Some("end_turn" | "stop_sequence") => {}
        Some("max_tokens" | "model_context_window_exceeded") => return Err(Trouble::Truncated),
        Some(reason @ "refusal") => return Err(Trouble::Refused(reason.into())),
        Some(reason) => return Err(Trouble::Malformed(trouble::words(&json!({ "message": reason })))),
        None => return Err(Trouble::Malformed("there is no end".into())),
    }
    // A block of thoughts may come first.
    let blocks = body["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = blocks.iter().filter(|block| block["type"] == "text");
    let text: String = said.filter_map(|block| block["text"].as_str()).collect();
    reply(text, &body["usage"]["input_tokens"], &body["usage"]["output_tokens"])
}
