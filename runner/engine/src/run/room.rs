//! Full disks: which one it is, and what would free how much there.

use std::collections::BTreeSet;
use std::path::Path;

use isokiln_core::digest::DiffId;
use isokiln_core::image::Checkpoint;
use isokiln_core::names::StageName;
use isokiln_core::review::Room;
use isokiln_core::units::show_size;

use super::build::Build;
use super::clean::collect_runs;
use super::error::{RunError, room};
use super::home::Home;
use crate::store::KeepRule;

/// What `isokiln gc --keep 1` keeps.
const LEAST: KeepRule = KeepRule { newest: 1, since: None, max_bytes: None };

impl Build {
    /// The error for a stage that found no room: where, and what would make some. Every other error stays as it is.
    pub(super) async fn with_room(&self, stage: &StageName, error: RunError) -> RunError {
        let (disk, left, advice) = match &error {
            RunError::Sandbox { source, .. } if source.is_disk_full() => {
                let left = self.sandbox.free_space().await.ok();
                ("the engine's disk", left, self.advice_for_engine().await)
            }
            RunError::Store { source, .. } if source.is_disk_full() => {
                ("the store's disk", left_at(self.store.root()), self.advice_for_store())
            }
            _ => return without_run_room(&self.home, stage, error),
        };
        no_room(stage, disk, left, advice, error)
    }

    /// What would free room for a stage on the file system that is full.
    pub(super) async fn advice_for(&self, full: &Room) -> String {
        if full.what == RUN_DISK { self.advice_for_runs() } else { self.advice_for_engine().await }
    }

    pub(super) async fn advice_for_engine(&self) -> String {
        let all = self.sandbox.weigh(&BTreeSet::new(), &BTreeSet::new()).await;
        let old = self.needed_least().map(|needed| (self.home.living_runs(), needed));
        let old = match old {
            Some((living, needed)) => self.sandbox.weigh(&living, &needed).await,
            None => Ok(0),
        };
        let all = all
            .map_or_else(|_| "what lies unpacked".to_owned(), |bytes| format!("{} there", show_size(bytes)));
        let clean = format!(
            "isokiln clean frees {all}, and the packages kept (the next build unpacks and fetches again what it needs)"
        );
        let gc = match old {
            Ok(bytes) if bytes > 0 => format!("isokiln gc --keep 1 frees {} there; ", show_size(bytes)),
            _ => String::new(),
        };
        format!("{gc}{clean}; docker system df tells what else takes room; {THEN}")
    }

    pub(super) fn advice_for_store(&self) -> String {
        let bytes = self.store.collect(LEAST, true).map_or(0, |report| report.bytes);
        advice_of_gc(bytes, self.store.root())
    }

    fn advice_for_runs(&self) -> String {
        advice_for_runs(&self.home)
    }

    /// Layers that the newest checkpoints need.
    fn needed_least(&self) -> Option<BTreeSet<DiffId>> {
        Some(self.store.kept_by(LEAST).ok()?.iter().flat_map(Checkpoint::diff_ids).collect())
    }
}

/// The error for a stage whose run's folder found no room. Every other error stays as it is.
pub(super) fn without_run_room(home: &Home, stage: &StageName, error: RunError) -> RunError {
    match &error {
        RunError::Folder { source, .. } if is_disk_full(source) => no_room(
            stage,
            "the disk of the run's folder",
            left_at(&home.runs()),
            advice_for_runs(home),
            error,
        ),
        _ => error,
    }
}

fn no_room(
    stage: &StageName,
    disk: &str,
    left: Option<(u64, u64)>,
    advice: String,
    error: RunError,
) -> RunError {
    let left = left.map(|(bytes, inodes)| format!(" ({})", room(bytes, inodes))).unwrap_or_default();
    RunError::NoRoom {
        stage: stage.clone(),
        what: format!("{disk} is full{left}"),
        advice,
        source: Box::new(error),
    }
}

fn advice_for_runs(home: &Home) -> String {
    let bytes = collect_runs(home, LEAST, true).map_or(0, |(_, bytes)| bytes);
    advice_of_gc(bytes, &home.runs())
}

/// How the disk of the run's folder is called among those that a stage used.
pub(super) const RUN_DISK: &str = "the disk of isokiln's folder";
const THEN: &str = "then build again: it continues from the last checkpoint";

fn advice_of_gc(bytes: u64, path: &Path) -> String {
    let gc = match bytes {
        0 => format!("isokiln gc would free nothing; make room on the file system of {}", path.display()),
        bytes => format!("isokiln gc --keep 1 frees {} that old builds hold", show_size(bytes)),
    };
    format!("{gc}; {THEN}")
}

/// Whether an error says that there is no room, of bytes or of inodes.
pub(super) fn is_disk_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Bytes and inodes left for this user on the file system that holds a path.
pub(super) fn left_at(path: &Path) -> Option<(u64, u64)> {
    let left = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = left.blocks_available().saturating_mul(left.fragment_size());
    // Some file systems count no inodes.
    let inodes = if left.files() == 0 { u64::MAX } else { left.files_available() };
    Some((bytes, inodes))
}
