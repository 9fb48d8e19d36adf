use std::time::Duration;

use serde_json::{Value, json};

use super::*;

const ALL: [Protocol; 5] =
    [Protocol::OpenAi, Protocol::Groq, Protocol::Mistral, Protocol::Gemini, Protocol::Anthropic];

fn endpoint(protocol: Protocol) -> Endpoint {
    let key = Some(Secret::new("the-key-itself"));
    Endpoint { protocol, url: "http://127.0.0.1:9/v1/".into(), model: "m/1".into(), key }
}

fn body_of(request: &HttpRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

fn sent(protocol: Protocol) -> (HttpRequest, Value) {
    let prompt = Prompt { system: "answer as JSON".into(), user: "the log".into() };
    let request = request(&endpoint(protocol), &prompt, 700);
    let body = body_of(&request);
    (request, body)
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.reveal())
}

fn answer(protocol: Protocol, status: u16, headers: &[(&str, &str)], body: &str) -> Result<Reply, Trouble> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let now = "2026-03-01T12:00:00Z".parse().unwrap();
    read(protocol, &HttpReply { status, headers, body: body.as_bytes().to_vec() }, now)
}

fn limited(after: Option<u64>, retryable: bool) -> Result<Reply, Trouble> {
    Err(Trouble::RateLimited { after: after.map(Duration::from_millis), retryable })
}

#[test]
fn protocols_read_back() {
    for protocol in ALL {
        assert_eq!(protocol.name().parse(), Ok(protocol));
    }
    assert_eq!("xAI".parse(), Ok(Protocol::OpenAi));
    assert!("smtp".parse::<Protocol>().is_err());
}

#[test]
fn the_key_is_in_a_header_and_nowhere_else() {
    for protocol in ALL {
        let (request, body) = sent(protocol);
        assert!(!request.url.contains("the-key") && !body.to_string().contains("the-key"));
        assert!(!format!("{request:?} {:?}", endpoint(protocol)).contains("the-key"), "{request:?}");
        let name = match protocol {
            Protocol::Gemini => "x-goog-api-key",
            Protocol::Anthropic => "x-api-key",
            _ => "authorization",
        };
        assert!(header(&request, name).unwrap().ends_with("the-key-itself"));
        let mut open = endpoint(protocol);
        open.key = None;
        let request = super::request(&open, &Prompt { system: String::new(), user: String::new() }, 1);
        assert_eq!(header(&request, name), None);
    }
}

#[test]
fn each_provider_is_asked_in_its_own_form() {
    let (request, body) = sent(Protocol::OpenAi);
    assert_eq!(request.url, "http://127.0.0.1:9/v1/chat/completions");
    assert_eq!((&body["max_tokens"], &body["response_format"]["type"]), (&json!(700), &json!("json_object")));
    let (_, body) = sent(Protocol::Groq);
    assert_eq!((&body["max_completion_tokens"], &body["max_tokens"]), (&json!(700), &Value::Null));
    let (_, body) = sent(Protocol::Mistral);
    assert_eq!((&body["max_tokens"], &body["response_format"]["type"]), (&json!(700), &json!("json_object")));
    assert!(body["messages"][0]["content"].as_str().unwrap().contains("JSON"));
    let (request, body) = sent(Protocol::Gemini);
    assert_eq!(request.url, "http://127.0.0.1:9/v1/models/m%2F1:generateContent");
    assert_eq!(body["generationConfig"]["responseMimeType"], "application/json");
    let (request, body) = sent(Protocol::Anthropic);
    assert_eq!(header(&request, "anthropic-version"), Some("2023-06-01"));
    assert_eq!((&body["max_tokens"], &body["system"]), (&json!(700), &json!("answer as JSON")));
    let mut thinking = endpoint(Protocol::Groq);
    thinking.model = "openai/gpt-oss-120b".into();
    let body =
        body_of(&super::request(&thinking, &Prompt { system: String::new(), user: String::new() }, 700));
    assert_eq!((&body["reasoning_effort"], &body["max_completion_tokens"]), (&json!("low"), &json!(2_200)));
}

fn chat(finish: &str, content: &Value) -> String {
    json!({ "choices": [{ "finish_reason": finish, "message": { "content": content } }],
            "usage": { "prompt_tokens": 11, "completion_tokens": 5 } })
    .to_string()
}

fn generated(finish: &str) -> String {
    json!({
        "candidates": [{ "finishReason": finish, "content": { "parts": [
            { "text": "hm", "thought": true }, { "text": "{\"a\"" }, { "text": ":1}" },
        ] } }],
        "usageMetadata": { "promptTokenCount": 11, "candidatesTokenCount": 3, "thoughtsTokenCount": 2 },
    })
    .to_string()
}

fn message(stop: &str) -> String {
    json!({ "stop_reason": stop, "usage": { "input_tokens": 11, "output_tokens": 5 }, "content": [
        { "type": "thinking", "thinking": "hm" }, { "type": "text", "text": "{\"a\":1}" },
    ] })
    .to_string()
}

#[test]
fn what_ends_normally_is_a_reply_and_nothing_else_is() {
    let good = Ok(Reply { text: "{\"a\":1}".into(), tokens_in: 11, tokens_out: 5 });
    for protocol in [Protocol::OpenAi, Protocol::Groq, Protocol::Mistral] {
        assert_eq!(answer(protocol, 200, &[], &chat("stop", &json!("{\"a\":1}"))), good);
        let parts = json!([{ "type": "thinking", "thinking": [] }, { "type": "text", "text": "{\"a\":1}" }]);
        assert_eq!(answer(protocol, 200, &[], &chat("stop", &parts)), good);
        assert_eq!(answer(protocol, 200, &[], &chat("length", &json!("{"))), Err(Trouble::Truncated));
        let filtered = answer(protocol, 200, &[], &chat("content_filter", &json!("")));
        assert!(matches!(filtered, Err(Trouble::Refused(_))));
        for finish in ["error", "tool_calls"] {
            let other = answer(protocol, 200, &[], &chat(finish, &json!("{\"a\":1}")));
            assert!(matches!(other, Err(Trouble::Malformed(_))));
        }
    }
    assert_eq!(answer(Protocol::Gemini, 200, &[], &generated("STOP")), good);
    assert_eq!(answer(Protocol::Gemini, 200, &[], &generated("MAX_TOKENS")), Err(Trouble::Truncated));
    for finish in ["SAFETY", "RECITATION", "OTHER", "FINISH_REASON_UNSPECIFIED"] {
        let refused = answer(Protocol::Gemini, 200, &[], &generated(finish));
        assert!(matches!(refused, Err(Trouble::Refused(_))), "{finish}");
    }
    let blocked = answer(Protocol::Gemini, 200, &[], r#"{"promptFeedback":{"blockReason":"OTHER"}}"#);
    assert!(matches!(blocked, Err(Trouble::Refused(_))));
    assert_eq!(answer(Protocol::Anthropic, 200, &[], &message("end_turn")), good);
    assert_eq!(answer(Protocol::Anthropic, 200, &[], &message("max_tokens")), Err(Trouble::Truncated));
    let refused = answer(Protocol::Anthropic, 200, &[], &message("refusal"));
    assert!(matches!(refused, Err(Trouble::Refused(_))));
    for stop in ["pause_turn", "tool_use"] {
        let other = answer(Protocol::Anthropic, 200, &[], &message(stop));
        assert!(matches!(other, Err(Trouble::Malformed(_))), "{stop}");
    }
}

#[test]
fn a_refusal_in_a_field_of_its_own_counts() {
    let body = json!({ "choices": [{ "finish_reason": "stop",
        "message": { "content": null, "refusal": "I cannot help" } }] });
    let refused = answer(Protocol::OpenAi, 200, &[], &body.to_string());
    assert_eq!(refused, Err(Trouble::Refused("I cannot help".into())));
}

#[test]
fn broken_bodies_are_no_reply() {
    for protocol in ALL {
        for body in ["", " ", "\n\n\n", "{", "<html>", "[]", "{}", "null", "\"x\"", r#"{"choices":[]}"#] {
            let read = answer(protocol, 200, &[], body);
            assert!(matches!(read, Err(Trouble::Malformed(_))), "{protocol} {body:?} {read:?}");
        }
    }
    let empty = answer(Protocol::Groq, 200, &[], &chat("stop", &json!("  \n ")));
    assert!(matches!(empty, Err(Trouble::Malformed(_))));
}

#[test]
fn limits_are_told_apart_by_whether_waiting_helps() {
    let retry = [("retry-after", "2")];
    let plain = r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","code":"1300"}"#;
    assert_eq!(answer(Protocol::Mistral, 429, &[], plain), limited(None, true));
    let cap = r#"{"message":"Your workspace reached its usage limit for this month"}"#;
    assert_eq!(answer(Protocol::Mistral, 429, &retry, cap), limited(Some(2_000), false));
    let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
    assert_eq!(answer(Protocol::OpenAi, 429, &[], quota), limited(None, false));
    let said = r#"{"error":{"message":"Limit 15000, Used 11972. Please try again in 5.289s. Visit x"}}"#;
    assert_eq!(answer(Protocol::Groq, 429, &[], said), limited(Some(5_289), true));
    assert_eq!(answer(Protocol::Groq, 429, &retry, said), limited(Some(2_000), true));
    assert_eq!(answer(Protocol::Anthropic, 429, &retry, "{}"), limited(Some(2_000), true));
    let credit = r#"{"type":"error","error":{"message":"Your credit balance is too low"}}"#;
    assert_eq!(answer(Protocol::Anthropic, 400, &[], credit), limited(None, false));
}

#[test]
fn gemini_says_its_delay_in_the_body() {
    let body = |details: Value| {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        json!({ "error": { "code": 429, "message": message, "details": details } })
    };
    let info =
        |delay: &str| json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay });
    let quota = |id: &str| json!({ "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{ "quotaId": id }] });
    let ask = |body: &Value| answer(Protocol::Gemini, 429, &[], &body.to_string());
    assert_eq!(
        ask(&body(json!([info("34.074824224s")]))),
        Err(Trouble::RateLimited { after: Some(Duration::from_nanos(34_074_824_224)), retryable: true })
    );
    assert_eq!(
        ask(&body(json!([info("2s"), quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")]))),
        limited(Some(2_000), true)
    );
    assert_eq!(
        ask(&body(json!([info("2s"), quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")]))),
        limited(Some(2_000), false)
    );
    assert_eq!(ask(&body(json!([]))), limited(None, true));
    assert_eq!(ask(&json!([body(json!([info("1s")]))])), limited(Some(1_000), true));
    let said = json!({ "error": { "message": "Quota exceeded. Please retry in 1.5s." } });
    assert_eq!(ask(&said), limited(Some(1_500), true));
}

#[test]
fn other_errors_say_what_to_do() {
    let of = |protocol, status, body: &str| answer(protocol, status, &[], body).unwrap_err();
    assert_eq!(of(Protocol::Groq, 413, ""), Trouble::TooLarge);
    assert_eq!(of(Protocol::Anthropic, 529, ""), Trouble::Overloaded { after: None });
    assert_eq!(of(Protocol::Gemini, 503, ""), Trouble::Overloaded { after: None });
    assert_eq!(of(Protocol::Mistral, 500, "<html>"), Trouble::Server { status: 500, after: None });
    assert_eq!(of(Protocol::OpenAi, 401, "{}"), Trouble::Auth { status: 401 });
    let bad_key = r#"{"error":{"message":"API key not valid.","status":"INVALID_ARGUMENT"}}"#;
    assert_eq!(of(Protocol::Gemini, 400, bad_key), Trouble::Auth { status: 400 });
    let unknown = of(Protocol::OpenAi, 404, r#"{"error":{"message":"no model for me@example.org"}}"#);
    assert_eq!(unknown, Trouble::Rejected { status: 404, said: "no model for [e-mail]".into() });
    assert!(unknown.is_permanent() && !unknown.may_pass());
    assert!(matches!(of(Protocol::OpenAi, 307, ""), Trouble::Rejected { status: 307, .. }));
    assert!(of(Protocol::Groq, 400, r#"{"error":{"code":"json_validate_failed"}}"#).is_void_answer());
    assert!(of(Protocol::OpenAi, 502, "").may_pass() && !of(Protocol::OpenAi, 502, "").is_permanent());
}

#[test]
fn a_key_that_is_repeated_and_a_count_that_cannot_be_are_not_believed() {
    let endpoint = Endpoint {
        protocol: Protocol::OpenAi,
        url: "http://127.0.0.1:1/v1".into(),
        model: "m".into(),
        key: Some(Secret::new("hunter2")),
    };
    let reply =
        |status, body: &str| HttpReply { status, headers: Vec::new(), body: body.as_bytes().to_vec() };
    let refused = reply(400, r#"{"error":{"message":"bad key hunter2"}}"#);
    let trouble = read_from(&endpoint, &refused, jiff::Timestamp::UNIX_EPOCH).unwrap_err().to_string();
    assert!(trouble.contains("bad key") && !trouble.contains("hunter2"), "{trouble}");
    let greedy = reply(
        200,
        r#"{"choices":[{"finish_reason":"stop","message":{"content":"x"}}],"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":3}}"#,
    );
    let answer = read_from(&endpoint, &greedy, jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((answer.tokens_in, answer.tokens_out), (10_000_000, 3));
}
