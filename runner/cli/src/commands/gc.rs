//! `isokiln verify` and `isokiln gc`.

use isokiln_core::exit;
use isokiln_core::units::show_size;
use isokiln_engine::run::{Home, RunError, verify as verify_store};
use isokiln_engine::store::{GcReport, KeepRule, VerifyReport};

use crate::args::{Format, Gc, Global};
use crate::output;

pub(super) fn verify(global: &Global) -> Result<u8, RunError> {
    let report = match Home::find(&global.dir) {
        Some(home) => verify_store(&home, super::tell_waiting)?,
        None => VerifyReport::default(),
    };
    output::result(global.format, &report, |report| {
        let mut text = format!(
            "{} blobs, {}, {} manifests: {}\n",
            report.blobs,
            show_size(report.bytes),
            report.manifests,
            if report.is_clean() { "all as they should be" } else { "DAMAGED" }
        );
        if let Some(problem) = &report.index {
            text.push_str(&format!("  {problem}\n    written anew from the manifests; pins are lost\n"));
        }
        for damage in &report.damage {
            text.push_str(&format!("  {}: {}\n", damage.blob, damage.problem));
            if !damage.stages.is_empty() {
                text.push_str(&format!("    needed by {}\n", damage.stages.join(", ")));
            }
        }
        if !report.damage.is_empty() {
            text.push_str("the next build makes anew what rests on this; isokiln gc frees its space\n");
        }
        text
    });
    Ok(if report.is_clean() { exit::OK } else { exit::NOT_READY })
}

pub(super) async fn run(global: &Global, args: &Gc) -> Result<u8, RunError> {
    let report = match Home::find(&global.dir) {
        Some(home) => {
            let session = super::session(Format::Text, None)?;
            session.collect(&home, KeepRule { newest: args.keep }, args.dry_run).await?
        }
        None => GcReport::default(),
    };
    output::result(global.format, &report, |report| {
        let verb = if args.dry_run { "would remove" } else { "removed" };
        format!(
            "{verb} {} checkpoint and artifact entries, {} files ({}) and {} runs\n",
            report.entries.len(),
            report.files,
            show_size(report.bytes),
            report.runs.len()
        )
    });
    Ok(exit::OK)
}
