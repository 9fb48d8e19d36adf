//! Small helpers for lines that people read.

use console::{Style, StyledObject};

/// Width of the word that begins a line.
const WIDTH: usize = 12;

/// A line with its subject's word on the left, right-aligned, as in test runners and build tools.
pub(crate) fn line(word: &str, style: &Style, text: &str) -> String {
    format!("{} {}", heading(word, style), printable(text))
}

/// A line of somebody else's output.
pub(crate) fn quoted(text: &str) -> String {
    format!("{} {}", heading("|", &faint()), printable(text))
}

/// A text in one line, without colours and other commands to the terminal: guests and ISOs, for which nobody vouches,
/// have a say in what is printed.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' | '\n' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    console::strip_ansi_codes(text).chars().map(shown).collect()
}

fn heading(word: &str, style: &Style) -> StyledObject<String> {
    style.apply_to(format!("{word:>WIDTH$}"))
}

pub(crate) fn good() -> Style {
    Style::new().for_stderr().green().bold()
}

pub(crate) fn fair() -> Style {
    Style::new().for_stderr().yellow().bold()
}

pub(crate) fn bad() -> Style {
    Style::new().for_stderr().red().bold()
}

pub(crate) fn calm() -> Style {
    Style::new().for_stderr().cyan().bold()
}

pub(crate) fn faint() -> Style {
    Style::new().for_stderr().dim()
}

/// A path as seen from here, if that is shorter.
pub(crate) fn short(path: &str) -> String {
    let here = std::env::current_dir().map(|here| format!("{}/", here.display())).unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}

/// Columns padded to the width of their widest cell, the last one not.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_commands_of_others_reach_the_terminal() {
        let text = "\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7}\u{9b}2J a\tb\nc\u{1b}";
        for line in [line("note", &calm(), text), quoted(text)] {
            assert!(line.ends_with(" a b c\u{fffd}") && line.contains("red"), "{line:?}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
        assert_eq!(quoted("Grüße"), "           | Grüße");
    }
}
