//! Checks as people write them: in a pipeline file and on the command line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::screen::SIMILARITY;
use super::{Check, CheckDefinition, CheckSpec, OnScreen, Reference};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::table::{Table, integer, number, unknown, wrong_type};

/// Every check that can be asked for.
#[derive(Debug, Clone, Default)]
pub struct CheckCatalog {
    definitions: Vec<Arc<CheckDefinition>>,
}

/// Checks that need no parameters and are not data.
const PLAIN: [(&str, Check); 3] =
    [("boot", Check::Boot), ("network-manager", Check::NetworkManager), ("wlan", Check::Wlan)];
/// Keys of a check's table that are not data either.
const COMMAND: &str = "command";
const SCREEN: &str = "screen";
const PICTURE: &str = "picture";

/// A check that does not exist, or is written wrongly.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; valid: {}", valid.join(", "))]
pub struct UnknownCheck {
    problem: String,
    valid: Vec<String>,
}

impl CheckCatalog {
    /// Adds definitions; the last one of a name counts.
    pub fn new(definitions: impl IntoIterator<Item = CheckDefinition>) -> Self {
        let mut catalog = Self::default();
        for definition in definitions {
            catalog.definitions.retain(|known| known.name != definition.name);
            catalog.definitions.push(Arc::new(definition));
        }
        catalog
    }

    /// How every check is written, with its summary.
    pub fn forms(&self) -> Vec<(String, String)> {
        let own = [
            ("boot", "The system is up: multi-user target reached, no failed unit"),
            ("network-manager", "NetworkManager is active and has connected a device"),
            (
                "wlan",
                "Every WLAN module loads and has its firmware; a simulated radio joins another with WPA2",
            ),
            ("command:SHELL COMMAND", "A command, run by root, ends with status 0"),
            ("screen:WORDS", "The words are read on a text screen, a console of Linux or the serial console"),
            ("picture:FILE.png", "The screen looks like a picture"),
        ];
        let own = own.map(|(form, summary)| (form.to_owned(), summary.to_owned()));
        let defined = self.definitions.iter().map(|definition| {
            let form = match &definition.argument {
                Some(argument) => format!("{}:{argument}", definition.name),
                None => definition.name.clone(),
            };
            (form, definition.summary.clone())
        });
        own.into_iter().chain(defined).collect()
    }

    /// Reads a check as it is written on a command line: `NAME` or `NAME:ARGUMENT`.
    pub fn parse(&self, text: &str) -> Result<CheckSpec, UnknownCheck> {
        let wrong = |problem: String| UnknownCheck {
            problem,
            valid: self.forms().into_iter().map(|(form, _)| form).collect(),
        };
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument).filter(|argument| !argument.trim().is_empty())),
            None => (text, None),
        };
        let what = match (name, argument) {
            (COMMAND, Some(run)) => Check::Command { run: run.to_owned(), status: 0 },
            (SCREEN, Some(words)) => Check::Screen(OnScreen::Words(words.to_owned())),
            (PICTURE, Some(path)) => Check::Screen(OnScreen::Picture(Reference {
                path: path.to_owned(),
                similarity: SIMILARITY,
                masks: Vec::new(),
            })),
            _ => match (self.definition(name), PLAIN.iter().find(|(plain, _)| *plain == name)) {
                (Some(definition), _) => match (&definition.argument, argument) {
                    (Some(_), None) | (None, Some(_)) => {
                        return Err(wrong(format!("check {text:?} is not written as it should be")));
                    }
                    _ => {
                        let argument = argument.map(str::to_owned);
                        Check::Defined { definition: definition.clone(), argument }
                    }
                },
                (None, Some((_, check))) if argument.is_none() => check.clone(),
                _ => return Err(wrong(format!("unknown check {text:?}"))),
            },
        };
        Ok(what.into())
    }

    fn definition(&self, name: &str) -> Option<&Arc<CheckDefinition>> {
        self.definitions.iter().find(|definition| definition.name == name)
    }

    /// Reads an item of `checks = [ … ]`: as on the command line, or a table such as
    /// `{ service = "ssh", within = 90 }` or `{ command = "…", status = 0, name = "…" }`.
    pub(crate) fn read(&self, item: &Spanned<DeValue<'_>>, out: &mut Diagnostics) -> Option<CheckSpec> {
        if let Some(text) = item.get_ref().as_str() {
            return match self.parse(text) {
                Ok(check) => Some(check),
                Err(error) => {
                    let forms = self.forms();
                    let names: Vec<_> =
                        forms.iter().map(|(form, _)| form.split(':').next().unwrap_or(form)).collect();
                    let given = text.split(':').next().unwrap_or(text);
                    out.push(if names.contains(&given) {
                        Diagnostic::new(error.to_string(), item.span())
                    } else {
                        unknown(&format!("check {text:?}"), given, item.span(), &names)
                    });
                    None
                }
            };
        }
        let Some(entries) = item.get_ref().as_table() else {
            out.push(wrong_type(item, "a name or a table", "each check"));
            return None;
        };
        let mut table = Table::new("the check", entries, item.span());
        let label = table.string("name", out).map(|name| name.value);
        let within = table.any("within").and_then(|value| {
            let seconds = integer(value.get_ref()).and_then(|seconds| u64::try_from(seconds).ok());
            if seconds.is_none() {
                out.push(Diagnostic::new("within must be a whole number of seconds", value.span()));
            }
            seconds.map(Duration::from_secs)
        });
        let what = self.read_what(&mut table, out);
        table.finish(out);
        Some(CheckSpec { what: what?, label, within })
    }

    fn read_what(&self, table: &mut Table<'_>, out: &mut Diagnostics) -> Option<Check> {
        if table.key_span(COMMAND).is_some() {
            let run = table.string(COMMAND, out)?.value;
            return Some(Check::Command { run, status: read_status(table, out)? });
        }
        if table.key_span(SCREEN).is_some() {
            return Some(Check::Screen(OnScreen::Words(table.string(SCREEN, out)?.value)));
        }
        if table.key_span(PICTURE).is_some() {
            let path = table.string(PICTURE, out)?.value;
            let similarity = match table.any("similarity") {
                None => SIMILARITY,
                Some(value) => {
                    let given = number(value.get_ref()).filter(|given| (0.0..=1.0).contains(given));
                    if given.is_none() {
                        out.push(Diagnostic::new("similarity must be a number from 0 to 1", value.span()));
                    }
                    given?
                }
            };
            let masks = match table.any("masks") {
                None => Vec::new(),
                Some(value) => match masks(value) {
                    Some(masks) => masks,
                    None => {
                        let words = "masks must be a list of areas, each [left, top, width, height] in dots";
                        out.push(Diagnostic::new(words, value.span()));
                        return None;
                    }
                },
            };
            return Some(Check::Screen(OnScreen::Picture(Reference { path, similarity, masks })));
        }
        // The name of a definition, or of a check without parameters, is the key of its argument.
        let found = table.entries().find_map(|(key, span, value)| {
            let definition = self.definition(key)?;
            Some((definition.clone(), span, value))
        });
        let Some((definition, span, _)) = found else {
            table.missing("check", "{ service = \"ssh\", within = 90 }", out);
            return None;
        };
        let argument = table.string(&definition.name, out)?.value;
        if definition.argument.is_none() {
            let words = format!("check {} is given nothing: write \"{}\"", definition.name, definition.name);
            out.push(Diagnostic::new(words, span));
            return None;
        }
        Some(Check::Defined { definition, argument: Some(argument) })
    }
}

fn read_status(table: &mut Table<'_>, out: &mut Diagnostics) -> Option<i32> {
    let Some(value) = table.any("status") else { return Some(0) };
    let status = integer(value.get_ref()).and_then(|n| u8::try_from(n).ok());
    if status.is_none() {
        out.push(Diagnostic::new("status must be a whole number from 0 to 255", value.span()));
    }
    status.map(i32::from)
}

fn masks(value: &Spanned<DeValue<'_>>) -> Option<Vec<[u32; 4]>> {
    let area = |value: &Spanned<DeValue<'_>>| {
        let numbers: Option<Vec<u32>> = value
            .get_ref()
            .as_array()?
            .iter()
            .map(|number| integer(number.get_ref()).and_then(|number| u32::try_from(number).ok()))
            .collect();
        <[u32; 4]>::try_from(numbers?).ok()
    };
    value.get_ref().as_array()?.iter().map(area).collect()
}

impl fmt::Display for CheckCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forms: Vec<_> = self.forms().into_iter().map(|(form, _)| form).collect();
        f.write_str(&forms.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> CheckCatalog {
        let text = "summary = \"x\"\nargument = \"UNIT\"\npatience = 5\nscript = 'true'\n";
        let plain = "summary = \"x\"\npatience = 5\nscript = 'true'\n";
        CheckCatalog::new([
            CheckDefinition::parse("service", text).unwrap(),
            CheckDefinition::parse("no-failed-units", plain).unwrap(),
        ])
    }

    #[test]
    fn the_command_lines_forms() {
        let catalog = catalog();
        for (text, name) in [
            ("boot", "boot"),
            ("wlan", "wlan"),
            ("service:ssh", "service: ssh"),
            ("no-failed-units", "no-failed-units"),
            ("command:test a:b", "command: test a:b"),
            ("screen:GNU GRUB", "screen: GNU GRUB"),
            ("picture:login.png", "screen: login.png"),
        ] {
            assert_eq!(catalog.parse(text).unwrap().name(), name);
        }
        for text in ["", "boots", "boot:x", "service", "service: ", "no-failed-units:x", "command:", "screen"]
        {
            let error = catalog.parse(text).unwrap_err().to_string();
            assert!(error.contains("service:UNIT"), "{text}: {error}");
        }
    }

    #[test]
    fn a_projects_definition_takes_the_place_of_a_bundled_one() {
        let other = "summary = \"mine\"\npatience = 1\nscript = 'false'\n";
        let bundled = CheckDefinition::parse("service", &other.replace("mine", "theirs")).unwrap();
        let catalog = CheckCatalog::new([bundled, CheckDefinition::parse("service", other).unwrap()]);
        let summaries: Vec<_> =
            catalog.forms().into_iter().filter(|(form, _)| form == "service").map(|(_, text)| text).collect();
        assert_eq!(summaries, ["mine"]);
    }
}
