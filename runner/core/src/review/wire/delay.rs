//! How long a provider asks to be left alone, in every form in which that is said.

use std::time::Duration;

use jiff::Timestamp;

use super::HttpReply;

/// Longer delays are of no use to a build.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The delay that headers give: `retry-after-ms`, `retry-after` as seconds, with a fraction or as a date, or when
/// the limit that was reached starts anew.
pub fn delay_of(reply: &HttpReply, now: Timestamp) -> Option<Duration> {
    let milliseconds =
        || reply.header("retry-after-ms").and_then(number).map(|given| given / 1_000.0).and_then(seconds);
    let after =
        || reply.header("retry-after").and_then(|given| duration(given).or_else(|| until(given, now)));
    milliseconds().or_else(after).or_else(|| if reply.status == 429 { reset(reply, now) } else { None })
}

/// A span of time: `7`, `0.5`, `1m2.5s`, `120ms`, `1h`.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(plain) = number(text) {
        return seconds(plain);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let worth = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number(amount)? * worth;
        rest = after;
    }
    if text.is_empty() { None } else { seconds(total) }
}

/// Digits and perhaps a fraction; nothing else that Rust would take for a number.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

fn seconds(given: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(given.min(LONGEST.as_secs_f64())).ok()
}

/// From now to a date of HTTP or RFC 3339; nothing if it is over.
fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let date = date.trim();
    let parsed = date.parse::<Timestamp>().ok();
    let then = parsed.or_else(|| jiff::fmt::rfc2822::parse(date).ok().map(|zoned| zoned.timestamp()))?;
    let wait = Duration::try_from(then.duration_since(now)).unwrap_or_default();
    Some(wait.min(LONGEST))
}

/// When the limits start anew that have nothing left. If all have something left, the request itself was more
/// than the tokens that are left, and theirs counts.
fn reset(reply: &HttpReply, now: Timestamp) -> Option<Duration> {
    let forms = ["x-ratelimit-{}-requests", "x-ratelimit-{}-tokens", "anthropic-ratelimit-requests-{}"]
        .into_iter()
        .chain(["anthropic-ratelimit-tokens-{}", "anthropic-ratelimit-input-tokens-{}"]);
    let resets: Vec<(bool, bool, Duration)> = forms
        .filter_map(|form| {
            let value = reply.header(&form.replace("{}", "reset"))?;
            let wait = duration(value).or_else(|| until(value, now))?;
            let left = reply.header(&form.replace("{}", "remaining")).and_then(number);
            Some((left.is_none_or(|left| left < 1.0), form.contains("tokens"), wait))
        })
        .collect();
    let used_up = resets.iter().filter(|(used_up, _, _)| *used_up).map(|(_, _, wait)| *wait).max();
    used_up.or_else(|| resets.iter().filter(|(_, tokens, _)| *tokens).map(|(_, _, wait)| *wait).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn delay(status: u16, headers: &[(&str, &str)]) -> Option<Duration> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        delay_of(&HttpReply { status, headers, body: vec![] }, now())
    }

    #[test]
    fn every_form_of_a_delay_is_read() {
        let ms = |given| Some(Duration::from_millis(given));
        assert_eq!(delay(429, &[("Retry-After", "7")]), ms(7_000));
        assert_eq!(delay(503, &[("retry-after", " 0.25 ")]), ms(250));
        assert_eq!(delay(429, &[("retry-after", "1m2.5s")]), ms(62_500));
        assert_eq!(delay(429, &[("retry-after", "Sun, 01 Mar 2026 12:00:30 GMT")]), ms(30_000));
        assert_eq!(delay(429, &[("retry-after", "Sun, 01 Mar 2026 11:00:00 GMT")]), ms(0), "it is over");
        assert_eq!(delay(429, &[("retry-after-ms", "120"), ("retry-after", "1")]), ms(120));
        assert_eq!(delay(429, &[("retry-after", "99999999999")]), Some(LONGEST));
        for junk in ["", "-1", "soon", "NaN", "inf", "1x", "5m-", ".", "1..2s"] {
            assert_eq!(delay(429, &[("retry-after", junk)]), None, "{junk}");
        }
    }

    #[test]
    fn the_limit_that_is_used_up_counts() {
        let ms = |given| Some(Duration::from_millis(given));
        let requests =
            [("x-ratelimit-reset-requests", "2m59.56s"), ("x-ratelimit-remaining-requests", "14370")];
        let tokens = [("x-ratelimit-reset-tokens", "7.66s"), ("x-ratelimit-remaining-tokens", "0")];
        assert_eq!(delay(429, &[requests, tokens].concat()), ms(7_660));
        let some_left = [("x-ratelimit-reset-tokens", "120ms"), ("x-ratelimit-remaining-tokens", "900")];
        assert_eq!(delay(429, &[requests, some_left].concat()), ms(120));
        assert_eq!(delay(429, &requests), None);
        assert_eq!(delay(500, &tokens), None, "nothing was used up");
        let date = ("anthropic-ratelimit-tokens-reset", "2026-03-01T12:00:09Z");
        assert_eq!(delay(429, &[date]), ms(9_000));
    }
}
