//! Why a stage failed, from everything that is known about its end.

use isokiln_core::pipeline::Limits;
use isokiln_core::review::Room;
use isokiln_core::units::{show_duration, show_size};

use super::error::room;
use crate::sandbox::StageExit;

/// A cause in one line, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) cause: String,
    pub(super) hint: Option<String>,
}

/// Puts together what the stage said of itself, how it ended, and how full the disk is.
pub(super) fn explain(
    exit: StageExit,
    said: Option<(String, String)>,
    rooms: &[Room],
    limits: &Limits,
    has_network: bool,
    tail: &[String],
) -> Failure {
    let failure = |cause: String, hint: &str| Failure { cause, hint: Some(hint.to_owned()) };
    if let Some(full) = rooms.iter().find(|room| room.is_full()) {
        // What would make room there is for the caller to find out.
        let cause = format!("{} is full ({})", full.what, room(full.bytes, full.inodes));
        return Failure { cause, hint: None };
    }
    match exit {
        StageExit::TimedOut => failure(
            format!("it took longer than its limit of {}", show_duration(limits.time)),
            "give it more: limits = { time = \"…\" } in the stage, or [limits] for all",
        ),
        StageExit::OutOfMemory => failure(
            match limits.memory {
                Some(memory) => format!("it needed more memory than its limit of {}", show_size(memory)),
                None => "the machine ran out of memory".to_owned(),
            },
            "give it more: limits = { memory = \"…\" } in the stage, or [limits] for all",
        ),
        StageExit::Lost => failure(
            "its container was killed from outside".to_owned(),
            "see the engine's log for the reason, then build again: it continues from the last checkpoint",
        ),
        StageExit::Cancelled => failure("it was cancelled".to_owned(), "build again to continue"),
        StageExit::Status(status) => {
            let resolving = [
                "Temporary failure in name resolution",
                "Temporary failure resolving",
                "Could not resolve host",
            ];
            let offline =
                !has_network && tail.iter().any(|line| resolving.iter().any(|words| line.contains(words)));
            match said {
                Some((cause, _)) if offline => {
                    failure(cause, "the stage has no network; say network = true in it if it needs one")
                }
                Some((cause, hint)) => Failure { cause, hint: (!hint.is_empty()).then_some(hint) },
                None => failure(format!("it ended with status {status}"), "see the last lines of its log"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Option<(u64, u64)> = Some((1 << 40, 1 << 20));

    fn cause(exit: StageExit, said: Option<(&str, &str)>, free: Option<(u64, u64)>) -> String {
        let room = |(bytes, inodes)| Room { what: "the engine's disk".to_owned(), bytes, inodes };
        let rooms: Vec<_> = free.map(room).into_iter().collect();
        let said = said.map(|(cause, hint)| (cause.to_owned(), hint.to_owned()));
        let limits = Limits { memory: Some(1 << 30), ..Limits::default() };
        explain(exit, said, &rooms, &limits, true, &[]).cause
    }

    #[test]
    fn the_stages_own_words_come_first() {
        let said = Some(("no such package: vim-tinny", "correct the name"));
        assert_eq!(cause(StageExit::Status(1), said, ROOMY), "no such package: vim-tinny");
        assert_eq!(cause(StageExit::Status(7), None, ROOMY), "it ended with status 7");
    }

    #[test]
    fn a_full_disk_explains_everything_else() {
        let said = Some(("apt-get could not install the packages", ""));
        assert!(cause(StageExit::Status(1), said, Some((4096, 1 << 20))).contains("disk is full (4.0 KiB"));
        assert!(cause(StageExit::Status(1), said, Some((1 << 40, 3))).contains("3 inodes are left"));
    }

    #[test]
    fn limits_are_named_with_their_value() {
        assert_eq!(
            cause(StageExit::OutOfMemory, None, None),
            "it needed more memory than its limit of 1.0 GiB"
        );
        assert_eq!(cause(StageExit::TimedOut, None, None), "it took longer than its limit of 2h 00m");
    }

    #[test]
    fn a_stage_without_network_that_needed_one_is_told_so() {
        let tail = vec!["curl: (6) Could not resolve host: example.org".to_owned()];
        let said = Some(("the script ended with status 6".to_owned(), String::new()));
        let failure = explain(StageExit::Status(1), said, &[], &Limits::default(), false, &tail);
        assert!(failure.hint.unwrap().contains("network = true"));
    }
}
