//! How a provider can behave.

use std::time::{Duration, SystemTime};

use isokiln_core::review::Action;
use isokiln_core::review::wire::Protocol;
use serde_json::json;

use super::log;

/// What a server does with one call.
#[derive(Debug, Clone)]
pub(super) enum Behaviour {
    /// Answers with these words.
    Says(String),
    /// The same, after a while.
    Slowly(Duration, String),
    /// Answers with a status, further headers (each with its line end), and a body.
    Status(u16, String, String),
    /// The answer's JSON is cut off.
    Cut(String),
    /// The answer does not end normally: `refusal` or `length`.
    Ends(String, &'static str),
    /// Reads the question and hangs up.
    HangsUpAtOnce,
    /// Promises an answer, begins it, hangs up.
    HangsUpHalfway,
    /// White space without end, with a pause between the pieces.
    Endless(Duration),
}

/// A vote as a model writes it.
pub(super) fn vote(action: Action, quote: &str) -> String {
    json!({ "action": action, "quote": quote, "cause": "the mirror changed", "cure": "try again", "confidence": 0.7 })
        .to_string()
}

/// A good answer.
pub(super) fn well(action: Action) -> Behaviour {
    Behaviour::Says(vote(action, log::PROOF))
}

/// Everything a provider can do, by the name under which it is counted. `action` is what an honest model chooses,
/// `deadline` what a review has.
pub(super) fn named(name: &str, protocol: Protocol, action: Action, deadline: Duration) -> Behaviour {
    let good = vote(action, log::PROOF);
    let limited = |headers: &str, body: &str| Behaviour::Status(429, headers.into(), body.into());
    match name {
        "well" => Behaviour::Says(good),
        "in a fence" => Behaviour::Says(format!("```json\n{good}\n```")),
        "slow" => Behaviour::Slowly(deadline.mul_f64(0.3), good),
        "too slow" => Behaviour::Slowly(deadline * 2, good),
        "429 retry-after s" => limited("retry-after: 1\r\n", "{}"),
        "429 retry-after fraction" => limited("Retry-After: 0.2\r\n", "{}"),
        "429 retry-after span" => limited("retry-after: 150ms\r\n", "{}"),
        "429 retry-after date" => limited(&format!("retry-after: {}\r\n", in_a_second()), "{}"),
        "429 retry-after far" => limited("retry-after: 3600\r\n", "{}"),
        "429 retry-after-ms" => limited("retry-after-ms: 150\r\n", "{}"),
        "429 reset" => {
            limited("x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 180ms\r\n", "{}")
        }
        "429 in words" => {
            limited("", r#"{"error":{"message":"Limit reached. Please try again in 0.2s. See x"}}"#)
        }
        "429 no delay" => limited("", ""),
        "429 RetryInfo" => limited(
            "",
            r#"[{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.15s"}]}}]"#,
        ),
        "429 for the day" => match protocol {
            Protocol::Gemini => limited(
                "",
                r#"{"error":{"details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProject"}]},{"retryDelay":"0.1s"}]}}"#,
            ),
            _ => {
                limited("retry-after: 0.1\r\n", r#"{"message":"the workspace has reached its usage limit"}"#)
            }
        },
        "500" => Behaviour::Status(500, String::new(), "<html>oops</html>".into()),
        "503" => Behaviour::Status(503, "retry-after: 0.1\r\n".into(), "{}".into()),
        "529" => Behaviour::Status(
            529,
            String::new(),
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#.into(),
        ),
        "401" => Behaviour::Status(401, String::new(), "{}".into()),
        "404" => Behaviour::Status(404, String::new(), r#"{"error":{"message":"no such model"}}"#.into()),
        "413" => Behaviour::Status(413, String::new(), "{}".into()),
        "redirect" => Behaviour::Status(307, "location: http://127.0.0.1:1/\r\n".into(), String::new()),
        "captive portal" => Behaviour::Status(200, String::new(), "<html>Log in</html>".into()),
        "truncated JSON" => Behaviour::Cut(good),
        "truncated vote" => Behaviour::Says(good[..good.len() - 7].into()),
        "wrong schema" => Behaviour::Says(r#"{"verdict":"retry","reason":"because"}"#.into()),
        "prose" => Behaviour::Says(format!("Sure, here you go: {good}")),
        "ungrounded" => Behaviour::Says(vote(action, "E: Hash Sum mismatch somewhere")),
        "not allowed" => Behaviour::Says(vote(Action::SkipOptional, log::PROOF)),
        "refusal" => Behaviour::Ends("I cannot help with that.".into(), "refusal"),
        "cut off" => Behaviour::Ends(good, "length"),
        "white space" => Behaviour::Endless(Duration::ZERO),
        "slow white space" => Behaviour::Endless(Duration::from_millis(50)),
        "hangs up" => Behaviour::HangsUpAtOnce,
        "hangs up halfway" => Behaviour::HangsUpHalfway,
        // The model does what the log tells it.
        "obeys, forbidden" => Behaviour::Says(vote(Action::SkipOptional, log::INJECTED)),
        "obeys, riskier" => Behaviour::Says(vote(log::RISKY, log::INJECTED)),
        other => panic!("nobody behaves {other}"),
    }
}

/// All names, in the order in which they are shown.
pub(super) const NAMES: [&str; 37] = [
    "well",
    "in a fence",
    "slow",
    "too slow",
    "429 retry-after s",
    "429 retry-after fraction",
    "429 retry-after span",
    "429 retry-after date",
    "429 retry-after far",
    "429 retry-after-ms",
    "429 reset",
    "429 in words",
    "429 no delay",
    "429 RetryInfo",
    "429 for the day",
    "500",
    "503",
    "529",
    "401",
    "404",
    "413",
    "redirect",
    "captive portal",
    "truncated JSON",
    "truncated vote",
    "wrong schema",
    "prose",
    "ungrounded",
    "not allowed",
    "refusal",
    "cut off",
    "white space",
    "slow white space",
    "hangs up",
    "hangs up halfway",
    "obeys, forbidden",
    "obeys, riskier",
];

fn in_a_second() -> String {
    let then = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(1)).unwrap();
    then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
