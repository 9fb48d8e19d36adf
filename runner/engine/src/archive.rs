//! Asking package archives which state they are in.

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use isokiln_core::archive::{
    AptSource, ArchiveState, ArchiveSuite, Part, Release, candidates, parse_sources, serves,
};
use isokiln_core::digest::Digest;
use isokiln_core::pipeline::System;
use isokiln_core::suggest::nearest;

/// Why the archive's state is not known.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither the pipeline nor the host names an archive to ask.
    #[error("neither the pipeline nor this machine's apt sources name an archive for {distribution}")]
    NoMirror {
        /// The distribution.
        distribution: &'static str,
    },
    /// An archive does not answer.
    #[error("the archive at {uri} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        uri: String,
        /// What the system said.
        reason: String,
    },
    /// No archive that was asked has the suite.
    #[error("no archive has {distribution} {suite}; asked: {asked}")]
    NoSuite {
        /// The distribution.
        distribution: &'static str,
        /// The suite.
        suite: String,
        /// Addresses, separated by commas.
        asked: String,
    },
    /// The suite has no such component.
    #[error("{suite} has no component {component:?}; it has: {available}")]
    NoComponent {
        /// The suite.
        suite: String,
        /// The component asked for.
        component: String,
        /// What there is.
        available: String,
        /// The one that was probably meant.
        meant: Option<String>,
    },
}

impl ArchiveError {
    /// Whether a later try may succeed with nothing changed here.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A way to fetch a small file over HTTP.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The file's bytes; `None` where the server says that it has no such file.
    async fn fetch(&self, url: &str) -> Result<Option<Vec<u8>>, String>;
}

/// The real one.
pub struct HttpFetch {
    client: reqwest::Client,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(60);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

impl HttpFetch {
    /// A client that honours the usual proxy variables.
    pub fn new() -> Result<Self, String> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Fails only if there is one already, which does as well.
            drop(rustls::crypto::ring::default_provider().install_default());
        });
        let client = reqwest::Client::builder()
            .user_agent(concat!("isokiln/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build();
        client.map(|client| Self { client }).map_err(|error| sources_of(&error))
    }

    async fn try_once(&self, url: &str) -> Result<Option<Vec<u8>>, (bool, String)> {
        let response = self.client.get(url).send().await.map_err(|error| (true, sources_of(&error)))?;
        match response.status() {
            status if status.is_success() => {
                let bytes = response.bytes().await.map_err(|error| (true, sources_of(&error)))?;
                Ok(Some(bytes.to_vec()))
            }
            reqwest::StatusCode::NOT_FOUND | reqwest::StatusCode::GONE => Ok(None),
            status => Err((status.is_server_error(), format!("it answers {status} to {url}"))),
        }
    }
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, url: &str) -> Result<Option<Vec<u8>>, String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_once(url).await {
                Ok(answer) => return Ok(answer),
                Err((true, _)) if tries < TRIES => tokio::time::sleep(PAUSE * tries).await,
                Err((_, reason)) => return Err(reason),
            }
        }
    }
}

/// The innermost error says what happened: "connection refused", not "error sending request".
fn sources_of(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// This machine's apt sources. A machine without apt has none.
pub fn host_sources(etc: &Path) -> Vec<AptSource> {
    let mut sources = Vec::new();
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    for file in files {
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension, "list" | "sources")
            && let Ok(text) = fs::read_to_string(&file)
        {
            sources.extend(parse_sources(&text, extension == "sources"));
        }
    }
    sources
}

/// Asks which state the archive is in: for the suite itself, its updates and its security updates.
pub async fn archive_state(
    fetch: &dyn Fetch,
    system: &System,
    host: &[AptSource],
) -> Result<ArchiveState, ArchiveError> {
    let parts = Part::ALL.map(|part| find_part(fetch, system, host, part));
    let found = try_join_all(parts).await?;
    Ok(ArchiveState(found.into_iter().flatten().collect()))
}

async fn find_part(
    fetch: &dyn Fetch,
    system: &System,
    host: &[AptSource],
    part: Part,
) -> Result<Option<ArchiveSuite>, ArchiveError> {
    let distribution = system.distribution.name();
    let suite = part.suite(&system.suite);
    let uris = candidates(system, host, part);
    if uris.is_empty() {
        return Err(ArchiveError::NoMirror { distribution });
    }
    let mut unreachable = None;
    for uri in &uris {
        let answer = match fetch.fetch(&format!("{uri}/dists/{suite}/InRelease")).await {
            Ok(answer) => answer,
            Err(reason) => {
                unreachable.get_or_insert(ArchiveError::Unreachable { uri: uri.clone(), reason });
                continue;
            }
        };
        let Some(bytes) = answer else { continue };
        let Ok(release) = Release::parse(&String::from_utf8_lossy(&bytes)) else { continue };
        if serves(&release, system.distribution, &suite) {
            let components = components(system, &release, part, &suite)?;
            return Ok(Some(ArchiveSuite {
                uri: uri.clone(),
                suite,
                components,
                digest: Digest::of(&bytes),
                date: release.date,
            }));
        }
    }
    match unreachable {
        // An archive that is silent may have the part or not: to guess would change the result.
        Some(error) => Err(error),
        None if part == Part::Main => {
            Err(ArchiveError::NoSuite { distribution, suite, asked: uris.join(", ") })
        }
        None => Ok(None),
    }
}

/// The components to use: all must be in the main suite, the others offer what they have of them.
fn components(
    system: &System,
    release: &Release,
    part: Part,
    suite: &str,
) -> Result<Vec<String>, ArchiveError> {
    // Security suites used to call them "updates/main".
    let offered: Vec<&str> = release
        .components
        .iter()
        .map(|component| component.rsplit('/').next().unwrap_or(component))
        .collect();
    let (has, lacks): (Vec<_>, Vec<_>) =
        system.components.iter().cloned().partition(|component| offered.contains(&component.as_str()));
    match lacks.into_iter().next() {
        Some(component) if part == Part::Main => Err(ArchiveError::NoComponent {
            suite: suite.to_owned(),
            meant: nearest(&component, offered.iter().copied()).map(str::to_owned),
            available: offered.join(", "),
            component,
        }),
        _ => Ok(has),
    }
}

#[cfg(test)]
mod tests {
    use isokiln_core::pipeline::{Architecture, Distribution};
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    fn system(mirrors: Vec<String>) -> System {
        System {
            distribution: Distribution::Debian,
            suite: "trixie".into(),
            architecture: Architecture::Amd64,
            mirrors,
            components: vec!["main".into(), "non-free-firmware".into()],
        }
    }

    fn release(suite: &str, components: &str) -> String {
        format!(
            "Origin: Debian\nSuite: x\nCodename: {suite}\nDate: Sat, 12 Sep 2026 07:55:41 UTC\nComponents: {components}\n"
        )
    }

    async fn serve(server: &MockServer, at: &str, response: ResponseTemplate) {
        Mock::given(method("GET")).and(path(at)).respond_with(response).mount(server).await;
    }

    async fn state(server: &MockServer) -> Result<ArchiveState, ArchiveError> {
        let fetch = HttpFetch::new().unwrap();
        archive_state(&fetch, &system(vec![format!("{}/debian", server.uri())]), &[]).await
    }

    #[tokio::test]
    async fn finds_the_suite_and_what_goes_with_it() {
        let server = MockServer::start().await;
        let text = release("trixie", "main contrib non-free-firmware");
        serve(&server, "/debian/dists/trixie/InRelease", ResponseTemplate::new(200).set_body_string(&text))
            .await;
        let updates = release("trixie-updates", "main");
        serve(
            &server,
            "/debian/dists/trixie-updates/InRelease",
            ResponseTemplate::new(200).set_body_string(updates),
        )
        .await;
        let state = state(&server).await.unwrap();
        assert_eq!(state.0.len(), 2, "there are no security updates here: {state:?}");
        assert_eq!(state.0[0].digest, Digest::of(&text));
        assert_eq!(state.0[1].components, ["main"]);
        assert_eq!(state.epoch(), Some(1_789_199_741));
        let line = format!("deb {}/debian trixie main non-free-firmware", server.uri());
        assert!(state.sources_list().starts_with(&line), "{}", state.sources_list());
    }

    #[tokio::test]
    async fn an_unknown_suite_and_an_unknown_component_are_told_apart() {
        let server = MockServer::start().await;
        assert!(matches!(state(&server).await, Err(ArchiveError::NoSuite { .. })));
        let text = release("trixie", "main non-free-firmwares");
        serve(&server, "/debian/dists/trixie/InRelease", ResponseTemplate::new(200).set_body_string(text))
            .await;
        let Err(ArchiveError::NoComponent { meant, .. }) = state(&server).await else { panic!() };
        assert_eq!(meant.as_deref(), Some("non-free-firmwares"));
    }

    #[tokio::test]
    async fn a_passing_server_error_is_got_over_and_a_lasting_one_told() {
        let server = MockServer::start().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(503))
            .up_to_n_times(2)
            .with_priority(1)
            .mount(&server)
            .await;
        let fetch = HttpFetch::new().unwrap();
        assert_eq!(fetch.fetch(&format!("{}/x", server.uri())).await, Ok(None));
        server.reset().await;
        Mock::given(method("GET")).respond_with(ResponseTemplate::new(503)).mount(&server).await;
        let error = state(&server).await.unwrap_err();
        assert!(error.is_network() && error.to_string().contains("503"), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_the_systems_words() {
        let fetch = HttpFetch::new().unwrap();
        let error =
            archive_state(&fetch, &system(vec!["http://127.0.0.1:9/debian".into()]), &[]).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
        let error = archive_state(&fetch, &system(vec![]), &[]).await.unwrap_err();
        assert!(matches!(error, ArchiveError::NoMirror { .. }));
    }

    #[tokio::test]
    async fn a_captive_portal_is_not_an_archive() {
        let server = MockServer::start().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(200).set_body_string("<html>Log in</html>"))
            .mount(&server)
            .await;
        assert!(matches!(state(&server).await, Err(ArchiveError::NoSuite { .. })));
    }
}
