//! The rules that logs are reviewed by: those inside the binary, and those of the project.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use isokiln_core::review::{RuleSet, RuleSetError, parse_rules};

use crate::definition::{Definition, DefinitionError, own};
use crate::library::RULES;

/// Folder of a project's own rules, beside its pipeline files.
const OWN: &str = "review/rules";

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file of rules is wrong.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The rules cannot be used together.
    #[error(transparent)]
    Set(#[from] RuleSetError),
}

/// What is bundled, and what lies in `review/rules/` of a folder. A rule of the project takes the place of a bundled
/// one with the same id.
pub fn rules_beside(folder: &Path) -> Result<RuleSet, RulesError> {
    let mut rules = Vec::new();
    for (name, text) in RULES {
        rules.extend(Definition::bundled(name, text).read(|_, text| parse_rules(text))?);
    }
    let mut project = Vec::new();
    for definition in own(&folder.join(OWN))? {
        project.extend(definition.read(|_, text| parse_rules(text))?);
    }
    rules.retain(|rule| !project.iter().any(|other| other.id == rule.id));
    rules.extend(project);
    Ok(RuleSet::new(rules)?)
}

/// The rules of a folder, made when the first log is read: a build that finds all its checkpoints reads none.
#[derive(Debug)]
pub struct LazyRules {
    folder: PathBuf,
    rules: OnceLock<Result<RuleSet, RulesError>>,
}

impl LazyRules {
    /// Those that lie in a folder are read now, so that what is wrong with them is told at once.
    pub fn beside(folder: &Path) -> Result<Self, RulesError> {
        let rules = OnceLock::new();
        if folder.join(OWN).is_dir() {
            // It has just been made.
            let _ = rules.set(Ok(rules_beside(folder)?));
        }
        Ok(Self { folder: folder.to_owned(), rules })
    }

    /// The rules.
    pub fn get(&self) -> Result<&RuleSet, &RulesError> {
        self.rules.get_or_init(|| rules_beside(&self.folder)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use isokiln_core::review::{Action, Diagnosis, Facts, diagnose, prove};

    use super::*;
    use crate::run::read_log;

    fn bundled_rules() -> Result<RuleSet, RulesError> {
        rules_beside(Path::new("/nonexistent"))
    }

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
    }

    fn diagnosis(rules: &RuleSet, path: &Path, status: Option<i64>) -> Diagnosis {
        let reading =
            read_log(path, rules, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        diagnose(rules, &reading, &Facts::of_status(status))
    }

    /// The logs of a folder, by name.
    fn logs(folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(fixtures().join("logs").join(folder)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "log"));
        paths.sort();
        assert!(paths.len() >= 6, "{paths:?}");
        paths
    }

    #[test]
    fn every_rule_reads_its_own_examples_and_nobody_elses() {
        let faults = prove(&bundled_rules().unwrap());
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// `failure_catalogue.tsv`: real failures with the sources of their lines, collected for this project.
    #[test]
    fn every_failure_of_the_catalogue_has_its_cause_and_its_action() {
        let rules = bundled_rules().unwrap();
        let text = fs::read_to_string(fixtures().join("failure_catalogue.tsv")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut rows = 0;
        let mut wrong = Vec::new();
        for row in text.lines().skip(1) {
            let fields: Vec<_> = row.split('\t').collect();
            let [id, _, line, _, action, ..] = fields.as_slice() else { panic!("{row}") };
            rows += 1;
            fs::write(&path, line.replace("\\n", "\n") + "\n").unwrap();
            let diagnosis = diagnosis(&rules, &path, None);
            let answers =
                |rule: &str| rules.get(rule).is_some_and(|rule| rule.catalogue.iter().any(|row| row == id));
            let is_no_cause = action.starts_with("none") || action.starts_with("act on");
            let right = match &diagnosis.cause {
                Some(cause) => {
                    let first = action.split([' ', ',', ';']).next().unwrap_or_default();
                    let first = match first {
                        "rollback_checkpoint" => "rollback".to_owned(),
                        "skip_optional_package" => "skip-optional".to_owned(),
                        // "look above; else refresh_mirror"
                        "look" => "refresh-mirror".to_owned(),
                        other => other.replace('_', "-"),
                    };
                    !is_no_cause && answers(&cause.rule) && diagnosis.action().name() == first
                }
                None => {
                    let is_listed =
                        rules.rules().iter().any(|rule| rule.catalogue.iter().any(|row| row == id));
                    is_no_cause && is_listed && diagnosis.action() == Action::None
                }
            };
            if !right {
                wrong.push(format!("{id}: {:?} {}; {action}", diagnosis.cause, diagnosis.action()));
            }
        }
        assert_eq!((rows, wrong), (108, Vec::<String>::new()));
    }

    #[test]
    fn logs_of_builds_that_went_well_raise_no_alarm() {
        let rules = bundled_rules().unwrap();
        for path in logs("good") {
            for status in [None, Some(0)] {
                let diagnosis = diagnosis(&rules, &path, status);
                assert_eq!(diagnosis.cause, None, "{} with {status:?}", path.display());
            }
        }
    }

    #[test]
    fn real_failures_have_the_cause_that_was_brought_about() {
        let rules = bundled_rules().unwrap();
        let text = fs::read_to_string(fixtures().join("logs/bad/expected.tsv")).unwrap();
        let mut seen = Vec::new();
        for row in text.lines().filter(|row| !row.starts_with('#') && !row.starts_with("file\t")) {
            let [file, rule, line] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let path = fixtures().join("logs/bad").join(file);
            let cause = diagnosis(&rules, &path, Some(1)).cause;
            let found = cause.map(|cause| (cause.rule, cause.line.unwrap_or(0).to_string()));
            assert_eq!(found, Some((rule.to_owned(), line.to_owned())), "{file}");
            seen.push(path);
        }
        seen.sort();
        assert_eq!(seen, logs("bad"), "every log has its line in expected.tsv");
    }

    #[test]
    fn a_projects_rule_takes_the_place_of_a_bundled_one() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join(OWN);
        fs::create_dir_all(&own).unwrap();
        let rule = |id: &str, pattern: &str| {
            format!(
                "[[rule]]\nid = {id:?}\nclass = \"cause\"\npattern = {pattern:?}\nexplanation = \"ours\"\n\
                 source = [\"us\"]\nexample = \"x\"\n"
            )
        };
        fs::write(
            own.join("a.toml"),
            rule("apt-hash-sum-mismatch", "Hash Sum") + &rule("our-tool", "^our tool"),
        )
        .unwrap();
        let rules = rules_beside(folder.path()).unwrap();
        assert_eq!(rules.get("apt-hash-sum-mismatch").unwrap().explanation, "ours");
        assert_eq!(rules.rules().len(), bundled_rules().unwrap().rules().len() + 1);
        fs::write(own.join("b.toml"), rule("our-tool", "again")).unwrap();
        assert!(matches!(rules_beside(folder.path()), Err(RulesError::Set(_))));
        fs::write(own.join("b.toml"), rule("other", "(")).unwrap();
        let error = rules_beside(folder.path()).unwrap_err().to_string();
        assert!(error.contains("b.toml is not valid"), "{error}");
    }
}
