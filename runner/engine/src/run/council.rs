//! The council of a command: its seats from the environment and `.env`, its memory in isokiln's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::RunError;
use crate::review::{Cache, Council, Environment, HttpAsk, Ledger, Seats};

/// The agents that are configured for a project; without any, nobody can be asked. The `.env` is that of the project's folder, or
/// else that of the current one.
pub fn council(project: Option<&Path>, home: &Path) -> Result<Council, RunError> {
    let has_file = |folder: &PathBuf| folder.join(".env").is_file();
    let here = || PathBuf::from(".");
    let folder = project.map(Path::to_owned).filter(has_file).unwrap_or_else(here);
    let environment = Environment::read(&folder).map_err(RunError::Agents)?;
    let seats = Seats::from_environment(&|name| environment.get(name).map(str::to_owned));
    let seats = seats.map_err(RunError::Agents)?;
    let memory = home.join("review");
    let ask = HttpAsk::new().map_err(RunError::Network)?;
    Ok(Council::new(
        seats,
        Arc::new(ask),
        Some(Cache::new(memory.join("replies"))),
        Some(Ledger::new(memory)),
    ))
}
