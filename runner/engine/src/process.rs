//! Child processes, and those that they start: ended together.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The process group of a child that was started with `process_group(0)`. Ends the group when dropped,
/// unless it is told that the child has ended by itself.
#[derive(Debug)]
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group that the child leads.
    pub(crate) fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// The child has been waited for: its number may soon be another's.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A polite signal: mmdebstrap then removes what it has made. A group that is gone is fine too.
            let _ = killpg(group, Signal::SIGTERM);
        }
    }
}
