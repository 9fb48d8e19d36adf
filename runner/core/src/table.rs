//! Strict reading of TOML tables: every key is asked for by name, and what nobody asked for is a mistake.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::suggest::nearest;

/// A value and where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte range of the value.
    pub span: Range<usize>,
}

/// A table being read. Mistakes go to the `Diagnostics` that each call is given, and reading carries on.
pub(crate) struct Table<'t> {
    /// What the table is, for messages: `[system]`, `stage "base"`.
    pub(crate) what: String,
    pub(crate) span: Range<usize>,
    entries: &'t DeTable<'t>,
    known: Vec<String>,
}

/// Reads a whole file.
pub(crate) fn parse<'t>(text: &'t str) -> Result<Spanned<DeTable<'t>>, Diagnostic> {
    DeTable::parse(text).map_err(|error| {
        Diagnostic::new(
            error.message().trim().replace('\n', ", "),
            error.span().unwrap_or(0..text.len().min(1)),
        )
        .help("the file is not TOML as it stands")
    })
}

impl<'t> Table<'t> {
    pub(crate) fn new(what: impl Into<String>, entries: &'t DeTable<'t>, span: Range<usize>) -> Self {
        Self { what: what.into(), span, entries, known: Vec::new() }
    }

    /// The value under `key`, of any type.
    pub(crate) fn any(&mut self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(key.to_owned());
        self.entries.get(key)
    }

    /// Where `key` itself stands.
    pub(crate) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.entries.get_key_value(key).map(|(key, _)| key.span())
    }

    pub(crate) fn string(&mut self, key: &str, out: &mut Diagnostics) -> Option<Located<String>> {
        let value = self.any(key)?;
        typed(value, "a string", |v| v.as_str().map(str::to_owned), &format!("{key} in {}", self.what), out)
    }

    pub(crate) fn boolean(&mut self, key: &str, out: &mut Diagnostics) -> Option<Located<bool>> {
        let value = self.any(key)?;
        typed(value, "true or false", |v| v.as_bool(), &format!("{key} in {}", self.what), out)
    }

    /// A string that must parse as a `T`.
    pub(crate) fn parsed<T>(&mut self, key: &str, out: &mut Diagnostics) -> Option<Located<T>>
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        let text = self.string(key, out)?;
        match text.value.parse() {
            Ok(value) => Some(Located { value, span: text.span }),
            Err(error) => {
                out.push(Diagnostic::new(error.to_string(), text.span));
                None
            }
        }
    }

    /// A string read by `read`, whose error is the message.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        out: &mut Diagnostics,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(key, out)?;
        read(&text.value).map_err(|message| out.push(Diagnostic::new(message, text.span))).ok()
    }

    /// One of a closed set of words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&'static str, T)],
        out: &mut Diagnostics,
    ) -> Option<T> {
        let text = self.string(key, out)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        out.push(unknown(&format!("{key} {:?}", text.value), &text.value, text.span, &words));
        None
    }

    pub(crate) fn strings(&mut self, key: &str, out: &mut Diagnostics) -> Option<Vec<Located<String>>> {
        let value = self.any(key)?;
        string_list(value, &format!("{key} in {}", self.what), out)
    }

    pub(crate) fn table(&mut self, key: &str, out: &mut Diagnostics) -> Option<Table<'t>> {
        let value = self.any(key)?;
        match value.get_ref().as_table() {
            Some(entries) => Some(Table::new(format!("[{key}]"), entries, value.span())),
            None => {
                out.push(wrong_type(value, "a table", &format!("{key} in {}", self.what)));
                None
            }
        }
    }

    /// Every entry, for tables whose keys are the user's own.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'t str, Range<usize>, &'t Spanned<DeValue<'t>>)> {
        self.entries.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
    }

    /// Notes a missing key.
    pub(crate) fn missing(&self, key: &str, example: &str, out: &mut Diagnostics) {
        out.push(
            Diagnostic::new(format!("{} has no {key}", self.what), self.span.clone())
                .help(format!("add for example: {example}")),
        );
    }

    /// Notes every key that was never asked for.
    pub(crate) fn finish(self, out: &mut Diagnostics) {
        let known: Vec<_> = self.known.iter().map(String::as_str).collect();
        for (key, span, _) in self.entries() {
            if !known.contains(&key) {
                out.push(unknown(&format!("key {key:?} in {}", self.what), key, span, &known));
            }
        }
    }
}

/// "unknown X", with the nearest valid name or all of them.
pub(crate) fn unknown(what: &str, given: &str, span: Range<usize>, valid: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::new(format!("unknown {what}"), span);
    match nearest(given, valid.iter().copied()) {
        Some(near) => {
            diagnostic.label(format!("did you mean {near:?}?")).help(format!("valid: {}", valid.join(", ")))
        }
        None => diagnostic.help(format!("valid: {}", valid.join(", "))),
    }
}

pub(crate) fn wrong_type(value: &Spanned<DeValue<'_>>, expected: &str, what: &str) -> Diagnostic {
    Diagnostic::new(
        format!("{what} must be {expected}, not {}", with_article(value.get_ref().type_str())),
        value.span(),
    )
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn typed<T>(
    value: &Spanned<DeValue<'_>>,
    expected: &str,
    read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    what: &str,
    out: &mut Diagnostics,
) -> Option<Located<T>> {
    let read = read(value.get_ref());
    if read.is_none() {
        out.push(wrong_type(value, expected, what));
    }
    read.map(|read| Located { value: read, span: value.span() })
}

pub(crate) fn string_list(
    value: &Spanned<DeValue<'_>>,
    what: &str,
    out: &mut Diagnostics,
) -> Option<Vec<Located<String>>> {
    let Some(items) = value.get_ref().as_array() else {
        out.push(wrong_type(value, "a list of strings", what));
        return None;
    };
    items
        .iter()
        .map(|item| {
            typed(item, "a string", |v| v.as_str().map(str::to_owned), &format!("each item of {what}"), out)
        })
        .collect()
}

pub(crate) fn string_map(
    value: &Spanned<DeValue<'_>>,
    what: &str,
    out: &mut Diagnostics,
) -> Option<BTreeMap<String, String>> {
    let Some(entries) = value.get_ref().as_table() else {
        out.push(wrong_type(value, "a table of strings", what));
        return None;
    };
    entries
        .iter()
        .map(|(key, item)| {
            let key = key.get_ref().to_string();
            let item =
                typed(item, "a string", |v| v.as_str().map(str::to_owned), &format!("{key} in {what}"), out)?;
            Some((key, item.value))
        })
        .collect()
}

pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

/// A number of any kind as `f64`, for CPU shares such as `1.5`.
pub(crate) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value.as_float() {
        Some(float) => float.as_str().replace('_', "").parse().ok(),
        None => integer(value).map(|integer| integer as f64),
    }
}

/// JSON of a string list.
pub(crate) fn json_list(items: &[Located<String>]) -> Value {
    items.iter().map(|item| Value::from(item.value.as_str())).collect()
}
