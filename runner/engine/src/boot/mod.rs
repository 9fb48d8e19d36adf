//! Boot tests: a machine is started, watched and asked until every check has a verdict.

mod accelerate;
mod agent;
mod evidence;
mod eye;
mod lanes;
mod probe;
mod qmp;
mod questions;
mod report;
mod screen_checks;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod watch;
mod wires;

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use isokiln_core::boot::{CheckResult, CheckSpec, IsoFacts, MachineProfile, Phase, Ride};
use isokiln_core::digest::Digest;
use tokio::io::{AsyncRead, AsyncWrite};

pub use accelerate::{Acceleration, Measured, find_acceleration};
pub use lanes::boot;
pub use report::infra_report;
pub(crate) use screen_checks::can_compare;

/// QEMU's folder in its container.
const FOLDER: &str = "/run/guest";

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
    /// A reference picture of a check cannot be used.
    #[error("cannot compare the screen with {}: {reason}", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The user asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl BootError {
    /// Whether a signal has ended QEMU, as an assertion of its own does: a status above 128.
    fn is_crash(&self) -> bool {
        matches!(self, Self::QemuEnded { status, .. } if *status > 128)
    }
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
    /// Shell script that runs before QEMU, as the same user and in its folder.
    pub prepare: String,
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
    /// Whether a kernel of Linux was found on it; `true` where that is not known.
    pub holds_linux: bool,
    /// Whether its boot menu for this firmware is configured to wait for a key.
    pub menu_waits: bool,
    /// Whether its systemd is known to take units as credentials.
    pub takes_credentials: bool,
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
    /// Machines to start, one after the other, until the probe came in or the ISO has failed.
    pub rides: Vec<Ride>,
    /// Whether a boot menu that waits for a key is a failure.
    pub unattended: bool,
    /// What executes the guest, and how fast.
    pub acceleration: Measured,
    /// Name of the builder image, for running the machine by hand.
    pub builder: String,
    /// Folder for logs and pictures.
    pub folder: PathBuf,
}

/// What happens during a boot test.
#[derive(Debug, Clone, PartialEq)]
pub enum BootNews {
    /// The guest got further.
    Entered {
        /// Which of the boot test's machines, from 1.
        machine: usize,
        /// How far.
        phase: Phase,
        /// Seconds from the start of that machine.
        seconds: f64,
    },
    /// A check ended.
    Checked(CheckResult),
}

/// File of a boot test's folder that holds its [`BootReport`](isokiln_core::boot::BootReport).
pub const REPORT_FILE: &str = "report.json";
