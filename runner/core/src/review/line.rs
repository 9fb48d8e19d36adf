//! A line of a log as it was meant: without colours, redraws and time stamps.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// A line as text that does nothing to a terminal: what a progress display last drew, without colours.
pub fn printable(line: &[u8]) -> Cow<'_, str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = match memchr::memrchr(b'\r', line) {
        Some(redraw) => &line[redraw + 1..],
        None => line,
    };
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != 0x7f;
    if line.iter().all(is_plain)
        && let Ok(text) = std::str::from_utf8(line)
        // Beyond ASCII there are control characters too.
        && (text.is_ascii() || !text.contains(is_hidden))
    {
        return Cow::Borrowed(text);
    }
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.peek() {
                // A title ends with a bell or a string terminator.
                Some(']') => drop(characters.by_ref().find(|end| matches!(end, '\u{7}' | '\\'))),
                // A control sequence ends with a letter.
                _ => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            },
            '\u{8}' => drop(out.pop()),
            '\t' => out.push(' '),
            character if is_hidden(character) => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Characters that command a terminal, or make text look other than it is.
pub(super) fn is_hidden(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What a line says: printable, without the time stamps before it and the white space after it.
pub fn clean(line: &[u8]) -> Cow<'_, str> {
    match printable(line) {
        Cow::Borrowed(text) => Cow::Borrowed(without_stamps(text)),
        Cow::Owned(text) => Cow::Owned(without_stamps(&text).to_owned()),
    }
}

/// Stamps that loggers put one before another: date and time, seconds since the start, a step of a container build.
const MOST_STAMPS: usize = 3;

fn without_stamps(text: &str) -> &str {
    static STAMP: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(concat!(
            r"^(?:",
            r"\[?[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?(?:Z| ?[+-][0-9]{2}:?[0-9]{2})?\]?:?",
            r"|\[[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?\]",
            r"|[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?",
            r"|\[ *[0-9]+\.[0-9]{3,}\]",
            r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}",
            r"|#[0-9]+ [0-9]+\.[0-9]+",
            r") +",
        ))
        .ok()
    });
    let mut text = text.trim_end();
    for _ in 0..MOST_STAMPS {
        let may_begin = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'[' | b'#' | b'A'..=b'S');
        // Most lines begin with something else, and a log has millions.
        if !text.as_bytes().first().is_some_and(may_begin) {
            break;
        }
        match STAMP.as_ref().and_then(|stamp| stamp.find(text)) {
            Some(stamp) => text = &text[stamp.end()..],
            None => break,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_redraws_and_stamps_go() {
        for (line, text) in [
            (&b"plain\n"[..], "plain"),
            (b"\x1b[31;1mred\x1b[0m\r\n", "red"),
            (b"10%\r20%\r", "20%"),
            (b"ab\x08c", "ac"),
            (b"\x1b]0;title\x07text", "text"),
            (b"\xff\x00bin", "\u{fffd}\u{fffd}bin"),
            (b"a\tb  ", "a b"),
            ("a\u{202e}b\u{9b}c".as_bytes(), "a\u{fffd}b\u{fffd}c"),
            (b"2022-12-16 16:53:56 ERROR 404: Not Found.", "ERROR 404: Not Found."),
            (b"2025-01-01T00:00:00.1234567Z E: no", "E: no"),
            (b"[2025-01-01 00:00:00,123] E: no", "E: no"),
            (b"[   12.345678] Out of memory", "Out of memory"),
            (b"Dec  6 01:02:03 text", "text"),
            (b"#12 3.456 E: no", "E: no"),
            (b"12:01:59 [00:00:01] text", "text"),
            // Not stamps.
            (b"2025-01-01 is a date", "2025-01-01 is a date"),
            (b"[ OK ] started", "[ OK ] started"),
            (b"12 packages", "12 packages"),
        ] {
            assert_eq!(clean(line), text, "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_become_printable(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            proptest::prop_assert!(!printable(&line).chars().any(char::is_control));
            let once = clean(&line).into_owned();
            proptest::prop_assert_eq!(once.trim_end(), once.as_str());
        }
    }
}
