//! Whose container it is: labels that let a later process sweep up after one that was killed.

use std::collections::HashMap;
use std::fs;

use isokiln_core::names::RunId;

/// The run that made a container.
pub(super) const RUN: &str = "org.isokiln.run";
/// What it was made for.
pub(super) const STAGE: &str = "org.isokiln.stage";
/// The process that made it: boot id, process namespace, process id and start time.
pub(super) const OWNER: &str = "org.isokiln.pid-start";
/// The folder on its machine that a volume belongs to.
pub(super) const FOLDER: &str = "org.isokiln.folder";
/// Digest of the builder image's definition.
pub(super) const BUILDER: &str = "org.isokiln.builder";

/// Labels for a container of this process.
pub(super) fn labels(run: &RunId, purpose: &str) -> HashMap<String, String> {
    HashMap::from([
        (RUN.to_owned(), run.to_string()),
        (STAGE.to_owned(), purpose.to_owned()),
        (OWNER.to_owned(), owner()),
    ])
}

/// This process, in words that stay unique after it is gone.
pub(crate) fn owner() -> String {
    let pid = std::process::id();
    format!("{} {} {pid} {}", boot_id(), pid_namespace(), start_time(pid).unwrap_or_default())
}

/// Whether a container's maker may still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// It runs.
    Alive,
    /// It has ended.
    Gone,
    /// It runs or ran elsewhere: on another machine, in another container, before a reboot.
    Unknown,
}

/// Looks for the process that an owner label names.
pub(crate) fn owner_state(label: &str) -> OwnerState {
    let mut words = label.split(' ');
    let (Some(boot), Some(namespace), Some(pid), Some(start)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return OwnerState::Unknown;
    };
    if boot != boot_id() || namespace != pid_namespace() {
        return OwnerState::Unknown;
    }
    match pid.parse().ok().and_then(start_time) {
        Some(now) if now == start => OwnerState::Alive,
        _ => OwnerState::Gone,
    }
}

/// Id of the process that an owner label names, where it runs here.
pub(crate) fn owner_process(label: &str) -> Option<u32> {
    label.split(' ').nth(2)?.parse().ok()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map_or_else(|_| "unknown".to_owned(), |link| link.display().to_string())
}

/// When a process started, in clock ticks since boot (proc(5), `stat` field 22).
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    // A zombie has ended, though its parent has not noticed yet.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_an_ended_one_is_gone() {
        assert_eq!(owner_state(&owner()), OwnerState::Alive);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let label = format!("{} {} {pid} 1", boot_id(), pid_namespace());
        assert_eq!(owner_state(&label), OwnerState::Gone);
    }

    #[test]
    fn a_reused_process_id_is_another_process() {
        let mut words: Vec<_> = owner().split(' ').map(str::to_owned).collect();
        words[3] = "1".into();
        assert_eq!(owner_state(&words.join(" ")), OwnerState::Gone);
    }

    #[test]
    fn strangers_are_left_alone() {
        assert_eq!(owner_state("other-boot pid:[1] 1 1"), OwnerState::Unknown);
        assert_eq!(owner_state(""), OwnerState::Unknown);
    }
}
