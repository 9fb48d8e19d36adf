//! Looks at the command lines of the programs that run in containers meanwhile, for what must never be run.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Words of options that weaken the check of signatures, or force what should not be.
pub(super) const FORBIDDEN: [&str; 10] = [
    "allow-unauthenticated",
    "AllowUnauthenticated",
    "allow-insecure-repositories",
    "AllowInsecureRepositories",
    "AllowWeakRepositories",
    "AllowDowngradeToInsecureRepositories",
    "trusted=yes",
    "force-yes",
    "no-check-gpg",
    "--no-check-valid-until",
];

const PAUSE: Duration = Duration::from_millis(25);

/// Watches until it is ended.
pub(super) struct Witness {
    ended: Arc<AtomicBool>,
    watching: JoinHandle<BTreeSet<String>>,
}

impl Witness {
    /// Begins to watch.
    pub(super) fn begin() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let shared = ended.clone();
        let watching = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !shared.load(Ordering::SeqCst) {
                seen.extend(forbidden_now());
                thread::sleep(PAUSE);
            }
            seen
        });
        Self { ended, watching }
    }

    /// What was run and must not be.
    pub(super) fn end(self) -> BTreeSet<String> {
        self.ended.store(true, Ordering::SeqCst);
        self.watching.join().unwrap_or_default()
    }
}

/// Command lines of processes in containers that hold a forbidden word, or remove dpkg's lock.
fn forbidden_now() -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let lines = processes.flatten().filter_map(|process| {
        let folder = process.path();
        let line = fs::read(folder.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        is_forbidden(&line).then_some(())?;
        let group = fs::read_to_string(folder.join("cgroup")).ok()?;
        group.contains("docker").then_some(line)
    });
    lines.collect()
}

/// Whether a command is one that isokiln must never run, or a line of a script one that none must hold.
pub fn is_forbidden(line: &str) -> bool {
    // A stage's layer holds no locks: when every process of its root file system has ended, they are removed like this.
    let tidies_up = line.starts_with("rm -rf --one-file-system /rootfs/");
    let removes_lock = line.starts_with("rm ") && line.contains("dpkg/lock") && !tidies_up;
    removes_lock || FORBIDDEN.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_only_removed_when_nothing_runs_any_more() {
        assert!(is_forbidden("rm -f /var/lib/dpkg/lock-frontend"));
        assert!(is_forbidden("apt-get -o APT::Get::AllowUnauthenticated=true install x"));
        assert!(!is_forbidden("rm -rf --one-file-system /rootfs/var/lib/dpkg/lock"));
        assert!(!is_forbidden("apt-get -o Acquire::Retries=3 update"));
    }
}
