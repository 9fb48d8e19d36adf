//! `isokiln build`: a viewer, a supervisor, or both in one.

use std::ffi::OsString;
use std::path::Path;

use isokiln_core::exit;
use isokiln_core::review::Recover;
use isokiln_core::session::{Logout, Place};
use isokiln_engine::run::{
    BuildOptions, Home, Hub, Project, RunError, Session, Supervisor, SystemClock, Testing, become_supervisor,
    logout,
};
use isokiln_engine::store::Compression;
use tokio::net::UnixStream;

use crate::args::{Build, Global, LayerCompression, RecoverMode};
use crate::view::{Purpose, Seen, Signals, tell_left, watch};
use crate::{output, words};

pub(super) async fn run(global: &Global, args: Build) -> Result<u8, RunError> {
    if let Some(place) = &global.supervise {
        return supervise(global, args, place).await;
    }
    // What is wrong with the file is told before anything is made, isokiln's folder included.
    let project = Project::load(&args.file)?;
    let place = super::place();
    // What is no file, such as a pipe, can be read only once.
    if args.foreground || place.stays_in_foreground() || !args.file.is_file() {
        let session = super::session(global.format, args.junit.as_deref())?;
        let result = build(&session, &global.dir, project, &args).await;
        return super::conclude(&session.hub, |code| *code, result).await;
    }
    let signals = Signals::catch()?;
    let logout = logout();
    if logout == Logout::Kills {
        output::tell(&words::line("warning", &words::fair(), logout.words()));
        if let Some(cure) = logout.cure() {
            output::tell(&words::line("", &words::faint(), cure));
        }
    }
    let place = serde_json::to_string(&place).unwrap_or_default();
    let arguments = std::env::args_os().skip(1);
    let (supervisor, stream) = Supervisor::start(
        [OsString::from("--supervise"), place.into()].into_iter().chain(arguments),
        logout,
    )?;
    let purpose = if args.detach { Purpose::Begin } else { Purpose::Build };
    match watch(stream, signals, global.format, purpose).await? {
        Seen::Ended(ending) => {
            if let Some(problem) = &ending.problem {
                output::error(global.format, problem, ending.exit_code);
            }
            Ok(ending.exit_code)
        }
        Seen::Left(code) => {
            tell_left(None);
            Ok(code.unwrap_or(exit::OK))
        }
        Seen::Lost(run) => {
            let how = supervisor.ended();
            let run = run.map(|run| run.to_string());
            lost(&global.dir, run.as_deref(), how)
        }
    }
}

/// What a run came to whose process has gone without a word to its viewer: its files may say.
pub(super) fn lost(dir: &Path, run: Option<&str>, how: String) -> Result<u8, RunError> {
    let view = run.and_then(|run| Home::find(dir)?.run_view(Some(run)).ok());
    match view.and_then(|view| view.report(&SystemClock).record.exit_code) {
        Some(code) => Ok(code),
        None => Err(RunError::SupervisorGone { run: run.map(str::to_owned), how }),
    }
}

/// Builds for a viewer that may leave at any time.
async fn supervise(global: &Global, args: Build, place: &str) -> Result<u8, RunError> {
    let broken = |error: std::io::Error| RunError::Supervisor(error);
    let place: Place = serde_json::from_str(place).map_err(|error| broken(error.into()))?;
    let stream = become_supervisor()?;
    stream.set_nonblocking(true).map_err(broken)?;
    let stream = UnixStream::from_std(stream).map_err(broken)?;
    let (hub, wishes) = Hub::new();
    hub.serve(stream);
    let result = async {
        let session = super::supervised(hub.clone(), wishes, place, args.junit.as_deref())?;
        // The viewer has read the file a moment ago; what is wrong with it now is told there too.
        let project = Project::load(&args.file)?;
        build(&session, &global.dir, project, &args).await
    };
    let result = result.await;
    super::conclude(&hub, |code| *code, result).await
}

async fn build(session: &Session, dir: &Path, project: Project, args: &Build) -> Result<u8, RunError> {
    let options = BuildOptions {
        until: args.until.clone(),
        from: args.from.clone(),
        compression: match args.compression {
            LayerCompression::Zstd => Compression::Zstd,
            LayerCompression::Gzip => Compression::Gzip,
        },
        parallel: args.parallel,
        recover: match args.recover {
            RecoverMode::Auto => Recover::Auto,
            RecoverMode::Ask => Recover::Ask,
            RecoverMode::Off => Recover::Off,
        },
    };
    let testing = match (args.no_test, args.retest) {
        (true, _) => Testing::Never,
        (false, true) => Testing::Always,
        (false, false) => Testing::AsNeeded,
    };
    session.build(dir, project, options, testing).await
}
