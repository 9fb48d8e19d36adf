//! `isokiln build`.

use isokiln_engine::run::{BuildOptions, RunError, Testing};
use isokiln_engine::store::Compression;

use crate::args::{Build, Global, LayerCompression};

pub(super) async fn run(global: &Global, args: Build) -> Result<u8, RunError> {
    let session = super::session(global.format)?;
    let options = BuildOptions {
        until: args.until,
        from: args.from,
        compression: match args.compression {
            LayerCompression::Zstd => Compression::Zstd,
            LayerCompression::Gzip => Compression::Gzip,
        },
        parallel: 1,
    };
    let testing = match (args.no_test, args.retest) {
        (true, _) => Testing::Never,
        (false, true) => Testing::Always,
        (false, false) => Testing::AsNeeded,
    };
    session.build(&global.dir, &args.file, options, testing).await
}
