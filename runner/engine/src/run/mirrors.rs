//! The archive mirrors that a build can turn to when the one it uses fails.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use isokiln_core::archive::{AptSource, ArchiveState, ArchiveSuite, Part, candidates};
use isokiln_core::pipeline::System;

use super::clock::Clock;
use crate::archive::{Fetch, archive_state};

/// What a build asks of its archive while it runs.
#[async_trait]
pub trait Mirrors: Send + Sync {
    /// Whether there is another mirror than the one that failed, which is the one that the cause names, or else that of
    /// the suite itself.
    fn has_next(&self, now: &ArchiveState, cause: &str) -> bool;

    /// The archive without the mirror that failed; `None` where no other one answers that has all that is used of it.
    async fn next(&self, now: &ArchiveState, cause: &str) -> Option<ArchiveState>;

    /// Seconds by which this machine's clock is ahead of the archive's; `None` where it does not say.
    async fn clock_offset(&self, now: &ArchiveState) -> Option<i64>;
}

/// The pipeline's mirrors, then those of this machine's apt sources.
pub struct ArchiveMirrors {
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    system: System,
    host: Vec<AptSource>,
    failed: Mutex<BTreeSet<String>>,
}

impl ArchiveMirrors {
    /// All mirrors that the pipeline and this machine name.
    pub(super) fn new(
        fetch: Arc<dyn Fetch>,
        clock: Arc<dyn Clock>,
        system: System,
        host: Vec<AptSource>,
    ) -> Self {
        Self { fetch, clock, system, host, failed: Mutex::default() }
    }

    /// System and host sources without the mirrors that have failed.
    fn left(&self, now: &ArchiveState, cause: &str) -> (System, Vec<AptSource>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failed.extend(failed_one(now, cause).map(str::to_owned));
        let mut system = self.system.clone();
        system.mirrors.retain(|mirror| !failed.contains(mirror));
        let mut host = self.host.clone();
        for source in &mut host {
            source.uris.retain(|uri| !failed.contains(uri));
        }
        (system, host)
    }
}

/// Address of the mirror that a cause names; where it names none, of the one that the suite itself comes from.
fn failed_one<'s>(state: &'s ArchiveState, cause: &str) -> Option<&'s str> {
    let uris = || state.0.iter().map(|suite| suite.uri.as_str());
    // One may be the beginning of another.
    uris().filter(|uri| cause.contains(*uri)).max_by_key(|uri| uri.len()).or_else(|| uris().next())
}

#[async_trait]
impl Mirrors for ArchiveMirrors {
    fn has_next(&self, now: &ArchiveState, cause: &str) -> bool {
        let (system, host) = self.left(now, cause);
        !now.0.is_empty() && !candidates(&system, &host, Part::Main).is_empty()
    }

    async fn next(&self, now: &ArchiveState, cause: &str) -> Option<ArchiveState> {
        let (system, host) = self.left(now, cause);
        let next = archive_state(&*self.fetch, &system, &host, &|_| ()).await.ok()?;
        // To go on without security updates would be another system.
        let has = |suite: &ArchiveSuite| next.0.iter().any(|other| other.suite == suite.suite);
        if !now.0.iter().all(has) {
            return None;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.extend(failed_one(now, cause).map(str::to_owned));
        Some(next)
    }

    async fn clock_offset(&self, now: &ArchiveState) -> Option<i64> {
        let suite = now.0.first()?;
        let server =
            self.fetch.server_time(&format!("{}/dists/{}/InRelease", suite.uri, suite.suite)).await?;
        Some(self.clock.seconds() - server)
    }
}

/// What a root file system's own sources must be changed by so that `to` stands in for `from`: a script for sed.
pub(super) fn stand_in(from: &ArchiveState, to: &ArchiveState) -> String {
    let mut script = String::new();
    for old in &from.0 {
        let Some(new) = to.0.iter().find(|new| new.suite == old.suite && new.uri != old.uri) else {
            continue;
        };
        let mut literal = String::new();
        for character in old.uri.chars() {
            if !character.is_ascii_alphanumeric() && character != '/' {
                literal.push('\\');
            }
            literal.push(character);
        }
        let replacement = new.uri.replace('\\', "\\\\").replace('&', "\\&").replace('|', "\\|");
        script.push_str(&format!(
            "s|^(deb(-src)? +(\\[[^]]*\\] +)?){literal}/?( +{} )|\\1{replacement}\\4|\n",
            old.suite
        ));
    }
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use isokiln_core::digest::Digest;

    use super::*;

    fn state(uri: &str, security: &str) -> ArchiveState {
        let suite = |uri: &str, suite: &str| ArchiveSuite {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
            components: vec!["main".to_owned()],
            digest: Digest::of(uri),
            date: 1,
        };
        ArchiveState(vec![suite(uri, "trixie"), suite(security, "trixie-security")])
    }

    #[test]
    fn the_mirror_that_the_cause_names_has_failed() {
        let now = state("http://one.example.org/debian", "http://one.example.org/debian-security");
        let of = |cause: &str| failed_one(&now, cause).unwrap().to_owned();
        assert_eq!(of("E: no"), "http://one.example.org/debian");
        assert_eq!(of("E: http://one.example.org/debian/dists/x"), "http://one.example.org/debian");
        let security = "http://one.example.org/debian-security";
        assert_eq!(of("E: http://one.example.org/debian-security/dists/x"), security);
    }

    #[test]
    fn the_root_file_systems_sources_name_the_mirror_that_stands_in() {
        let from = state("http://one.example.org/debian", "http://one.example.org/debian-security");
        let to = state("https://two.example.org:8080/a&b", "http://one.example.org/debian-security");
        let script = stand_in(&from, &to);
        let sources = "deb http://one.example.org/debian trixie main\n\
                       deb [signed-by=/x] http://one.example.org/debian/ trixie main contrib\n\
                       deb http://one.example.org/debian-security trixie-security main\n\
                       deb http://oneXexample.org/debian trixie main\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sources.list");
        std::fs::write(&file, sources).unwrap();
        let changed = Command::new("sed").arg("--regexp-extended").arg(&script).arg(&file).output().unwrap();
        assert_eq!(
            String::from_utf8(changed.stdout).unwrap(),
            "deb https://two.example.org:8080/a&b trixie main\n\
             deb [signed-by=/x] https://two.example.org:8080/a&b trixie main contrib\n\
             deb http://one.example.org/debian-security trixie-security main\n\
             deb http://oneXexample.org/debian trixie main\n"
        );
        assert_eq!(stand_in(&from, &from), "");
    }
}
