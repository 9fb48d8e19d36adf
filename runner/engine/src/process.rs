//! Child processes, and those that they start: ended together.

use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long a group may take to remove what it has made.
const GRACE: Duration = Duration::from_secs(10);

/// The process group of a child that was started with `process_group(0)`. Ends the group when dropped,
/// unless it is told that the child has ended by itself.
#[derive(Debug)]
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group that the child leads.
    pub(crate) fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// Asks the group to end, then makes it. `ended` resolves when the child has been waited for.
    pub(crate) async fn end<T>(&self, ended: impl Future<Output = T> + Unpin) -> T
    where
        T: Default,
    {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(GRACE, ended).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::SIGKILL);
                T::default()
            }
        }
    }

    /// Ends at once whatever of the group is left.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // A group that is gone is fine too.
            let _ = killpg(group, signal);
        }
    }

    /// The child has been waited for: its number may soon be another's.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A polite signal: mmdebstrap then removes what it has made.
        self.signal(Signal::SIGTERM);
    }
}
