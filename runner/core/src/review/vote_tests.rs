use proptest::prelude::*;

use super::super::ExcerptLine;
use super::*;

const ALLOWED: [Action; 3] = [Action::Stop, Action::None, Action::Retry];

fn excerpt() -> Excerpt {
    let line = |number, text: &str, times| ExcerptLine { number, text: text.into(), times };
    Excerpt {
        lines: vec![
            line(3, "Get:1 trixie InRelease", 1),
            line(41, "  E: Failed to fetch x  Hash Sum mismatch", 1),
            line(90, "W: retrying", 12),
        ],
        total: 100,
    }
}

fn answer(action: &str, quote: &str) -> String {
    serde_json::json!({ "action": action, "quote": quote, "cause": "the mirror", "cure": "wait", "confidence": 0.8 })
        .to_string()
}

fn read(text: &str) -> Result<Reading, InvalidVote> {
    read_vote(text, &excerpt(), &ALLOWED)
}

#[test]
fn a_grounded_answer_is_a_vote() {
    let good = answer("retry", "E: Failed to fetch x  Hash Sum mismatch");
    let reading = read(&good).unwrap();
    assert_eq!((reading.action, reading.line, reading.confidence), (Action::Retry, Some(41), Some(80)));
    for fenced in [format!("```json\n{good}\n```"), format!("```\n{good}\n```\n"), format!(" \n{good}\n")] {
        assert_eq!(read(&fenced).as_ref(), Ok(&reading));
    }
}

#[test]
fn a_quote_may_repeat_what_is_shown_around_a_line() {
    for quote in
        ["41  E: Failed to fetch x  Hash Sum mismatch", "    41    E: Failed to fetch x  Hash Sum mismatch"]
    {
        assert_eq!(read(&answer("stop", quote)).unwrap().line, Some(41), "{quote}");
    }
    for quote in ["W: retrying  [12 such lines]", "90  W: retrying  [12 such lines]", "90 W: retrying"] {
        let reading = read(&answer("stop", quote)).unwrap();
        assert_eq!((reading.line, reading.quote.as_str()), (Some(90), "W: retrying"), "{quote}");
    }
}

#[test]
fn what_is_not_in_the_log_is_no_proof() {
    for quote in [
        "E: Failed to fetch",
        "e: failed to fetch x  hash sum mismatch",
        "42  E: Failed to fetch x  Hash Sum mismatch",
        "W: retrying  [13 such lines]",
        "E: Failed to fetch x  Hash Sum mismatch and more",
        "41",
    ] {
        assert_eq!(read(&answer("stop", quote)), Err(InvalidVote::Ungrounded), "{quote}");
    }
    assert_eq!(read(&answer("stop", " ")), Err(InvalidVote::NoQuote));
    assert_eq!(read(&answer("none", "")).unwrap().line, None);
    let without_none = read_vote(&answer("none", ""), &excerpt(), &[Action::Stop]);
    assert_eq!(without_none, Err(InvalidVote::NotAllowed(Action::None)));
}

#[test]
fn actions_that_were_not_offered_do_not_count() {
    assert_eq!(read(&answer("rollback", "W: retrying")), Err(InvalidVote::NotAllowed(Action::Rollback)));
    assert_eq!(read(&answer("rm -rf /", "W: retrying")), Err(InvalidVote::UnknownAction("rm -rf /".into())));
}

#[test]
fn other_forms_are_not_a_vote() {
    let good = answer("stop", "W: retrying");
    for bad in
        ["", "null", "I cannot help with that.", "[]", &good[..good.len() - 9], &format!("{good}{good}")]
    {
        assert_eq!(read(bad), Err(InvalidVote::NotJson), "{bad}");
    }
    assert_eq!(read(&format!("Sure! {good}")), Err(InvalidVote::NotJson));
    for bad in [
        r#"{"action":"stop"}"#,
        r#"{"action":["stop"],"quote":"W: retrying","cause":"a","cure":"b"}"#,
        r#"{"action":"stop","quote":"W: retrying","cause":"","cure":"b"}"#,
        r#"{"action":"stop","quote":"W: retrying","cause":"a","cure":"b","confidence":7}"#,
        r#"{"action":"stop","quote":"W: retrying","cause":"a","cure":"b","confidence":"high"}"#,
        r#"{"action":"stop","action":"retry","quote":"W: retrying","cause":"a","cure":"b"}"#,
    ] {
        assert!(matches!(read(bad), Err(InvalidVote::Schema(_))), "{bad} gave {:?}", read(bad));
    }
}

#[test]
fn words_of_agents_are_kept_short_and_clean() {
    let long = serde_json::json!({
        "action": "stop", "quote": "W: retrying", "cure": "see https://a:b@c.example/",
        "cause": format!("line one\nline two \u{1b}[31m{}", "x".repeat(5_000)),
    });
    let reading = read(&long.to_string()).unwrap();
    assert!(reading.cause.chars().count() <= MOST_WORDS + 1 && !reading.cause.contains(['\n', '\u{1b}']));
    assert!(!reading.cure.contains("a:b"), "{}", reading.cure);
}

proptest! {
    #[test]
    fn nothing_that_is_sent_breaks_the_reader(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn every_vote_quotes_the_log_and_chooses_what_was_allowed(
        action in "(stop|none|retry|rollback|x)", quote in "([0-9 ]{0,6}[A-Z]: [a-z ]{0,9}|W: retrying)",
    ) {
        if let Ok(reading) = read(&answer(&action, &quote)) {
            prop_assert!(ALLOWED.contains(&reading.action));
            prop_assert!(excerpt().find(&reading.quote).is_some());
        }
    }
}
