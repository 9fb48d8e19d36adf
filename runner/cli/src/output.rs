//! Where output goes: JSON to standard output, words for people to standard error.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use isokiln_core::exit;
use isokiln_core::session::Problem;
use isokiln_engine::definition::DefinitionError;
use isokiln_engine::kinds::KindError;
use isokiln_engine::run::RunError;
use nix::errno::Errno;
use serde::Serialize;
use serde_json::json;

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
    print_bytes(text.as_bytes());
}

/// The same for somebody else's output as it is.
pub(crate) fn print_bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    STDOUT.note(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// Whether a stream's reader has left: what is done only to be looked at can end then.
pub(crate) struct Reader(AtomicBool);

/// Who reads standard output.
pub(crate) static STDOUT: Reader = Reader(AtomicBool::new(false));
/// Who reads standard error.
pub(crate) static STDERR: Reader = Reader(AtomicBool::new(false));

impl Reader {
    /// Who reads what is told of a run.
    pub(crate) fn of(format: Format) -> &'static Self {
        match format {
            Format::Json => &STDOUT,
            Format::Text => &STDERR,
        }
    }

    /// Whether something was written that nobody reads: the pipe, or the terminal, is closed.
    pub(crate) fn has_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self, written: io::Result<()>) {
        let closed = [Errno::EPIPE, Errno::EIO].map(|errno| Some(errno as i32));
        if written.is_err_and(|error| closed.contains(&error.raw_os_error())) {
            self.0.store(true, Ordering::Relaxed);
        }
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
    STDERR.note(stderr.write_all(format!("{text}\n").as_bytes()));
}

/// An error in all that can be told of it.
pub(crate) fn problem(error: &RunError) -> Problem {
    let (path, text, mistakes) = match error {
        RunError::Pipeline { path, text, diagnostics } => (Some(path), text.as_str(), Some(diagnostics)),
        RunError::Kind(KindError::Manifest { path, text, diagnostics })
        | RunError::Definition(DefinitionError::Wrong { path, text, diagnostics }) => {
            (Some(path), text.as_str(), Some(diagnostics))
        }
        _ => (None, "", None),
    };
    let path = path.map(|path| path.display().to_string()).unwrap_or_default();
    let diagnostics = mistakes.iter().flat_map(|mistakes| &mistakes.0).map(|mistake| {
        let (line, column) = mistake.position(text);
        json!({
            "file": path, "line": line, "column": column,
            "message": mistake.message, "label": mistake.label, "help": mistake.help,
        })
    });
    Problem {
        message: error.to_string(),
        causes: error.causes(),
        hint: error.hint(),
        diagnostics: diagnostics.collect(),
        shown: mistakes
            .map(|mistakes| diagnostics::render(&path, text, mistakes).trim_end_matches('\n').to_owned()),
        told: matches!(error, RunError::Stage { .. }),
    }
}

/// Prints an error: what, why, what next.
pub(crate) fn error(format: Format, problem: &Problem, exit_code: u8) {
    match &problem.shown {
        Some(shown) => tell(shown),
        None if problem.told => {}
        None => {
            tell(&format!("{} {}", words::bad().apply_to("error:"), problem.message));
            for cause in &problem.causes {
                tell(&format!("  {} {cause}", words::faint().apply_to("cause:")));
            }
            if let Some(hint) = &problem.hint {
                tell(&format!("   {} {hint}", words::calm().apply_to("hint:")));
            }
        }
    }
    if format == Format::Json {
        let Problem { message, causes, hint, diagnostics, .. } = problem;
        json_line(&json!({"error": {
            "message": message, "causes": causes, "hint": hint, "exit_code": exit_code, "diagnostics": diagnostics,
        }}));
    }
}
