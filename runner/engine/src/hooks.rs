//! The user's scripts around stages: `pre-phase.sh`, `post-phase.sh`, `emergency-recovery.sh`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use isokiln_core::pipeline::Hook;
use tokio::process::Command;

use crate::process::Group;

/// Folder of a project's hooks, beside its pipeline files.
const OWN: &str = "hooks";

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
    let errors = output.try_clone().map_err(start)?;
    let may_run = call.script.metadata().map_err(start)?.permissions().mode() & 0o111 != 0;
    let mut command = if may_run {
        Command::new(call.script)
    } else {
        let mut shell = Command::new("/bin/sh");
        shell.arg(call.script);
        shell
    };
    command
        .args(call.arguments)
        .envs(call.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(call.folder)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    let group = Group::of(&child);
    match tokio::time::timeout(call.time, child.wait()).await {
        Ok(status) => {
            group.forget();
            match status.map_err(start)? {
                status if status.success() => Ok(()),
                status => Err(HookError::Ended { script: call.script.to_owned(), status }),
            }
        }
        Err(_) => {
            group.end(Box::pin(async { child.wait().await.ok() })).await;
            Err(HookError::TimedOut { script: call.script.to_owned(), time: call.time })
        }
    }
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
