//! Package archives: where packages come from, and which state of the archive a build rests on.

mod release;
mod sources;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::pipeline::{Distribution, System};

pub use release::{InvalidRelease, Release};
pub use sources::{AptSource, parse_sources};

/// One suite of an archive, in the state in which it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveSuite {
    /// Address without a final slash, as in sources.list.
    pub uri: String,
    /// Suite name, for example `trixie-updates`.
    pub suite: String,
    /// Components used.
    pub components: Vec<String>,
    /// Digest of the suite's InRelease file.
    pub digest: Digest,
    /// `Date:` of the InRelease file, in seconds since 1970.
    pub date: i64,
}

/// The suites that a system is built from: the main one first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveState(pub Vec<ArchiveSuite>);

impl ArchiveState {
    /// The time that files made by a build are given: when the main suite was published. Updates leave
    /// it alone, so that a stage whose packages did not change does not change either.
    pub fn epoch(&self) -> Option<i64> {
        self.0.first().map(|suite| suite.date)
    }

    /// Lines for sources.list.
    pub fn sources_list(&self) -> String {
        self.0
            .iter()
            .map(|suite| format!("deb {} {} {}\n", suite.uri, suite.suite, suite.components.join(" ")))
            .collect()
    }
}

/// A part of the archive to look for: the suite itself, its updates, its security updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The suite; a build cannot do without.
    Main,
    /// Updates between point releases.
    Updates,
    /// Security updates.
    Security,
}

impl Part {
    /// In the order of sources.list.
    pub const ALL: [Self; 3] = [Self::Main, Self::Updates, Self::Security];

    /// Name of this part of `suite`.
    pub fn suite(self, suite: &str) -> String {
        match self {
            Self::Main => suite.to_owned(),
            Self::Updates => format!("{suite}-updates"),
            Self::Security => format!("{suite}-security"),
        }
    }
}

/// Addresses worth asking for a part of the archive, best first: the pipeline's, then the host's.
///
/// Which of them really serves the distribution is for the Release files to say; third-party
/// repositories use the same suite names.
pub fn candidates(system: &System, host: &[AptSource], part: Part) -> Vec<String> {
    let mut uris: Vec<String> = system.mirrors.clone();
    let mut hosts: Vec<(bool, &str)> = Vec::new();
    for source in host.iter().filter(|source| source.components.iter().any(|component| component == "main")) {
        let is_security = source.suites.iter().any(|suite| suite.ends_with("-security"));
        for uri in &source.uris {
            hosts.push((is_security, uri));
        }
    }
    // A security archive of its own is the likelier place for security updates, and only for them.
    hosts.sort_by_key(|(is_security, _)| *is_security != (part == Part::Security));
    uris.extend(hosts.into_iter().map(|(_, uri)| uri.to_owned()));
    let mut unique: Vec<String> = Vec::new();
    for uri in uris {
        if !unique.contains(&uri) {
            unique.push(uri);
        }
    }
    unique
}

/// Whether an archive that says nothing may have a part of the distribution. The pipeline's mirrors may; of
/// the host's, those that its sources use for such a part. Third parties have neither updates nor security
/// updates, and for their sake no build must fail.
pub fn may_have(system: &System, host: &[AptSource], part: Part, uri: &str) -> bool {
    let is_its_kind = |suite: &str| match part {
        Part::Main => suite == system.suite || suite.ends_with("-updates") || suite.ends_with("-security"),
        Part::Updates => suite.ends_with("-updates"),
        Part::Security => suite.ends_with("-security"),
    };
    system.mirrors.iter().any(|mirror| mirror == uri)
        || host.iter().any(|source| {
            source.uris.iter().any(|other| other == uri)
                && source.suites.iter().any(|suite| is_its_kind(suite))
        })
}

/// Whether a Release file is the one asked for, and not a third party's with the same suite name.
pub fn serves(release: &Release, distribution: Distribution, suite: &str) -> bool {
    release.origin == distribution.origin() && (release.codename == suite || release.suite == suite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Architecture;

    fn system(mirrors: &[&str]) -> System {
        System {
            distribution: Distribution::Debian,
            suite: "trixie".into(),
            architecture: Architecture::Amd64,
            mirrors: mirrors.iter().map(|m| (*m).to_owned()).collect(),
            components: vec!["main".into()],
        }
    }

    const HOST: &str = "deb http://mirror.example.org/debian bookworm main\n\
                        deb http://mirror.example.org/debian bookworm-updates main\n\
                        deb http://mirror.example.org/debian-security bookworm-security main\n\
                        deb http://cloud.example.com/apt cloud stable\n";

    #[test]
    fn the_pipelines_mirrors_come_before_the_hosts() {
        let host = parse_sources(HOST, false);
        let uris = candidates(&system(&["http://near.example.net/debian"]), &host, Part::Main);
        assert_eq!(
            uris,
            [
                "http://near.example.net/debian",
                "http://mirror.example.org/debian",
                "http://mirror.example.org/debian-security"
            ]
        );
    }

    #[test]
    fn security_is_asked_of_the_security_archive_first() {
        let host = parse_sources(HOST, false);
        let uris = candidates(&system(&[]), &host, Part::Security);
        assert_eq!(uris[0], "http://mirror.example.org/debian-security");
        assert!(!uris.iter().any(|uri| uri.contains("cloud")), "no main component there");
    }

    #[test]
    fn the_silence_of_a_third_party_means_nothing() {
        let host = parse_sources(&format!("{HOST}deb http://third.example.org/x cloud main\n"), false);
        let system = system(&["http://near.example.net/debian"]);
        let may_have = |part, uri| may_have(&system, &host, part, uri);
        for part in Part::ALL {
            assert!(may_have(part, "http://near.example.net/debian"), "{part:?}");
            assert!(!may_have(part, "http://third.example.org/x"), "{part:?}");
        }
        assert!(may_have(Part::Updates, "http://mirror.example.org/debian"));
        assert!(!may_have(Part::Security, "http://mirror.example.org/debian"));
        assert!(may_have(Part::Security, "http://mirror.example.org/debian-security"));
    }

    #[test]
    fn a_third_partys_suite_of_the_same_name_does_not_serve() {
        let release = |origin: &str| Release {
            origin: origin.into(),
            suite: "stable".into(),
            codename: "trixie".into(),
            components: vec![],
            date: 0,
        };
        assert!(serves(&release("Debian"), Distribution::Debian, "trixie"));
        assert!(!serves(&release("Sury"), Distribution::Debian, "trixie"));
        assert!(!serves(&release("Debian"), Distribution::Debian, "bookworm"));
    }
}
