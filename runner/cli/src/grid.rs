//! Tables whose columns get narrower, and then go below each other, until they fit the terminal.

use console::{Style, measure_text_width};

use crate::words::printable;

/// Columns between two columns.
const GAP: usize = 2;
/// A word in the first column that is longer than this is broken.
const LONGEST: usize = 24;

/// A cell: its text, and how it looks.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) style: Style,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, style: Style) -> Self {
        Self { text: printable(&text.into()), style }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Style::new())
    }
}

/// Lines of a table that is at most `width` characters wide where its longest words allow. The first column names the
/// rows; where not all others fit beside it, they come in several tables below each other.
pub(crate) fn grid(rows: &[Vec<Cell>], width: usize) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let fits = |columns: &[usize]| {
        total(&columns.iter().map(|column| least(rows, *column)).collect::<Vec<_>>()) <= width
    };
    let mut lines = Vec::new();
    let mut columns = (1..count).peekable();
    while let Some(first) = columns.next() {
        let mut shown = vec![0, first];
        while let Some(column) = columns.next_if(|column| fits(&[&shown[..], &[*column]].concat())) {
            shown.push(column);
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(block(rows, &shown, width));
    }
    lines
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// Width of a column that breaks its texts wherever it can.
fn least(rows: &[Vec<Cell>], column: usize) -> usize {
    let words = rows.iter().filter_map(|row| row.get(column)).flat_map(|cell| words(&cell.text));
    let longest = words.map(|word| measure_text_width(word.trim_end())).max().unwrap_or(0);
    if column == 0 { longest.min(LONGEST) } else { longest }
}

fn block(rows: &[Vec<Cell>], shown: &[usize], width: usize) -> Vec<String> {
    let cell =
        |row: &'_ Vec<Cell>, column: usize| row.get(column).cloned().unwrap_or_else(|| Cell::plain(""));
    let natural = |column: &usize| {
        rows.iter().map(|row| measure_text_width(&cell(row, *column).text)).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = shown.iter().map(natural).collect();
    let least: Vec<usize> = shown.iter().map(|column| least(rows, *column)).collect();
    while total(&widths) > width {
        let widest = (0..widths.len()).filter(|at| widths[*at] > least[*at]).max_by_key(|at| widths[*at]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    let mut lines = Vec::new();
    for row in rows {
        let cells: Vec<_> = shown.iter().map(|column| cell(row, *column)).collect();
        let wrapped: Vec<_> =
            cells.iter().zip(&widths).map(|(cell, width)| wrap(&cell.text, *width)).collect();
        for line in 0..wrapped.iter().map(Vec::len).max().unwrap_or(0) {
            let parts = wrapped.iter().zip(&cells).zip(&widths).map(|((wrapped, cell), width)| {
                let text = wrapped.get(line).map_or("", String::as_str);
                let room = " ".repeat(width.saturating_sub(measure_text_width(text)));
                format!("{}{room}", cell.style.apply_to(text))
            });
            let line = parts.collect::<Vec<_>>().join(&" ".repeat(GAP));
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

/// A text's parts, between which it may be broken.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', '-'])
}

/// Breaks a text into lines, words only where one is longer than a line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in words(text) {
        let line = lines
            .last_mut()
            .filter(|line| measure_text_width(line) + measure_text_width(word.trim_end()) <= width);
        match line {
            Some(line) => line.push_str(word),
            None => lines.push(word.to_owned()),
        }
        while let Some(long) =
            lines.last().filter(|line| measure_text_width(line.trim_end()) > width).cloned()
        {
            let head: String = long.chars().take(width).collect();
            let rest = long[head.len()..].to_owned();
            lines.pop();
            lines.extend([head, rest]);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<Cell>> {
        rows.iter().map(|row| row.iter().map(|text| Cell::plain(*text)).collect()).collect()
    }

    #[test]
    fn a_table_with_room_is_as_wide_as_its_texts() {
        let lines = grid(&rows(&[&["", "bios-cd"], &["boot", "PASS"]]), 80);
        assert_eq!(lines, ["      bios-cd", "boot  PASS"]);
    }

    #[test]
    fn a_table_without_room_breaks_texts_at_hyphens_and_spaces() {
        let lines =
            grid(&rows(&[&["", "bios-cd", "uefi-secureboot"], &["network-manager", "PASS", "FAIL"]]), 29);
        assert_eq!(
            lines,
            [
                "          bios-cd  uefi-",
                "                   secureboot",
                "network-  PASS     FAIL",
                "manager"
            ]
        );
    }

    #[test]
    fn columns_without_room_beside_each_other_come_below() {
        let lines =
            grid(&rows(&[&["", "one", "two", "three"], &["boot", "INCONCLUSIVE", "PASS", "FAIL"]]), 20);
        assert_eq!(lines, ["      one", "boot  INCONCLUSIVE", "", "      two   three", "boot  PASS  FAIL"]);
    }

    #[test]
    fn a_long_word_is_broken_and_nothing_is_lost() {
        let long = "command: /usr/lib/something-with/averyveryveryverylongname --and-an-option";
        let lines = grid(&rows(&[&["", "bios-cd"], &[long, "PASS"]]), 40);
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
        let first: String = lines[1..].iter().map(|line| line.replace("PASS", "")).collect();
        assert_eq!(first.replace(' ', ""), long.replace(' ', ""));
    }
}
