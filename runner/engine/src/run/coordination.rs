//! The coordination folder of a run: what reviewers were told, what they said, what was decided.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isokiln_core::image::Circumstances;
use isokiln_core::names::StageName;
use isokiln_core::pipeline::Hook;
use isokiln_core::review::{Excerpt, Learnings};
use serde::Serialize;

use super::home::replace_file;

/// `coordination/` of a run, made when the first thing is put into it.
#[derive(Debug)]
pub(super) struct Coordination {
    root: PathBuf,
}

/// A review of one attempt at a stage, by which its files are named.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'s> {
    pub(super) stage: &'s StageName,
    /// From 1.
    pub(super) attempt: usize,
}

impl Subject<'_> {
    fn file(self, end: &str) -> String {
        format!("{}-{}.{end}", self.stage, self.attempt)
    }
}

impl Coordination {
    pub(super) fn of(run: &Path) -> Self {
        Self { root: run.join("coordination") }
    }

    /// Makes its folders, so that who looks for something finds where it would be.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for folder in ["conversations", "context", "decisions", "learnings"] {
            fs::create_dir_all(self.root.join("ai_memory").join(folder))?;
        }
        for folder in ["hooks", "coordination", "checkpoints"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        Ok(())
    }

    /// What the reviewers saw of a log.
    pub(super) fn context(&self, subject: Subject<'_>, excerpt: &Excerpt) -> io::Result<()> {
        self.write("ai_memory/context", &subject.file("txt"), excerpt.render().as_bytes())
    }

    /// What was asked and answered.
    pub(super) fn conversation(&self, subject: Subject<'_>, attempts: &impl Serialize) -> io::Result<()> {
        self.write_json("ai_memory/conversations", &subject.file("json"), attempts)
    }

    /// What a review came to and what was done about it.
    pub(super) fn decision(&self, subject: Subject<'_>, decision: &impl Serialize) -> io::Result<()> {
        self.write_json("ai_memory/decisions", &subject.file("json"), decision)
    }

    /// What all runs have learnt so far.
    pub(super) fn learnings(&self, learnings: &Learnings) -> io::Result<()> {
        self.write_json("ai_memory/learnings", "learnings.json", learnings)
    }

    /// A stage's checkpoint.
    pub(super) fn checkpoint(&self, stage: &StageName, note: &Circumstances) -> io::Result<()> {
        self.write_json("checkpoints", &format!("{stage}.json"), note)
    }

    /// One of the documents about the whole run: `agent-assignments`, `performance-metrics`, `decision-consensus`.
    pub(super) fn document(&self, name: &str, document: &impl Serialize) -> io::Result<()> {
        self.write_json("coordination", &format!("{name}.json"), document)
    }

    /// Copies a hook of the project here, so that the run shows what it was. Gives the path of its log.
    pub(super) fn hook(&self, hook: Hook, script: &Path) -> io::Result<PathBuf> {
        let folder = self.root.join("hooks");
        let copy = folder.join(format!("{}.sh", hook.name()));
        fs::create_dir_all(&folder)?;
        if !copy.exists() {
            fs::copy(script, &copy)?;
        }
        Ok(folder.join(format!("{}.log", hook.name())))
    }

    fn write_json(&self, folder: &str, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.write(folder, name, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
    }

    fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let folder = self.root.join(folder);
        fs::create_dir_all(&folder)?;
        replace_file(&folder.join(name), bytes)
    }
}
