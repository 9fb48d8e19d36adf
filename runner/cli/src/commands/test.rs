//! `isokiln test`.

use isokiln_engine::run::{RunError, TestRequest, choose_profiles, default_checks};
use serde_json::json;

use crate::args::{Format, Global, Test};
use crate::output;

pub(super) async fn run(global: &Global, args: Test) -> Result<u8, RunError> {
    let profiles = choose_profiles(&args.profile)?;
    let checks = if args.check.is_empty() { default_checks() } else { args.check };
    let request = TestRequest { iso: args.iso, profiles, checks, memory: args.memory, cpus: args.cpus };
    let session = super::session(global.format)?;
    let (code, reports, folder) = session.test(&global.dir, request).await?;
    if global.format == Format::Json {
        output::json_line(&json!({"reports": reports, "folder": folder, "exit_code": code}));
    }
    Ok(code)
}
