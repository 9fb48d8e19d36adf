//! `isokiln verify` and `isokiln gc`.

use isokiln_core::exit;
use isokiln_core::keep::Keep;
use isokiln_core::units::show_size;
use isokiln_engine::run::{Collected, Home, RunError, verify as verify_store};
use isokiln_engine::store::{GcReport, VerifyReport};

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
    let collected = match Home::find(&global.dir) {
        Some(home) => {
            let said = home.keep()?;
            let keep = Keep {
                newest: args.keep.unwrap_or(said.newest),
                younger: args.keep_for.or(said.younger),
                max_bytes: args.max_size.or(said.max_bytes),
            };
            let session = super::session(Format::Text, None)?;
            let collected = session.collect(&home, keep, args.dry_run).await?;
            if let Some(limit) = keep.max_bytes.filter(|_| !collected.store.held_by.is_empty()) {
                output::tell(&over_limit(&collected.store, limit));
            }
            collected
        }
        None => Collected::default(),
    };
    output::result(global.format, &collected, |collected| {
        let store = &collected.store;
        let verb = if args.dry_run { "would remove" } else { "removed" };
        let engine = match collected.engine_bytes {
            Some(bytes) => format!(", and {} in the engine", show_size(bytes)),
            None => String::new(),
        };
        format!(
            "{verb} {} checkpoint and artifact entries, {} files ({}), {} runs ({}){engine}\n\
             {} in the store stay\n",
            store.entries.len(),
            store.files,
            show_size(store.bytes),
            collected.runs.len(),
            show_size(collected.run_bytes),
            show_size(store.kept_bytes),
        )
    });
    Ok(exit::OK)
}

/// Holders of more than the limit that are named.
const NAMED: usize = 5;

/// Why the store stays larger than asked for.
fn over_limit(report: &GcReport, limit: u64) -> String {
    let named: Vec<_> = report.held_by.iter().take(NAMED).collect();
    let mut text = format!(
        "the store stays above {}: {} are needed by the newest checkpoint of each stage, pinned ones and boot reports\n",
        show_size(limit),
        show_size(report.kept_bytes)
    );
    for holding in &named {
        text.push_str(&format!("  {} {}\n", show_size(holding.bytes), holding.stage));
    }
    if report.held_by.len() > NAMED {
        text.push_str(&format!("  and {} more stages\n", report.held_by.len() - NAMED));
    }
    text + "isokiln checkpoint rm STAGE gives up all checkpoints of a stage; then run isokiln gc again"
}
