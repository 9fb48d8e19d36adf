//! `.isokiln/keep.toml`: which checkpoints and runs stay when a store is collected.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, integer, parse, wrong_type};
use crate::units::parse_size;

/// Checkpoints of each stage, and runs, that stay where nobody says otherwise.
const NEWEST: usize = 2;
const DAY: u64 = 24 * 3600;

/// What stays of a store and its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Checkpoints of each stage, newest first, and runs.
    pub newest: usize,
    /// Those that are younger than this, whatever their number.
    pub younger: Option<Duration>,
    /// Bytes that the store's blobs take at most, as far as the newest checkpoints allow.
    pub max_bytes: Option<u64>,
}

impl Default for Keep {
    fn default() -> Self {
        Self { newest: NEWEST, younger: None, max_bytes: None }
    }
}

impl Keep {
    /// Reads `keep.toml`.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
        let mut file = Table::new("keep.toml", document.get_ref(), 0..text.len().min(1));
        let mut keep = Self::default();
        if let Some(mut table) = file.table("keep", &mut out) {
            if let Some(count) = count(&mut table, "checkpoints", &mut out) {
                keep.newest = usize::try_from(count).unwrap_or(usize::MAX);
            }
            let days = count(&mut table, "days", &mut out);
            keep.younger = days.map(|days| Duration::from_secs(days.saturating_mul(DAY)));
            keep.max_bytes = table.read("max-size", &mut out, parse_size);
            table.finish(&mut out);
        }
        file.finish(&mut out);
        out.or(|| Some(keep))
    }
}

/// A whole number of at least 1.
fn count(table: &mut Table<'_>, key: &str, out: &mut Diagnostics) -> Option<u64> {
    let value = table.any(key)?;
    match integer(value.get_ref()).map(u64::try_from) {
        Some(Ok(count)) if count > 0 => return Some(count),
        Some(_) => out.push(Diagnostic::new(format!("{key} must be at least 1"), value.span())),
        None => out.push(wrong_type(value, "a whole number", key)),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_takes_the_place_of_the_default() {
        assert_eq!(Keep::parse(""), Ok(Keep::default()));
        let text = "[keep]\ncheckpoints = 3\ndays = 14\nmax-size = \"20GiB\"\n";
        let keep =
            Keep { newest: 3, younger: Some(Duration::from_secs(14 * 24 * 3600)), max_bytes: Some(20 << 30) };
        assert_eq!(Keep::parse(text), Ok(keep));
        assert_eq!(Keep::parse("[keep]\nmax-size = \"1GiB\"").map(|keep| keep.newest), Ok(NEWEST));
    }

    #[test]
    fn mistakes_are_told_where_they_are() {
        for (text, line, words) in [
            ("[keep]\ncheckpoint = 3", 2, "unknown key \"checkpoint\" in [keep]"),
            ("[kept]\ncheckpoints = 3", 1, "unknown key \"kept\" in keep.toml"),
            ("[keep]\ncheckpoints = 0", 2, "checkpoints must be at least 1"),
            ("[keep]\n\ndays = \"two\"", 3, "days must be a whole number"),
            ("[keep]\nmax-size = \"much\"", 2, "is not a size"),
        ] {
            let mistakes = Keep::parse(text).unwrap_err().0;
            assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
            assert!(mistakes[0].message.contains(words), "{text}: {:?}", mistakes[0].message);
            assert_eq!(mistakes[0].position(text).0, line, "{text}");
        }
    }
}
