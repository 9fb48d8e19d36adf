//! The table of cases: `tests/corpus/cases.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use crate::repository;

/// How far a boot may have come, as reports write it.
const PHASES: [&str; 7] =
    ["firmware", "boot-menu", "kernel", "initramfs", "userspace", "multi-user", "desktop"];
/// What may have gone wrong, as reports write it.
const CAUSES: [&str; 24] = [
    "no-boot-record",
    "nothing-bootable",
    "boot-loader-error",
    "menu-waits",
    "no-kernel",
    "kernel-panic",
    "kernel-oops",
    "out-of-memory",
    "initramfs-shell",
    "no-live-medium",
    "squashfs-error",
    "no-init",
    "emergency-mode",
    "failed-units",
    "reboot-loop",
    "powered-off",
    "hang",
    "too-slow",
    "silent",
    "uefi-shell",
    "secure-boot-refused",
    "no-probe",
    "not-linux",
    "check-failed",
];

/// The end of a boot test or of one of its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It could not be tested.
    Inconclusive,
    /// The tester broke.
    Infra,
    /// It does not hold.
    Fail,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Infra => "INFRA",
            Self::Fail => "FAIL",
        })
    }
}

/// What a boot test on one machine must say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Name of the machine profile.
    pub profile: String,
    /// More options of `isokiln test`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Of the whole boot test; also that of the check `boot`, unless `checks` says otherwise.
    pub verdict: Verdict,
    /// The furthest phase; absent where the ISO is not booted at all.
    pub reached: Option<String>,
    /// What went wrong; absent where all is well.
    pub cause: Option<String>,
    /// Words that the summary or evidence of what did not pass holds.
    pub evidence: Option<String>,
    /// Checks made beside `boot`, and what each says.
    #[serde(default)]
    pub checks: BTreeMap<String, Verdict>,
    /// Whether it is part of the quick subset.
    #[serde(default)]
    pub quick: bool,
}

impl Expected {
    /// Every check and what it must say, `boot` first.
    pub fn all_checks(&self) -> impl Iterator<Item = (&str, Verdict)> {
        let boot = self.checks.get("boot").copied().unwrap_or(self.verdict);
        let others = self.checks.iter().filter(|(name, _)| *name != "boot");
        std::iter::once(("boot", boot)).chain(others.map(|(name, verdict)| (name.as_str(), *verdict)))
    }
}

/// How an ISO comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// isokiln builds it; the pipeline file's path in the repository.
    Pipeline(String),
    /// A recipe of `recipe.sh` makes it.
    Recipe {
        /// The case whose ISO it changes.
        base: Option<String>,
        /// Shell.
        recipe: String,
        /// Whether it mounts and makes device files.
        rights: bool,
    },
}

/// An ISO and what its boot tests must say.
#[derive(Debug, Clone)]
pub struct Case {
    /// File name of the ISO without `.iso`.
    pub name: String,
    /// How it is made.
    pub source: Source,
    /// What is to be known about it.
    pub note: String,
    /// One for each machine, or each set of options on it.
    pub boots: Vec<Expected>,
}

/// All cases; a base comes before its twins.
#[derive(Debug, Clone)]
pub struct Table {
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// What is wrong with the table.
#[derive(Debug, PartialEq, Eq)]
pub struct TableError(pub String);

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the table of the corpus: {}", self.0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    case: Vec<WrittenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    pipeline: Option<String>,
    base: Option<String>,
    made: Option<String>,
    #[serde(default)]
    rights: bool,
    #[serde(default)]
    note: String,
    #[serde(default)]
    boots: Vec<Expected>,
}

impl Table {
    /// The repository's own.
    pub fn of_repository() -> Result<Self, TableError> {
        let path = Self::folder().join("cases.toml");
        let text =
            fs::read_to_string(&path).map_err(|error| TableError(format!("{}: {error}", path.display())))?;
        Self::parse(&text)
    }

    /// The folder of the table, recipes and pipelines.
    pub fn folder() -> PathBuf {
        repository().join("tests/corpus")
    }

    /// Reads a table.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let written: Written = toml::from_str(text).map_err(|error| TableError(error.to_string()))?;
        let mut names = BTreeSet::new();
        let mut cases = Vec::new();
        for case in written.case {
            let wrong = |what: &str| Err(TableError(format!("case {}: {what}", case.name)));
            if let Some(base) = case.base.as_ref().filter(|base| !names.contains(*base)) {
                return wrong(&format!("its base {base} is not a case before it"));
            }
            for run in &case.boots {
                for (word, known) in [(&run.reached, &PHASES[..]), (&run.cause, &CAUSES[..])] {
                    if let Some(word) = word.as_ref().filter(|word| !known.contains(&word.as_str())) {
                        return wrong(&format!("{word:?} is neither a phase nor a cause"));
                    }
                }
                if (run.verdict == Verdict::Pass) != run.cause.is_none() {
                    return wrong("what passes has no cause, and what does not has one");
                }
            }
            if !names.insert(case.name.clone()) {
                return wrong("there are two of it");
            }
            let source = match (case.pipeline, case.made) {
                (Some(pipeline), None) if case.base.is_none() => Source::Pipeline(pipeline),
                (None, Some(recipe)) => Source::Recipe { base: case.base, recipe, rights: case.rights },
                _ => return wrong("it needs either pipeline or made, and base only with made"),
            };
            cases.push(Case { name: case.name, source, note: case.note, boots: case.boots });
        }
        Ok(Self { cases })
    }

    /// The case of that name.
    pub fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_has_a_table_that_covers_every_machine() {
        let table = Table::of_repository().unwrap_or_else(|error| panic!("{error}"));
        assert!(table.cases.len() >= 36, "{} cases", table.cases.len());
        let runs: Vec<_> = table.cases.iter().flat_map(|case| &case.boots).collect();
        for profile in ["bios-cd", "bios-usb", "uefi-cd", "uefi-usb", "uefi-secureboot"] {
            let verdicts = runs.iter().filter(|run| run.profile == profile).map(|run| run.verdict);
            let verdicts: Vec<_> = verdicts.collect();
            assert!(verdicts.contains(&Verdict::Pass) && verdicts.contains(&Verdict::Fail), "{profile}");
        }
        assert!(runs.iter().filter(|run| run.quick).count() >= 5);
    }

    #[test]
    fn mistakes_in_a_table_are_found() {
        let run = "[[case.boots]]\nprofile = \"bios-cd\"\nverdict = \"FAIL\"\nreached = \"kernel\"\ncause = \"hang\"\n";
        let good = format!("[[case]]\nname = \"a\"\nmade = \"true\"\n{run}");
        assert_eq!(Table::parse(&good).expect("a table").cases.len(), 1);
        for (from, to, what) in [
            ("hang", "hangs", "\"hangs\" is neither"),
            ("cause = \"hang\"\n", "", "what passes has no cause"),
            ("made", "base = \"b\"\nmade", "base b is not a case before it"),
            ("made = \"true\"", "", "needs either pipeline or made"),
            ("profile", "profil", "unknown field"),
            ("FAIL", "FAILED", "unknown variant"),
        ] {
            let error = Table::parse(&good.replacen(from, to, 1)).expect_err(what);
            assert!(error.0.contains(what), "{error}");
        }
        let twice = good.repeat(2);
        assert!(Table::parse(&twice).expect_err("twice").0.contains("two of it"));
    }

    #[test]
    fn boot_is_always_asked_first() {
        let text = "[[case]]\nname = \"a\"\nmade = \"true\"\n[[case.boots]]\nprofile = \"x\"\nverdict = \"FAIL\"\n\
                    cause = \"check-failed\"\nchecks = { boot = \"PASS\", access = \"FAIL\" }\n";
        let table = Table::parse(text).expect("a table");
        let checks: Vec<_> = table.cases[0].boots[0].all_checks().collect();
        assert_eq!(checks, [("boot", Verdict::Pass), ("access", Verdict::Fail)]);
    }
}
