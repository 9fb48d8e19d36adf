//! Whose container it is: labels that let a later process sweep up after one that was killed.

use std::collections::HashMap;
use std::fs;

use isokiln_core::names::RunId;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

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
pub(super) fn owner() -> String {
    let pid = std::process::id();
    let start = match i32::try_from(pid).map(look) {
        Ok(Sight::Running(start)) => start,
        _ => String::new(),
    };
    format!("{} {} {pid} {start}", boot_id(), pid_namespace())
}

/// Whether a container's maker may still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It runs.
    Alive,
    /// It has ended.
    Gone,
    /// It runs or ran elsewhere: on another machine, in another container, before a reboot. Or it is another user's, and
    /// cannot be looked at.
    Unknown,
}

/// Looks for the process that an owner label names.
pub(super) fn owner_state(label: &str) -> OwnerState {
    let mut words = label.split(' ');
    let (Some(boot), Some(namespace), Some(pid), Some(start)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return OwnerState::Unknown;
    };
    if boot != boot_id() || namespace != pid_namespace() {
        return OwnerState::Unknown;
    }
    let Ok(pid) = pid.parse() else { return OwnerState::Unknown };
    judge(look(pid), start, || kill(Pid::from_raw(pid), None))
}

/// What can be seen of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// It runs since then, in clock ticks since boot.
    Running(String),
    /// It has ended, though its parent has not noticed yet.
    Ended,
    /// Nothing: there is none, or `/proc` hides it (mount option `hidepid`).
    Nothing,
}

/// `asks` sends the process no signal, but tells whether there is one.
fn judge(sight: Sight, start: &str, asks: impl FnOnce() -> nix::Result<()>) -> OwnerState {
    match sight {
        Sight::Running(now) if now == start => OwnerState::Alive,
        Sight::Running(_) | Sight::Ended => OwnerState::Gone,
        Sight::Nothing if asks() == Err(Errno::ESRCH) => OwnerState::Gone,
        Sight::Nothing => OwnerState::Unknown,
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map_or_else(|_| "unknown".to_owned(), |link| link.display().to_string())
}

/// Looks at a process: proc(5), `stat` fields 3 and 22.
fn look(pid: i32) -> Sight {
    let fields = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    // The command name, in parentheses, may hold anything.
    let fields = fields.as_deref().and_then(|stat| stat.rsplit_once(") "));
    let Some((_, fields)) = fields else { return Sight::Nothing };
    let mut fields = fields.split(' ');
    match (fields.next(), fields.nth(18)) {
        (Some("Z"), _) => Sight::Ended,
        (_, Some(start)) => Sight::Running(start.to_owned()),
        _ => Sight::Nothing,
    }
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
    fn a_process_that_is_hidden_is_only_gone_if_there_is_none() {
        let hidden = |answer| judge(Sight::Nothing, "1", || answer);
        assert_eq!(hidden(Err(Errno::ESRCH)), OwnerState::Gone);
        assert_eq!(hidden(Err(Errno::EPERM)), OwnerState::Unknown);
        assert_eq!(hidden(Ok(())), OwnerState::Unknown);
        let is_asked = || panic!("what can be seen is not asked for");
        assert_eq!(judge(Sight::Ended, "1", is_asked), OwnerState::Gone);
        assert_eq!(judge(Sight::Running("1".to_owned()), "1", is_asked), OwnerState::Alive);
    }

    #[test]
    fn strangers_are_left_alone() {
        assert_eq!(owner_state("other-boot pid:[1] 1 1"), OwnerState::Unknown);
        assert_eq!(owner_state(""), OwnerState::Unknown);
    }
}
