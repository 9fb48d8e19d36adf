//! `isokiln build`.

use isokiln_core::review::Recover;
use isokiln_engine::run::{BuildOptions, Project, RunError, Testing};
use isokiln_engine::store::Compression;

use crate::args::{Build, Global, LayerCompression, RecoverMode};

pub(super) async fn run(global: &Global, args: Build) -> Result<u8, RunError> {
    // What is wrong with the file is told before anything is made, isokiln's folder included.
    let project = Project::load(&args.file)?;
    let session = super::session(global.format, args.junit.as_deref())?;
    let options = BuildOptions {
        until: args.until,
        from: args.from,
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
    session.build(&global.dir, project, options, testing).await
}
