//! `[boot-test]`: how the finished ISO is tried out.

use super::Vocabulary;
use crate::boot::CheckSpec;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::names::ProfileName;
use crate::table::{Table, integer, unknown, wrong_type};
use crate::units::parse_size;

/// Processors that a machine can have.
const CPUS: std::ops::RangeInclusive<u32> = 1..=256;

/// `[boot-test]`.
#[derive(Debug, Clone, PartialEq)]
pub struct BootTest {
    /// Machines to boot it on.
    pub profiles: Vec<ProfileName>,
    /// What must hold in the booted system.
    pub checks: Vec<CheckSpec>,
    /// Bytes of memory of the machine; `None` for the profile's own.
    pub memory: Option<u64>,
    /// Processors of the machine; `None` for the profile's own.
    pub cpus: Option<u32>,
    /// Whether a boot menu that waits for a key is a failure, because nobody is there to press it.
    pub unattended: bool,
}

impl BootTest {
    pub(super) fn read(
        mut table: Table<'_>,
        vocabulary: Vocabulary<'_>,
        out: &mut Diagnostics,
    ) -> Option<Self> {
        let before = out.0.len();
        let known = vocabulary.profiles;
        let mut profiles: Vec<ProfileName> = Vec::new();
        let names: Vec<_> = known.iter().map(ProfileName::as_str).collect();
        match table.strings("profiles", out) {
            Some(given) if given.is_empty() => {
                table.missing("profile", "profiles = [\"bios-cd\", \"uefi-cd\"]", out);
            }
            None if table.key_span("profiles").is_none() => {
                table.missing("profiles", "profiles = [\"bios-cd\", \"uefi-cd\"]", out);
            }
            given => {
                for profile in given.unwrap_or_default() {
                    match known.iter().find(|name| name.as_str() == profile.value) {
                        Some(name) if profiles.contains(name) => {
                            out.push(Diagnostic::new(format!("profile {name} is named twice"), profile.span));
                        }
                        Some(name) => profiles.push(name.clone()),
                        None => {
                            let what = format!("machine profile {:?}", profile.value);
                            out.push(unknown(&what, &profile.value, profile.span, &names));
                        }
                    }
                }
            }
        }
        let mut checks = Vec::new();
        if let Some(value) = table.any("checks") {
            match value.get_ref().as_array() {
                Some(items) => {
                    for item in items {
                        let Some(check) = vocabulary.checks.read(item, out) else { continue };
                        if let Some(name) = check.name_among(&checks) {
                            let twice =
                                Diagnostic::new(format!("two checks are called {name:?}"), item.span());
                            out.push(twice.help("leave one out, or give it another name: name = \"…\""));
                        }
                        checks.push(check);
                    }
                }
                None => out.push(wrong_type(value, "a list", "checks")),
            }
        }
        if checks.is_empty() {
            checks.push(CheckSpec::boot());
        }
        let memory = table.read("memory", out, parse_size);
        let cpus = table.any("cpus").and_then(|value| {
            match integer(value.get_ref()).map(u32::try_from) {
                Some(Ok(cpus)) if CPUS.contains(&cpus) => return Some(cpus),
                Some(_) => out.push(Diagnostic::new("cpus must be from 1 to 256", value.span())),
                None => out.push(wrong_type(value, "a whole number", "cpus in [boot-test]")),
            }
            None
        });
        let unattended = table.boolean("unattended", out).is_some_and(|wanted| wanted.value);
        table.finish(out);
        (out.0.len() == before).then_some(Self { profiles, checks, memory, cpus, unattended })
    }
}
