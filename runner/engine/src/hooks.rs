//! The user's scripts around stages: `pre-phase.sh`, `post-phase.sh`, `emergency-recovery.sh`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use isokiln_core::pipeline::Hook;
use tokio::process::{Child, Command};

use crate::process::Group;

/// Folder of a project's hooks, beside its pipeline files.
const OWN: &str = "hooks";

/// Most bytes of output of a run's hooks, and how often it is looked at.
const MOST_OUTPUT: u64 = 16 << 20;
const LOOKS: Duration = Duration::from_millis(200);

/// A hook to be run.
#[derive(Debug)]
pub struct HookCall<'h> {
    /// The script.
    pub script: &'h Path,
    /// What it is given.
    pub arguments: &'h [String],
    /// Variables besides those of isokiln's own environment.
    pub environment: &'h [(&'static str, String)],
    /// Where it runs.
    pub folder: &'h Path,
    /// Where its output goes, after what is there.
    pub output: &'h Path,
    /// Wall time after which it is ended, with all that it has started.
    pub time: Duration,
}

/// Why a hook has not ended well.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("the hook {} could not be started", script.display())]
    Start {
        /// The script.
        script: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with a status or by a signal.
    #[error("the hook {} ended with {status}", script.display())]
    Ended {
        /// The script.
        script: PathBuf,
        /// How.
        status: ExitStatus,
    },
    /// It wrote too much.
    #[error("the hook {} wrote more than {} MiB and was ended", script.display(), MOST_OUTPUT >> 20)]
    TooMuch {
        /// The script.
        script: PathBuf,
    },
    /// It took too long.
    #[error("the hook {} took longer than {time:?} and was ended", script.display())]
    TimedOut {
        /// The script.
        script: PathBuf,
        /// How long it was given.
        time: Duration,
    },
}

/// The project's script for a hook, where it has one.
pub fn find_hook(project: &Path, hook: Hook) -> Option<PathBuf> {
    let path = project.join(OWN).join(format!("{}.sh", hook.name()));
    path.is_file().then_some(path)
}

/// Runs a hook to its end. One that may not be executed is read by a shell.
pub async fn run_hook(call: &HookCall<'_>) -> Result<(), HookError> {
    let start = |source| HookError::Start { script: call.script.to_owned(), source };
    let output = OpenOptions::new().create(true).append(true).open(call.output).map_err(start)?;
    let command = |shell: bool| {
        let mut command = if shell { Command::new("/bin/sh") } else { Command::new(call.script) };
        if shell {
            command.arg(call.script);
        }
        command
            .args(call.arguments)
            .envs(call.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(call.folder)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    };
    let may_run = call.script.metadata().map_err(start)?.permissions().mode() & 0o111 != 0;
    let spawn = |shell: bool| -> io::Result<Child> {
        command(shell).stdout(output.try_clone()?).stderr(output.try_clone()?).spawn()
    };
    let mut child = match spawn(!may_run) {
        // One without an interpreter's name in its first line.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOEXEC) => spawn(true),
        spawned => spawned,
    }
    .map_err(start)?;
    let group = Group::of(&child);
    let mut looks = tokio::time::interval(LOOKS);
    let mut deadline = std::pin::pin!(tokio::time::sleep(call.time));
    let problem = loop {
        tokio::select! {
            status = child.wait() => {
                group.forget();
                return match status.map_err(start)? {
                    status if status.success() => Ok(()),
                    status => Err(HookError::Ended { script: call.script.to_owned(), status }),
                };
            }
            () = &mut deadline => {
                break HookError::TimedOut { script: call.script.to_owned(), time: call.time };
            }
            _ = looks.tick() => {
                if output.metadata().is_ok_and(|output| output.len() > MOST_OUTPUT) {
                    break HookError::TooMuch { script: call.script.to_owned() };
                }
            }
        }
    };
    group.end(Box::pin(async { child.wait().await.ok() })).await;
    // What it has started may not listen.
    group.kill();
    group.forget();
    Err(problem)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn run(script: &str, executable: bool, time: Duration) -> (Result<(), HookError>, String) {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join(OWN);
        fs::create_dir(&hooks).unwrap();
        let path = hooks.join("pre-phase.sh");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
            .unwrap();
        assert_eq!(find_hook(folder.path(), Hook::PostPhase), None);
        let output = folder.path().join("log");
        let call = HookCall {
            script: &find_hook(folder.path(), Hook::PrePhase).unwrap(),
            arguments: &["base".to_owned(), "two words".to_owned()],
            environment: &[("ISOKILN_RUN", "r1".to_owned())],
            folder: folder.path(),
            output: &output,
            time,
        };
        let result = run_hook(&call).await;
        (result, fs::read_to_string(&output).unwrap())
    }

    #[tokio::test]
    async fn a_hook_is_given_its_arguments_and_a_log() {
        for executable in [true, false] {
            let script = "#!/bin/sh\necho \"$1/$2/$ISOKILN_RUN\"; ls; echo bad >&2\n";
            let (result, log) = run(script, executable, Duration::from_secs(20)).await;
            result.unwrap();
            assert_eq!(log, "base/two words/r1\nhooks\nlog\nbad\n");
        }
    }

    #[tokio::test]
    async fn a_hook_without_a_first_line_runs_and_one_that_floods_is_ended() {
        let (result, log) = run("echo plain\n", true, Duration::from_secs(20)).await;
        result.unwrap();
        assert_eq!(log, "plain\n");
        let (result, log) = run("#!/bin/sh\nyes\n", true, Duration::from_secs(60)).await;
        assert!(matches!(result, Err(HookError::TooMuch { .. })), "{result:?}");
        assert!(log.len() as u64 > MOST_OUTPUT);
    }

    #[tokio::test]
    async fn a_hook_that_fails_or_hangs_is_told() {
        let (result, _) = run("#!/bin/sh\nexit 3\n", true, Duration::from_secs(20)).await;
        assert!(matches!(result, Err(HookError::Ended { status, .. }) if status.code() == Some(3)));
        let started = std::time::Instant::now();
        // What it has started ends with it.
        let (result, log) =
            run("#!/bin/sh\nsleep 60 & echo $!; wait\n", true, Duration::from_millis(300)).await;
        assert!(matches!(result, Err(HookError::TimedOut { .. })), "{result:?}");
        assert!(started.elapsed() < Duration::from_secs(15));
        let process = Path::new("/proc").join(log.trim()).join("stat");
        let is_gone = || fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..100 {
            if is_gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} is still there", process.display());
    }
}
