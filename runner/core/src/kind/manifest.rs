//! `kind.toml`.

use serde_json::Value;

use super::options::read_value;
use super::{Kind, Privilege, RootfsUse};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::digest::Digest;
use crate::names::KindName;
use crate::table::{Table, parse};

/// An option that a stage of this kind takes in `with = { … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct OptionSpec {
    /// Key in `with`.
    pub name: String,
    /// What its value must be.
    pub option_type: OptionType,
    /// Value where the stage gives none.
    pub default: Option<Value>,
    /// Whether a stage must give it.
    pub required: bool,
    /// The only values allowed; empty where any will do.
    pub choices: Vec<String>,
    /// Whether no two stages of a pipeline may have the same value, because files are named after it.
    pub unique: bool,
    /// One sentence or two.
    pub help: String,
}

/// Type of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list of strings.
    List,
    /// A table of strings.
    Map,
    /// A file or folder beside the pipeline file; its contents are part of the stage key.
    Path,
}

impl OptionType {
    const NAMES: [(&str, Self); 6] = [
        ("string", Self::String),
        ("integer", Self::Integer),
        ("boolean", Self::Boolean),
        ("list", Self::List),
        ("map", Self::Map),
        ("path", Self::Path),
    ];

    /// The word for it in `kind.toml`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

impl Kind {
    /// Reads a kind's declaration; `digest` is that of its folder.
    pub fn parse(name: KindName, text: &str, digest: Digest) -> Result<Self, Diagnostics> {
        let mut out = Diagnostics::default();
        let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
        let mut table = Table::new(format!("kind {name}"), document.get_ref(), 0..text.len().min(1));

        let summary = table.string("summary", &mut out);
        if summary.is_none() {
            table.missing("summary", "summary = \"Install packages\"", &mut out);
        }
        let description = table.string("description", &mut out).map(|text| text.value).unwrap_or_default();
        let rootfs = table.choice(
            "rootfs",
            &[("new", RootfsUse::New), ("change", RootfsUse::Change), ("read", RootfsUse::Read)],
            &mut out,
        );
        let privilege = table.choice(
            "privilege",
            &[("none", Privilege::None), ("chroot", Privilege::Chroot), ("full", Privilege::Full)],
            &mut out,
        );
        let network = table.boolean("network", &mut out).is_some_and(|value| value.value);
        let archive = table.boolean("archive", &mut out).is_some_and(|value| value.value);

        let mut options = Vec::new();
        if let Some(specs) = table.table("options", &mut out) {
            let mut entries: Vec<_> = specs.entries().collect();
            entries.sort_by_key(|(_, span, _)| span.start);
            for (key, span, value) in entries {
                match value.get_ref().as_table() {
                    Some(entries) => {
                        let spec = Table::new(format!("option {key}"), entries, span);
                        options.extend(read_spec(key, spec, &mut out));
                    }
                    None => out.push(Diagnostic::new(format!("option {key} must be a table"), span)),
                }
            }
        }
        table.finish(&mut out);
        out.or(|| {
            Some(Self {
                name,
                summary: summary?.value,
                description,
                rootfs: rootfs.unwrap_or(RootfsUse::Change),
                privilege: privilege.unwrap_or(Privilege::Chroot),
                network,
                archive,
                options,
                digest,
            })
        })
    }
}

fn read_spec(name: &str, mut table: Table<'_>, out: &mut Diagnostics) -> Option<OptionSpec> {
    let option_type = table.choice("type", &OptionType::NAMES, out);
    let help = table.string("help", out);
    if help.is_none() {
        table.missing("help", "help = \"What it changes\"", out);
    }
    let required = table.boolean("required", out).is_some_and(|value| value.value);
    let unique = table.boolean("unique", out).is_some_and(|value| value.value);
    let choices: Vec<_> =
        table.strings("choices", out).unwrap_or_default().into_iter().map(|choice| choice.value).collect();
    let default = table.any("default");
    let mut spec = OptionSpec {
        name: name.to_owned(),
        option_type: option_type?,
        default: None,
        required,
        choices,
        unique,
        help: help?.value,
    };
    spec.default = default.and_then(|value| read_value(&spec, value, out)).map(|value| value.0);
    table.finish(out);
    Some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Kind, Diagnostics> {
        Kind::parse("demo".parse().unwrap(), text, Digest::of(text))
    }

    #[test]
    fn reads_a_declaration() {
        let kind = parse(
            r#"
            summary = "Demo"
            rootfs = "new"
            privilege = "full"
            network = true
            [options.zebra]
            type = "list"
            default = ["a"]
            help = "First in the file."
            [options.apple]
            type = "string"
            choices = ["red", "green"]
            required = true
            unique = true
            help = "Second."
            "#,
        )
        .unwrap();
        assert_eq!((kind.rootfs, kind.privilege), (RootfsUse::New, Privilege::Full));
        assert!(kind.network && !kind.archive);
        let names: Vec<_> = kind.options.iter().map(|option| option.name.as_str()).collect();
        assert_eq!(names, ["zebra", "apple"], "options keep the order of the file");
        assert_eq!(kind.options[0].default, Some(serde_json::json!(["a"])));
        assert_eq!(kind.options.iter().map(|option| option.unique).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn names_what_is_wrong() {
        let errors =
            parse("sumary = \"x\"\nprivilege = \"ful\"\n[options.a]\ntype = \"text\"\n").unwrap_err();
        let text = errors.to_string();
        for part in
            ["has no summary", "unknown key \"sumary\"", "unknown privilege \"ful\"", "unknown type \"text\""]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_default_must_be_of_the_options_type() {
        let errors =
            parse("summary = \"x\"\n[options.a]\ntype = \"integer\"\nhelp = \"h\"\ndefault = \"1\"\n");
        assert!(errors.unwrap_err().to_string().contains("must be a whole number"));
    }
}
