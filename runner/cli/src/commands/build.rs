//! `isokiln build`: a viewer, a supervisor, or both in one.

use std::ffi::OsString;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;

use isokiln_core::review::Recover;
use isokiln_core::session::{Logout, Place};
use isokiln_engine::run::{BuildOptions, Hub, Project, RunError, Session, Supervisor, Testing, logout};
use isokiln_engine::store::Compression;
use tokio::net::UnixStream;

use crate::args::{Build, Global, LayerCompression, RecoverMode};
use crate::reporter::Terminal;
use crate::view::{AGAIN, Purpose, Signals, watch};
use crate::{output, words};

pub(super) async fn run(global: &Global, args: Build, viewer: Option<StdStream>) -> Result<u8, RunError> {
    if let (Some(place), Some(viewer)) = (&global.supervise, viewer) {
        return supervise(global, args, place, viewer).await;
    }
    // What is wrong with the file is told before anything is made, isokiln's folder included.
    let project = Project::load(&args.file)?;
    for stage in [&args.until, &args.from].into_iter().flatten() {
        project.stage(stage)?;
    }
    let place = super::place();
    let only_here = [Some(&args.file), args.junit.as_ref()].into_iter().flatten().find(|path| is_own(path));
    let only_here = only_here.or_else(|| Some(&args.file).filter(|file| !file.is_file()));
    if args.foreground || place.stays_in_foreground() || only_here.is_some() {
        if args.detach {
            let why = only_here.map_or("what outlives a job of CI is killed".to_owned(), |path| {
                format!("no other process can open {}", path.display())
            });
            let text = format!("--detach does nothing: {why}");
            output::tell(&words::line("warning", &words::fair(), &text));
        }
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
    let terminal = Terminal::new(global.format, Some(AGAIN.to_owned()));
    let seen = watch(stream, signals, &terminal, global.format, purpose).await?;
    super::runs::after(global, &terminal, seen, None, || supervisor.ended())
}

/// Whether a path names what this process has open, such as its standard input: it is something else to another process.
fn is_own(path: &Path) -> bool {
    ["/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|own| path.starts_with(own))
}

/// Builds for a viewer that may leave at any time.
async fn supervise(global: &Global, args: Build, place: &str, viewer: StdStream) -> Result<u8, RunError> {
    let broken = |error: std::io::Error| RunError::Supervisor(error);
    let place: Place = serde_json::from_str(place).map_err(|error| broken(error.into()))?;
    viewer.set_nonblocking(true).map_err(broken)?;
    let (hub, wishes) = Hub::new();
    hub.serve(UnixStream::from_std(viewer).map_err(broken)?);
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
