//! Reaching the engine.

use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use serde::Serialize;
use tokio::sync::RwLock;

use super::super::SandboxError;

/// A container engine that answers.
#[derive(Clone)]
pub struct Engine {
    pub(super) docker: Docker,
    address: String,
    /// Held for reading while a container is being made.
    pub(super) making: Arc<RwLock<()>>,
}

/// What an engine says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct EngineFacts {
    /// Address it was reached at.
    pub address: String,
    /// For example `Docker Engine`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Processors.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Folder where it keeps images and volumes.
    pub root: String,
}

/// Long enough for an image import; what may hang is given a limit of its own.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// An engine that is well answers a ping in milliseconds.
const PING: Duration = Duration::from_secs(10);

impl Engine {
    /// The engine that `DOCKER_HOST` names, or the one at the usual socket.
    pub async fn connect() -> Result<Self, SandboxError> {
        let address = match env::var("DOCKER_HOST") {
            Ok(address) if !address.is_empty() => address,
            _ => default_address(),
        };
        let timeout = TIMEOUT.as_secs();
        let client = match form_of(&address) {
            Some(Form::Socket) => Docker::connect_with_unix(&address, timeout, API_DEFAULT_VERSION),
            Some(Form::Port) => Docker::connect_with_http(&address, timeout, API_DEFAULT_VERSION),
            None => return Err(SandboxError::BadAddress(address)),
        };
        let unreachable = |reason: String| SandboxError::Unreachable { address: address.clone(), reason };
        let docker = client.map_err(|error| match error {
            Error::SocketNotFoundError(path) => unreachable(format!("there is no socket {path}")),
            error => unreachable(chain(&error)),
        })?;
        match tokio::time::timeout(PING, docker.ping()).await {
            Err(_) => Err(unreachable(format!("no answer within {} seconds", PING.as_secs()))),
            Ok(Err(error)) => {
                let reason = chain(&error);
                if reason.contains("Permission denied") {
                    return Err(SandboxError::Forbidden { address });
                }
                Err(unreachable(reason))
            }
            Ok(Ok(_)) => Ok(Self { docker, address, making: Arc::default() }),
        }
    }

    /// What the engine says of itself.
    pub async fn facts(&self) -> Result<EngineFacts, SandboxError> {
        let info = self.docker.info().await.map_err(|error| refused("describe itself", &error))?;
        let version = self.docker.version().await.map_err(|error| refused("tell its version", &error))?;
        let component = version.components.unwrap_or_default().into_iter().next();
        Ok(EngineFacts {
            address: self.address.clone(),
            name: component.map_or_else(|| "container engine".to_owned(), |component| component.name),
            version: version.version.unwrap_or_default(),
            cpus: info.ncpu.unwrap_or_default(),
            memory: info.mem_total.unwrap_or_default(),
            root: info.docker_root_dir.unwrap_or_default(),
        })
    }

    /// Whether the engine may see this machine's folders, so that a shared one is worth a try. Behind a
    /// port, be it of this machine, there is usually a tunnel.
    pub(super) fn may_be_local(&self) -> bool {
        self.address.starts_with("unix://")
    }
}

/// The forms of address that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Socket,
    Port,
}

fn form_of(address: &str) -> Option<Form> {
    if let Some(path) = address.strip_prefix("unix://") {
        return (!path.is_empty()).then_some(Form::Socket);
    }
    let place = address.strip_prefix("tcp://").or_else(|| address.strip_prefix("http://"))?;
    let (host, port) = place.trim_end_matches('/').rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(Form::Port)
}

fn default_address() -> String {
    let system = "/var/run/docker.sock";
    if !Path::new(system).exists()
        && let Ok(runtime) = env::var("XDG_RUNTIME_DIR")
    {
        // An engine without root keeps its socket there.
        let own = format!("{runtime}/docker.sock");
        if Path::new(&own).exists() {
            return format!("unix://{own}");
        }
    }
    format!("unix://{system}")
}

/// Why the engine did not do something: its refusal with all that it said, or that it is gone.
pub(super) fn refused(action: impl Into<String>, error: &Error) -> SandboxError {
    let reason = match error {
        Error::HyperResponseError { .. } | Error::HyperLegacyError { .. } | Error::IOError { .. }
            if !is_our_fault(error) =>
        {
            return SandboxError::HungUp { action: action.into(), reason: chain(error) };
        }
        Error::DockerResponseServerError { message, .. } if tells_of_no_container(message) => {
            return SandboxError::ContainerGone { action: action.into(), reason: message.trim().to_owned() };
        }
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.clone(),
        error => chain(error),
    };
    SandboxError::Refused { action: action.into(), reason }
}

/// Whether an answer is that of an engine whose container has gone away.
fn tells_of_no_container(message: &str) -> bool {
    // Docker: "No such container: 0123", "Container 0123 is not running"; Podman: "no such container".
    let message = message.to_ascii_lowercase();
    message.contains("no such container") || message.contains("is not running")
}

/// Whether a request broke off at this end, because what was to be sent could not be read.
fn is_our_fault(error: &Error) -> bool {
    chain(error).contains("user's Body")
}

/// An error with its sources: the innermost usually says what happened.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Whether the engine says that a thing is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_was_taken_away_is_told_from_a_refusal() {
        let refused = |status_code, message: &str| {
            refused("x", &Error::DockerResponseServerError { status_code, message: message.to_owned() })
        };
        for message in ["No such container: 0123", "Container 0123 is not running"] {
            assert!(matches!(refused(404, message), SandboxError::ContainerGone { .. }), "{message}");
        }
        assert!(matches!(refused(404, "No such image: x"), SandboxError::Refused { .. }));
    }

    #[test]
    fn addresses_have_a_path_or_a_host_and_a_port() {
        assert_eq!(form_of("unix:///run/engine.sock"), Some(Form::Socket));
        for address in ["tcp://127.0.0.1:2375", "http://engine:2375/", "tcp://[::1]:2375"] {
            assert_eq!(form_of(address), Some(Form::Port), "{address}");
        }
        for address in
            ["", "unix://", "tcp://", "tcp://host", "tcp://:2375", "tcp://host:port", "ssh://host:22"]
        {
            assert_eq!(form_of(address), None, "{address}");
        }
    }
}
