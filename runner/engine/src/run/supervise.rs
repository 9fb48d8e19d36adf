//! The process that builds, in a session of its own, and the one that started it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use isokiln_core::session::Logout;

use super::error::RunError;
use super::logind::outside;

/// A supervisor that was started from here.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
}

impl Supervisor {
    /// Starts this program again with these arguments, to become a supervisor. It has no terminal, and holds none: a
    /// remote login ends though it goes on. By the stream it tells what happens, and is told what is wished.
    pub fn start(
        arguments: impl IntoIterator<Item = OsString>,
        logout: Logout,
    ) -> Result<(Self, UnixStream), RunError> {
        let started = || -> io::Result<_> {
            let (ours, theirs) = UnixStream::pair()?;
            let child = outside(std::env::current_exe()?.as_os_str(), logout)
                .args(arguments)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            Ok((Self { child }, ours))
        };
        started().map_err(RunError::Supervisor)
    }

    /// How it ended, in words, once it has.
    pub fn ended(mut self) -> String {
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// Leaves the session that this process was started in, and takes over the stream to the one that started it.
pub fn become_supervisor() -> Result<UnixStream, RunError> {
    let taken = || -> io::Result<UnixStream> {
        nix::unistd::setsid()?;
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Not a stream: not started by isokiln.
        stream.peer_addr()?;
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(stream)
    };
    taken().map_err(RunError::Supervisor)
}
