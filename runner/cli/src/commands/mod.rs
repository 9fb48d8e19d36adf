//! The commands: each parses nothing and decides nothing, but asks the engine and shows the answer.

mod build;
mod checkpoint;
mod doctor;
mod gc;
mod inspect;
mod kinds;
mod plan;
mod review;
mod shell;
mod test;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use isokiln_core::exit;
use isokiln_engine::archive::HttpFetch;
use isokiln_engine::run::{Events, RunError, Session, SystemClock};

use crate::args::{Checkpoint, Cli, Command, Format, Image};
use crate::consent::AtTerminal;
use crate::reporter::Terminal;
use crate::{output, signals};

/// Parses the command line, runs the command, gives its exit code.
pub(crate) fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("ISOKILN_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .without_time()
        // A log that nobody can read any more is no reason to stop.
        .log_internal_errors(false)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::tell(&format!("error: cannot start: {error}"));
            return ExitCode::from(exit::NOT_READY);
        }
    };
    let format = cli.global.format;
    let result = runtime.block_on(run(cli));
    // Helpers that still wait for something must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<u8, RunError> {
    let global = &cli.global;
    match cli.command {
        Command::Build(args) => build::run(global, args).await,
        Command::Plan(args) => plan::run(global, &args).await,
        Command::Test(args) => test::run(global, args).await,
        Command::Inspect(args) => inspect::run(global, &args),
        Command::Checkpoint(args) => checkpoint::run(global, args),
        Command::Rollback(which) => checkpoint::run(global, Checkpoint::Rollback(which)),
        Command::Shell(args) => shell::run(global, args).await,
        Command::Verify => gc::verify(global),
        Command::Gc(args) => gc::run(global, &args).await,
        Command::Kinds(args) => kinds::run(global, &args),
        Command::Review(args) => review::run(global, &args).await,
        Command::Agents => review::agents(global).await,
        Command::Rules(args) => review::rules(global, &args),
        Command::Image(Image::Build(args)) => doctor::image(global, &args).await,
        Command::Image(Image::Rm) => doctor::remove_images(global).await,
        Command::Doctor(args) => doctor::run(global, &args).await,
        Command::Clean(args) => doctor::clean(global, &args).await,
    }
}

/// Says why nothing happens for now.
fn tell_waiting(holder: &str) {
    output::tell(&format!("waiting for {holder}, which writes to the same store"));
}

/// The edges that commands use. Builds and tests tell what happens in the format asked for; every other
/// command tells people, and prints one value. Boot tests' results go to `junit` too.
fn session(format: Format, junit: Option<&Path>) -> Result<Session, RunError> {
    let clock = Arc::new(SystemClock);
    let events = Events::new(Arc::new(Terminal::new(format)), clock.clone());
    let events = match junit {
        Some(path) => events.with_junit(path)?,
        None => events,
    };
    let cancel = signals::listen(Arc::new(events.clone()))
        .map_err(|error| RunError::Network(format!("signals cannot be caught: {error}")))?;
    let fetch = HttpFetch::new().map_err(RunError::Network)?;
    Ok(Session { events, cancel, clock, fetch: Arc::new(fetch), consent: Arc::new(AtTerminal::default()) })
}
