//! What is wrong with a text that a person wrote, and where.

use std::fmt;
use std::ops::Range;

/// One mistake in a text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// Byte range of the text that is wrong.
    pub span: Range<usize>,
    /// A few words shown at the caret; may be empty.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(message: impl Into<String>, span: Range<usize>) -> Self {
        Self { message: message.into(), span, label: String::new(), help: None }
    }

    /// Adds the words at the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Line and column of the mistake in `text`, both counted from 1, the column in characters.
    pub fn position(&self, text: &str) -> (usize, usize) {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// Every mistake found in one text: a person wants to see them all at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Notes a mistake and carries on.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// `value` if no mistake was noted, all mistakes in order of place otherwise.
    pub fn or<T>(mut self, value: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        if self.0.is_empty()
            && let Some(value) = value()
        {
            return Ok(value);
        }
        self.0.sort_by_key(|diagnostic| diagnostic.span.start);
        Err(self)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages: Vec<_> = self.0.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        f.write_str(&messages.join("; "))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        let text = "a = 1\nö = wrong\n";
        let at = text.find("wrong").unwrap();
        assert_eq!(Diagnostic::new("x", at..at + 5).position(text), (2, 5));
        assert_eq!(Diagnostic::new("x", 0..1).position(text), (1, 1));
    }
}
