//! What agents have used over all builds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use isokiln_core::review::Cost;
use serde::{Deserialize, Serialize};

use crate::guard::FolderGuard;

/// What a provider was used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spent {
    /// Calls that were answered.
    pub calls: u64,
    /// Tokens read.
    pub tokens_in: u64,
    /// Tokens written.
    pub tokens_out: u64,
    /// Money, as far as prices are known.
    pub micro_dollars: Cost,
}

/// A file with what each provider was used for.
#[derive(Debug)]
pub struct Ledger {
    file: PathBuf,
}

impl Ledger {
    /// `ledger.json` in that folder, which is made when the first call comes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { file: folder.into().join("ledger.json") }
    }

    /// What is in the file; nothing if there is none or it does not read.
    pub fn read(&self) -> BTreeMap<String, Spent> {
        fs::read(&self.file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Adds what was used. That this fails only makes the figures smaller than they are.
    pub(super) fn add(&self, provider: &str, spent: Spent) {
        let Some(folder) = self.file.parent() else { return };
        // What another process notes at the same time must not get lost.
        let Ok(_guard) = fs::create_dir_all(folder).and_then(|()| FolderGuard::take(folder)) else { return };
        let mut all = self.read();
        let entry = all.entry(provider.to_owned()).or_default();
        entry.calls += spent.calls;
        entry.tokens_in += spent.tokens_in;
        entry.tokens_out += spent.tokens_out;
        entry.micro_dollars += spent.micro_dollars;
        if let Err(error) = self.write(folder, &all) {
            tracing::debug!(%error, "what agents cost is not noted");
        }
    }

    fn write(&self, folder: &Path, all: &BTreeMap<String, Spent>) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(all)?)?;
        file.persist(&self.file)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_adds_up_over_builds() {
        let folder = tempfile::tempdir().unwrap();
        let spent = Spent { calls: 1, tokens_in: 100, tokens_out: 10, micro_dollars: Cost(7) };
        Ledger::new(folder.path().join("agents")).add("groq", spent);
        let again = Ledger::new(folder.path().join("agents"));
        again.add("groq", spent);
        again.add("gemini", spent);
        assert_eq!(again.read()["groq"].tokens_in, 200);
        assert_eq!(again.read()["gemini"], spent);
        fs::write(folder.path().join("agents/ledger.json"), "[").unwrap();
        assert!(again.read().is_empty());
    }
}
