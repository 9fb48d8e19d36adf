//! The rules that logs are reviewed by: those inside the binary, and those of the project.

use std::path::Path;

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

/// The bundled rules.
pub fn bundled_rules() -> Result<RuleSet, RulesError> {
    rules_beside(Path::new("/nonexistent"))
}
