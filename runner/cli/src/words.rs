//! Small helpers for lines that people read.

use console::{Style, StyledObject};

/// Width of the word that begins a line.
const WIDTH: usize = 12;

/// A line with its subject's word on the left, right-aligned, as in test runners and build tools.
pub(crate) fn line(word: &str, style: &Style, text: &str) -> String {
    format!("{} {text}", heading(word, style))
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
