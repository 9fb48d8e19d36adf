//! The process that builds, in a session of its own, and the one that started it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use isokiln_core::session::Logout;
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession};

use super::error::RunError;
use super::logind::outside;

/// A supervisor that was started from here.
#[derive(Debug)]
pub struct Supervisor {
    child: Box<dyn ChildWrapper>,
}

impl Supervisor {
    /// Starts this program again with these arguments, in a session of its own from its first moment: no key and no
    /// hang-up of this terminal reaches it, and a remote login ends though it goes on. By the stream it tells what
    /// happens, and is told what is wished.
    pub fn start(
        arguments: impl IntoIterator<Item = OsString>,
        logout: Logout,
    ) -> Result<(Self, UnixStream), RunError> {
        let started = || -> io::Result<_> {
            let (ours, theirs) = UnixStream::pair()?;
            let mut command = outside(std::env::current_exe()?.as_os_str(), logout);
            command
                .args(arguments)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let child = CommandWrap::from(command).wrap(ProcessSession).spawn()?;
            Ok((Self { child }, ours))
        };
        started().map_err(RunError::Supervisor)
    }

    /// How it ended, in words, once it has.
    pub fn ended(mut self) -> String {
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// Takes over the stream to the one that started this process, and lets go of whatever else was open there: somebody may
/// wait for a pipe or a lock to be closed. To be called before anything is opened.
pub fn become_supervisor() -> Result<UnixStream, RunError> {
    let taken = || -> io::Result<UnixStream> {
        let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|fd| *fd > 2)
            .collect();
        for fd in open {
            // What listed them is closed already.
            let _ = nix::unistd::close(fd);
        }
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Not a stream: not started by isokiln.
        stream.peer_addr()?;
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(stream)
    };
    taken().map_err(RunError::Supervisor)
}
