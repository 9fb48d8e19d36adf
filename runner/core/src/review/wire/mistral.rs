//! Mistral's chat completions. JSON mode needs the word JSON in the prompt, which every prompt has.

use serde_json::{Value, json};

use super::{Endpoint, Parts, Prompt, Reply, Trouble, bearer, openai};

pub(super) fn request(endpoint: &Endpoint, base: &str, prompt: &Prompt, max_tokens: u32) -> Parts {
    let body = json!({
        "model": endpoint.model,
        "messages": openai::messages(prompt),
        "response_format": { "type": "json_object" },
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": false,
    });
    (format!("{base}/chat/completions"), bearer(endpoint), body)
}

pub(super) fn read(body: &Value) -> Result<Reply, Trouble> {
    openai::read(body)
}
