//! Where output goes: JSON to standard output, words for people to standard error.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use isokiln_core::exit;
use isokiln_engine::definition::DefinitionError;
use isokiln_engine::kinds::KindError;
use isokiln_engine::run::RunError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Format;
use crate::{diagnostics, words};

/// Prints a command's result: as JSON, or what `text` makes of it.
pub(crate) fn result<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) {
    match format {
        Format::Json => json_line(value),
        Format::Text => print(&text(value)),
    }
}

/// One JSON value on a line of its own.
pub(crate) fn json_line(value: &impl Serialize) {
    print(&format!("{}\n", serde_json::to_string(value).unwrap_or_default()));
}

/// Prints to standard output. A reader who has left, as `head` does, ends the output and nothing else.
pub(crate) fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        // Nobody reads any more.
    }
}

/// Prints what is wrong with the command line, or the help that was asked for; gives the exit code.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if this fails.
    drop(error.print());
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let words: Vec<_> = std::env::args_os().collect();
    let asks = |pair: &[OsString]| pair[0] == "--format" && pair[1] == "json";
    if words.windows(2).any(asks) || words.iter().any(|word| word == "--format=json") {
        let text = error.to_string();
        let mut paragraphs = text.trim_start_matches("error: ").splitn(2, "\n\n");
        let message = paragraphs.next().unwrap_or_default().trim();
        let hint = paragraphs.next().map(str::trim);
        json_line(&json!({"error": {
            "message": message, "causes": [], "hint": hint, "exit_code": exit::USAGE, "diagnostics": [],
        }}));
    }
    ExitCode::from(exit::USAGE)
}

/// Tells people, on standard error. Where nobody listens any more, as when a terminal or pipe was closed,
/// the work goes on.
pub(crate) fn tell(text: &str) {
    let mut stderr = io::stderr().lock();
    // The line as a whole, so that no other program's output comes in between.
    drop(stderr.write_all(format!("{text}\n").as_bytes()));
}

/// Prints an error: what, why, what next.
pub(crate) fn error(format: Format, error: &RunError) {
    let (path, text, mistakes) = match error {
        RunError::Pipeline { path, text, diagnostics } => (Some(path), text.as_str(), Some(diagnostics)),
        RunError::Kind(KindError::Manifest { path, text, diagnostics })
        | RunError::Definition(DefinitionError::Wrong { path, text, diagnostics }) => {
            (Some(path), text.as_str(), Some(diagnostics))
        }
        _ => (None, "", None),
    };
    let path = path.map(|path| path.display().to_string()).unwrap_or_default();
    match mistakes {
        Some(mistakes) => tell(diagnostics::render(&path, text, mistakes).trim_end_matches('\n')),
        // A failed stage has been told of when it failed.
        None if matches!(error, RunError::Stage { .. }) => {}
        None => {
            tell(&format!("{} {error}", words::bad().apply_to("error:")));
            for cause in causes(error) {
                tell(&format!("  {} {cause}", words::faint().apply_to("cause:")));
            }
            if let Some(hint) = error.hint() {
                tell(&format!("   {} {hint}", words::calm().apply_to("hint:")));
            }
        }
    }
    if format == Format::Json {
        let mistakes: Vec<Value> = mistakes
            .iter()
            .flat_map(|mistakes| &mistakes.0)
            .map(|mistake| {
                let (line, column) = mistake.position(text);
                json!({
                    "file": path, "line": line, "column": column,
                    "message": mistake.message, "label": mistake.label, "help": mistake.help,
                })
            })
            .collect();
        json_line(&json!({"error": {
            "message": error.to_string(),
            "causes": causes(error),
            "hint": error.hint(),
            "exit_code": error.exit_code(),
            "diagnostics": mistakes,
        }}));
    }
}

/// The error's sources, without those that say what another has said already.
fn causes(error: &RunError) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !error.to_string().contains(&text) && !causes.iter().any(|cause| cause.contains(&text)) {
            causes.push(text);
        }
        source = inner.source();
    }
    causes
}
