//! The options of one stage, checked against what its kind declares.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::Kind;
use super::manifest::{OptionSpec, OptionType};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, integer, json_list, string_list, string_map, unknown, wrong_type};

/// The options of a stage: every one that its kind declares, defaults filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageOptions {
    /// By name; what the stage's script reads as JSON.
    pub values: BTreeMap<String, Value>,
    /// Files and folders that the options name.
    pub inputs: Vec<InputPath>,
}

impl StageOptions {
    /// What a kind's options are where a stage gives none.
    pub(crate) fn defaults(kind: &Kind) -> Self {
        let given = kind.options.iter().filter_map(|spec| Some((spec.name.clone(), spec.default.clone()?)));
        Self { values: given.collect(), inputs: Vec::new() }
    }
}

/// A file or folder of the project that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPath {
    /// The option that names it.
    pub option: String,
    /// Relative to the pipeline file's folder.
    pub path: String,
    /// Where the pipeline file says so.
    pub span: Range<usize>,
}

/// Reads `with`, which may be absent; `stage` is where to point when an option is missing.
pub(crate) fn read_options(
    kind: &Kind,
    with: Option<Table<'_>>,
    stage: &Range<usize>,
    out: &mut Diagnostics,
) -> StageOptions {
    let mut options = StageOptions::default();
    let mut given = BTreeMap::new();
    if let Some(with) = &with {
        for (key, span, value) in with.entries() {
            match kind.options.iter().find(|spec| spec.name == key) {
                Some(spec) => drop(given.insert(spec.name.as_str(), value)),
                None => {
                    let valid: Vec<_> = kind.options.iter().map(|spec| spec.name.as_str()).collect();
                    out.push(unknown(&format!("option {key:?} of kind {}", kind.name), key, span, &valid));
                }
            }
        }
    }
    for spec in &kind.options {
        let value = match given.get(spec.name.as_str()) {
            Some(value) => read_value(spec, value, out),
            None if spec.required => {
                let place = with.as_ref().map_or_else(|| stage.clone(), |with| with.span.clone());
                out.push(
                    Diagnostic::new(format!("kind {} needs the option {:?}", kind.name, spec.name), place)
                        .help(spec.help.clone()),
                );
                None
            }
            None => spec.default.clone().map(|value| (value, None)),
        };
        if let Some((value, input)) = value {
            options.inputs.extend(input);
            options.values.insert(spec.name.clone(), value);
        }
    }
    options
}

/// Reads one value of the type that the option declares.
pub(super) fn read_value(
    spec: &OptionSpec,
    value: &Spanned<DeValue<'_>>,
    out: &mut Diagnostics,
) -> Option<(Value, Option<InputPath>)> {
    let what = format!("option {:?}", spec.name);
    let plain = value.get_ref();
    let read = match spec.option_type {
        OptionType::String | OptionType::Path => {
            plain.as_str().map(Value::from).ok_or_else(|| wrong_type(value, "a string", &what))
        }
        OptionType::Integer => {
            integer(plain).map(Value::from).ok_or_else(|| wrong_type(value, "a whole number", &what))
        }
        OptionType::Boolean => {
            plain.as_bool().map(Value::from).ok_or_else(|| wrong_type(value, "true or false", &what))
        }
        OptionType::List => {
            let items = string_list(value, &what, out)?;
            for item in &items {
                check_choice(spec, &item.value, item.span.clone(), out);
            }
            return Some((json_list(&items), None));
        }
        OptionType::Map => {
            return string_map(value, &what, out).map(|map| (map.into_iter().collect(), None));
        }
    };
    let read = read.map_err(|wrong| out.push(wrong)).ok()?;
    if let Some(text) = read.as_str() {
        check_choice(spec, text, value.span(), out);
    }
    let input = match (spec.option_type, read.as_str()) {
        (OptionType::Path, Some(path)) => {
            if path.is_empty() || path.starts_with('/') {
                out.push(
                    Diagnostic::new(
                        format!("{what} must be a path from the pipeline file's folder"),
                        value.span(),
                    )
                    .help("a project that names files of one machine cannot be built on another"),
                );
                return None;
            }
            Some(InputPath { option: spec.name.clone(), path: path.to_owned(), span: value.span() })
        }
        _ => None,
    };
    Some((read, input))
}

fn check_choice(spec: &OptionSpec, given: &str, span: Range<usize>, out: &mut Diagnostics) {
    if !spec.choices.is_empty() && !spec.choices.iter().any(|choice| choice == given) {
        let valid: Vec<_> = spec.choices.iter().map(String::as_str).collect();
        out.push(unknown(&format!("{} {given:?}", spec.name), given, span, &valid));
    }
}
