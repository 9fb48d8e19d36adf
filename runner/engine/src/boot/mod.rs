//! Boot tests: a machine is started, watched and asked until every check has a verdict.

mod accelerate;
mod evidence;
mod probe;
mod qmp;
mod session;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use isokiln_core::boot::{BootReport, CheckResult, CheckSpec, IsoFacts, MachineProfile, Phase};
use isokiln_core::digest::Digest;
use tokio::io::{AsyncRead, AsyncWrite};

pub use accelerate::{Acceleration, find_acceleration};
pub use session::boot;

/// What a boot test cannot carry on from; its checks then end as INFRA.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Whatever runs the machine failed.
    #[error("{0}")]
    Host(String),
    /// QEMU ended by itself.
    #[error("QEMU ended with status {status}: {words}")]
    QemuEnded {
        /// Its exit status.
        status: i64,
        /// The end of what it printed.
        words: String,
    },
    /// QEMU's monitor does not answer as it should.
    #[error("QEMU's monitor failed at {command}: {reason}")]
    Monitor {
        /// What was asked.
        command: &'static str,
        /// What came instead of an answer.
        reason: String,
    },
    /// Evidence could not be written.
    #[error("cannot write {}", path.display())]
    Evidence {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The user asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Where machines run.
#[async_trait]
pub trait GuestHost: Send + Sync {
    /// Starts QEMU with these arguments.
    async fn start(&self, order: Order) -> Result<Box<dyn Guest>, BootError>;
}

/// What to start QEMU with.
#[derive(Debug, Clone)]
pub struct Order {
    /// For labels and messages.
    pub purpose: String,
    /// QEMU's arguments.
    pub arguments: Vec<String>,
    /// Whether it gets `/dev/kvm`.
    pub kvm: bool,
    /// Small files for it: path and contents.
    pub files: Vec<(String, Bytes)>,
}

/// A machine while it runs.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Connects to one of QEMU's sockets.
    async fn connect(&self, path: &str) -> Result<Wire, BootError>;
    /// A file's bytes and what is added to it as it comes.
    async fn follow(&self, path: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, BootError>;
    /// A file's bytes now.
    async fn read(&self, path: &str) -> Result<Vec<u8>, BootError>;
    /// Resolves when QEMU has ended: exit status and the end of what it printed.
    async fn ended(&self) -> Result<(i64, String), BootError>;
    /// Ends the machine and removes everything of it.
    async fn remove(self: Box<Self>) -> Result<(), BootError>;
}

/// Both directions of a socket.
pub struct Wire {
    /// From the machine.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// To the machine.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// The ISO under test.
#[derive(Debug, Clone)]
pub struct IsoUnderTest {
    /// File name for reports.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What its boot records promise.
    pub facts: IsoFacts,
    /// Where QEMU finds it.
    pub path: String,
}

/// One boot test.
#[derive(Debug, Clone)]
pub struct BootRequest {
    /// What is booted.
    pub iso: IsoUnderTest,
    /// On what.
    pub profile: MachineProfile,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
    /// What must hold.
    pub checks: Vec<CheckSpec>,
    /// What executes the guest, and how fast.
    pub acceleration: Acceleration,
    /// Folder for logs and pictures.
    pub folder: PathBuf,
}

/// What happens during a boot test.
#[derive(Debug, Clone, PartialEq)]
pub enum BootNews {
    /// The guest got further.
    Entered(Phase, f64),
    /// A check ended.
    Checked(CheckResult),
}

/// File of a boot test's folder that holds its [`BootReport`].
pub const REPORT_FILE: &str = "report.json";

/// Makes a report of a boot test that could not be carried out: every check ends as INFRA.
pub fn infra_report(request: &BootRequest, error: &BootError) -> BootReport {
    let mut evidence = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        evidence.push(inner.to_string());
        source = inner.source();
    }
    let checks: Vec<_> = request
        .checks
        .iter()
        .map(|check| CheckResult {
            check: check.name(),
            lane: isokiln_core::boot::Lane::Faithful,
            verdict: isokiln_core::boot::Verdict::Infra,
            summary: error.to_string(),
            evidence: evidence.clone(),
            seconds: 0.0,
        })
        .collect();
    session::report(request, Vec::new(), checks, 0.0)
}
