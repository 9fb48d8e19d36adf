//! The commands: each parses nothing and decides nothing, but asks the engine and shows the answer.

mod build;
mod checkpoint;
mod doctor;
mod gc;
mod inspect;
mod kinds;
mod plan;
mod review;
mod runs;
mod shell;
mod test;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use isokiln_core::exit;
use isokiln_core::session::{Ending, Place, Wish};
use isokiln_engine::archive::HttpFetch;
use isokiln_engine::run::{
    Consent, Events, Hub, Reporter, RunError, Session, SystemClock, become_supervisor,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::args::{Checkpoint, Cli, Command, Format, Image};
use crate::consent::AtTerminal;
use crate::reporter::Terminal;
use crate::view::AGAIN;
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
    let format = cli.global.format;
    // Before there is anything open that must not be closed.
    let viewer = match cli.global.supervise.is_some().then(become_supervisor).transpose() {
        Ok(viewer) => viewer,
        Err(error) => return failed(format, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::tell(&format!("error: cannot start: {error}"));
            return ExitCode::from(exit::NOT_READY);
        }
    };
    let result = runtime.block_on(run(cli, viewer));
    // Helpers that still wait for something must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(format, &error),
    }
}

fn failed(format: Format, error: &RunError) -> ExitCode {
    output::error(format, &output::problem(error), error.exit_code());
    ExitCode::from(error.exit_code())
}

/// Runs a command; `viewer` is who started it to be a supervisor.
async fn run(cli: Cli, viewer: Option<UnixStream>) -> Result<u8, RunError> {
    let global = &cli.global;
    match cli.command {
        Command::Build(args) => build::run(global, args, viewer).await,
        Command::Attach(args) => runs::attach(global, &args).await,
        Command::Status(args) => runs::status(global, &args),
        Command::Logs(args) => runs::logs(global, &args).await,
        Command::Cancel(args) => runs::cancel(global, &args).await,
        Command::Runs => runs::list(global),
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
    output::tell(&format!("waiting for {holder}"));
}

/// The edges that commands use. Builds and tests tell what happens in the format asked for; every other
/// command tells people, and prints one value. Boot tests' results go to `junit` too.
fn session(format: Format, junit: Option<&Path>) -> Result<Session, RunError> {
    let (hub, wishes) = Hub::new();
    let terminal: Arc<dyn Reporter> = Arc::new(Terminal::new(format, Some(AGAIN.to_owned())));
    assemble(vec![terminal, Arc::new(hub.clone())], junit, hub, wishes, place(), None)
}

/// The edges of a supervisor: it tells its viewers, and asks them.
fn supervised(
    hub: Hub,
    wishes: UnboundedReceiver<Wish>,
    place: Place,
    junit: Option<&Path>,
) -> Result<Session, RunError> {
    assemble(vec![Arc::new(hub.clone())], junit, hub.clone(), wishes, place, Some(Arc::new(hub)))
}

fn assemble(
    reporters: Vec<Arc<dyn Reporter>>,
    junit: Option<&Path>,
    hub: Hub,
    wishes: UnboundedReceiver<Wish>,
    place: Place,
    viewers: Option<Arc<dyn Consent>>,
) -> Result<Session, RunError> {
    let clock = Arc::new(SystemClock);
    let events = Events::new(reporters, clock.clone());
    let events = match junit {
        Some(path) => events.with_junit(path)?,
        None => events,
    };
    let supervised = viewers.is_some();
    let cancel = signals::listen(events.clone(), wishes, !supervised)
        .map_err(|error| RunError::Network(format!("signals cannot be caught: {error}")))?;
    let fetch = Arc::new(HttpFetch::new().map_err(RunError::Network)?);
    let consent = viewers.unwrap_or_else(|| Arc::new(AtTerminal::default()));
    Ok(Session { events, cancel, clock, fetch, consent, hub, place, supervised })
}

/// Where this command was started.
fn place() -> Place {
    let terminal =
        nix::unistd::ttyname(std::io::stderr()).or_else(|_| nix::unistd::ttyname(std::io::stdin()));
    let terminal = terminal.ok().map(|path| path.to_string_lossy().into_owned());
    Place::detect(|name| std::env::var(name).ok(), terminal.as_deref())
}

/// Tells whoever has attached how a command has ended.
async fn conclude<T>(
    hub: &Hub,
    exit_code: impl FnOnce(&T) -> u8,
    result: Result<T, RunError>,
) -> Result<T, RunError> {
    let ending = match &result {
        Ok(done) => Ending { exit_code: exit_code(done), problem: None },
        Err(error) => Ending { exit_code: error.exit_code(), problem: Some(output::problem(error)) },
    };
    hub.end(ending).await;
    result
}
