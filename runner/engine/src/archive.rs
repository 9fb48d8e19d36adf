//! Asking package archives which state they are in.

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use isokiln_core::archive::{
    AptSource, ArchiveState, ArchiveSuite, Part, Release, candidates, may_have, parse_sources, serves,
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

    /// What time it is for the server, in seconds since 1970; `None` where it does not say.
    async fn server_time(&self, url: &str) -> Option<i64>;
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

    async fn server_time(&self, url: &str) -> Option<i64> {
        let response = self.client.head(url).timeout(CONNECT_TIMEOUT).send().await.ok()?;
        // A cache tells when it was told.
        if response.headers().contains_key(reqwest::header::AGE) {
            return None;
        }
        let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
        Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second())
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

/// Asks which state the archive is in: for the suite itself, its updates and its security updates. `warn` is
/// told of mirrors of the pipeline that did not answer and were done without.
pub async fn archive_state(
    fetch: &dyn Fetch,
    system: &System,
    host: &[AptSource],
    warn: &(dyn Fn(String) + Sync),
) -> Result<ArchiveState, ArchiveError> {
    let answers = try_join_all(Part::ALL.map(|part| ask_for(fetch, system, host, part))).await?;
    // Who was done without for the suite itself is done without for what goes with it.
    let passed_over: Vec<&str> = answers
        .iter()
        .filter(|answer| answer.part == Part::Main && answer.found.is_some())
        .flat_map(|answer| answer.silent.iter().map(|silent| silent.uri.as_str()))
        .collect();
    let mut told: Vec<&str> = Vec::new();
    let mut suites: Vec<ArchiveSuite> = Vec::new();
    for answer in &answers {
        let is_new = |silent: &&Silent| !passed_over.contains(&silent.uri.as_str());
        match &answer.found {
            Some(suite) => suites.push(suite.clone()),
            // To guess what a silent archive has would change the result.
            None => {
                match answer.silent.iter().filter(is_new).find(|silent| answer.needs(silent, system, host)) {
                    Some(silent) => return Err(silent.error()),
                    None if answer.part == Part::Main => return Err(answer.no_suite(system)),
                    None => {}
                }
            }
        }
        for silent in answer.silent.iter().filter(|silent| system.mirrors.contains(&silent.uri)) {
            if !told.contains(&silent.uri.as_str()) {
                warn(format!("{}; going on without it", silent.error()));
                told.push(&silent.uri);
            }
        }
    }
    Ok(ArchiveState(suites))
}

/// What came of asking for a part of the archive.
struct Answer {
    part: Part,
    found: Option<ArchiveSuite>,
    /// Archives that did not answer.
    silent: Vec<Silent>,
    /// Archives that answered that they do not have it.
    without: Vec<String>,
}

/// An archive that did not answer, and why.
struct Silent {
    uri: String,
    reason: String,
}

impl Silent {
    fn error(&self) -> ArchiveError {
        ArchiveError::Unreachable { uri: self.uri.clone(), reason: self.reason.clone() }
    }
}

impl Answer {
    /// Whether this silence leaves it open if there is such a part.
    fn needs(&self, silent: &Silent, system: &System, host: &[AptSource]) -> bool {
        may_have(system, host, self.part, &silent.uri) || (self.part == Part::Main && self.without.is_empty())
    }

    fn no_suite(&self, system: &System) -> ArchiveError {
        ArchiveError::NoSuite {
            distribution: system.distribution.name(),
            suite: self.part.suite(&system.suite),
            asked: self.without.join(", "),
        }
    }
}

async fn ask_for(
    fetch: &dyn Fetch,
    system: &System,
    host: &[AptSource],
    part: Part,
) -> Result<Answer, ArchiveError> {
    let suite = part.suite(&system.suite);
    let uris = candidates(system, host, part);
    if uris.is_empty() {
        return Err(ArchiveError::NoMirror { distribution: system.distribution.name() });
    }
    let mut answer = Answer { part, found: None, silent: Vec::new(), without: Vec::new() };
    for uri in uris {
        let release = match fetch.fetch(&format!("{uri}/dists/{suite}/InRelease")).await {
            Err(reason) => {
                answer.silent.push(Silent { uri, reason });
                continue;
            }
            Ok(None) => None,
            Ok(Some(bytes)) => {
                let release = Release::parse(&String::from_utf8_lossy(&bytes)).ok();
                release.filter(|release| serves(release, system.distribution, &suite)).map(|r| (r, bytes))
            }
        };
        let Some((release, bytes)) = release else {
            answer.without.push(uri);
            continue;
        };
        answer.found = Some(ArchiveSuite {
            uri,
            components: components(system, &release, part, &suite)?,
            suite,
            digest: Digest::of(&bytes),
            date: release.date,
        });
        break;
    }
    Ok(answer)
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

    use std::sync::Mutex;

    use super::*;

    /// Nothing listens there.
    const NOBODY: &str = "http://127.0.0.1:9/debian";

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
        archive_state(&fetch, &system(vec![format!("{}/debian", server.uri())]), &[], &|_| ()).await
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
        let nobody = system(vec![NOBODY.into()]);
        let error = archive_state(&fetch, &nobody, &[], &|_| ()).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
        let error = archive_state(&fetch, &system(vec![]), &[], &|_| ()).await.unwrap_err();
        assert!(matches!(error, ArchiveError::NoMirror { .. }));
    }

    /// Serves the suite alone: no updates, no security updates.
    async fn lone_suite() -> MockServer {
        let server = MockServer::start().await;
        let text = release("trixie", "main non-free-firmware");
        serve(&server, "/debian/dists/trixie/InRelease", ResponseTemplate::new(200).set_body_string(text))
            .await;
        server
    }

    #[tokio::test]
    async fn a_mirror_of_the_pipeline_that_is_silent_is_done_without_but_not_without_a_word() {
        let server = lone_suite().await;
        let fetch = HttpFetch::new().unwrap();
        let warnings = Mutex::new(Vec::new());
        let system = system(vec![NOBODY.into(), format!("{}/debian", server.uri())]);
        let state = archive_state(&fetch, &system, &[], &|text| warnings.lock().unwrap().push(text)).await;
        assert_eq!(state.unwrap().0.len(), 1);
        let warnings = warnings.into_inner().unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(NOBODY) && warnings[0].contains("going on without it"), "{warnings:?}");
    }

    #[tokio::test]
    async fn a_silent_archive_counts_where_it_may_have_the_part() {
        let server = lone_suite().await;
        let fetch = HttpFetch::new().unwrap();
        let ask = async |sources: String, suite: &str| {
            let mut system = system(vec![]);
            system.suite = suite.to_owned();
            archive_state(&fetch, &system, &parse_sources(&sources, false), &|_| ()).await
        };
        let own = format!("deb {}/debian trixie main\n", server.uri());
        let third = format!("{own}deb {NOBODY} cloud main\n");
        assert_eq!(ask(third.clone(), "trixie").await.unwrap().0.len(), 1);
        assert!(matches!(ask(third, "trixi").await, Err(ArchiveError::NoSuite { .. })));
        let security = format!("{own}deb {NOBODY} bookworm-security main\n");
        assert!(matches!(ask(security, "trixie").await, Err(ArchiveError::Unreachable { .. })));
        let alone = format!("deb {NOBODY} sid main\n");
        assert!(matches!(ask(alone, "trixie").await, Err(ArchiveError::Unreachable { .. })));
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
