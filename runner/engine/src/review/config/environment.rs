//! Variables of the process, over those of `.env`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::ConfigError;

/// Every variable that says something about agents; `.env.example` documents each.
pub const VARIABLES: [&str; 27] = [
    "AILINUX_AI_C1_AVAILABLE",
    "AILINUX_AI_C2_AVAILABLE",
    "AILINUX_AI_C3_AVAILABLE",
    "AILINUX_AI_PARALLEL_AGENTS",
    "AILINUX_AI_SESSION_SAFE",
    "AILINUX_ENABLE_AI_COORDINATION",
    "ANTHROPIC_API_KEY",
    "C1_API_KEY",
    "C1_ENDPOINT",
    "C1_MODEL",
    "C1_PROTOCOL",
    "C2_API_KEY",
    "C2_ENDPOINT",
    "C2_MODEL",
    "C2_PROTOCOL",
    "C3_API_KEY",
    "C3_ENDPOINT",
    "C3_MODEL",
    "C3_PROTOCOL",
    "GEMINI_API_KEY",
    "GROK_API_KEY",
    "GROQ_API_KEY",
    "ISOKILN_AI_COST",
    "ISOKILN_AI_TOKENS",
    "MISTRAL_API_KEY",
    "MIXTRAL_API_KEY",
    "XAI_API_KEY",
];

/// The variables about agents: those of the process, and under them those of a `.env`. Nothing is ever set in the
/// process, so no stage sees a key.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process's variables over those of `.env` in that folder, which need not be there.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        Self::overlay(folder, |name| std::env::var(name).ok())
    }

    /// The same with the process's variables given.
    pub fn overlay(folder: &Path, process: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut all = of_file(&folder.join(".env"))?;
        for name in VARIABLES {
            // One that is set to nothing hides the file's.
            all.extend(process(name).map(|value| (name.to_owned(), value)));
        }
        Ok(Self(all))
    }

    /// A variable's value; what is empty is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

/// Names only: values may be keys.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether a line gives one of the variables a value, well or badly.
fn is_about_agents(line: &str) -> bool {
    let name = line.trim_start().trim_start_matches("export ").split('=').next().unwrap_or_default();
    VARIABLES.contains(&name.trim())
}

fn of_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut all = BTreeMap::new();
    // The file may be for other programs too, which read it in other ways.
    for (index, line) in text.lines().enumerate().filter(|(_, line)| is_about_agents(line)) {
        for assignment in dotenvy::from_read_iter(line.as_bytes()) {
            // The error's words repeat the line.
            let (name, value) = assignment
                .map_err(|_| ConfigError::NoAssignment { path: path.to_owned(), number: index + 1 })?;
            all.insert(name, value);
        }
    }
    Ok(all)
}
