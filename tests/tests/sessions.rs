//! Builds and those who watch them: viewers that go and come, questions, cancelling from elsewhere, and what is told of
//! runs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isokiln_tests::{Project, Running, boot_sector_iso, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

/// Waits until the newest run has come to this.
fn wait_for(project: &Project, state: &str) {
    wait_until(&format!("the run is {state}"), || project.status()["state"] == state);
}

#[test]
fn a_build_goes_on_when_its_viewer_is_hung_up_left_or_killed() {
    for (signal, code) in [(Signal::SIGHUP, Some(129)), (Signal::SIGQUIT, Some(0)), (Signal::SIGKILL, None)] {
        let project = Project::slow(5);
        let running = project.start_slow(|_| ());
        let (viewer, supervisor) =
            (Pid::from_raw(running.id().try_into().expect("small")), project.supervisor());
        assert_ne!(supervisor, viewer);
        assert_eq!(getsid(Some(supervisor)), Ok(supervisor), "it leads a session of its own");
        running.signal(signal);
        let left = running.wait();
        assert_eq!(left.code, code, "{left}");
        if code.is_some() {
            let run = &project.runs()[0];
            left.says(&format!(
                "the build goes on: isokiln attach {run} shows it again, isokiln cancel {run} stops it"
            ));
        }
        assert_eq!(project.status()["state"], "running");
        // Whoever comes back is told all of it, and how it ended.
        project.isokiln(&["attach"]).expect_code(0).says("Run base").says("Done slow").says("3 stages run");
        assert_eq!(project.outcome(), "base done, slow done, after done");
        project.expect_no_residue();
    }
}

#[test]
fn a_hang_up_means_nothing_to_a_supervisor_and_termination_stops_it() {
    let project = Project::slow(60);
    let running = project.start_slow(|_| ());
    let supervisor = project.supervisor();
    kill(supervisor, Signal::SIGHUP).expect("it runs");
    assert_eq!(project.status()["state"], "running");
    kill(supervisor, Signal::SIGTERM).expect("it runs");
    running.wait().expect_code(130).says("Cancel stopping now").says("error: cancelled");
    project.expect_to_continue();
}

#[test]
fn a_detached_build_is_followed_cancelled_and_listed_from_elsewhere() {
    let project = Project::slow(60);
    let started = project.isokiln(&["build", "pipeline.toml", "--no-test", "--detach"]).expect_code(0);
    started.says("Start tiny").says("the build goes on").never_says("Done slow");
    wait_until("the stage runs", || {
        let doing = &project.status()["doing"][0];
        doing["name"] == "slow" && doing["words"] == "waiting"
    });
    wait_until("the base is saved", || project.saved() == ["base"]);
    let status = project.isokiln(&["status"]).expect_code(0);
    let supervisor = project.supervisor();
    status
        .prints(&format!("process {supervisor}"))
        .prints("     session no terminal, supervised")
        .prints("        done base")
        .prints("     running slow")
        .prints("           - after");

    // Looking does no harm, however it ends.
    let mut viewer = project.start(&["attach"]);
    viewer.wait_until_it_says("slow: waiting");
    viewer.signal(Signal::SIGINT);
    viewer.wait().expect_code(0).says("the build goes on");
    let mut json = project.start(&["attach", "--format", "json"]);
    json.wait_until_it_says("slow: waiting");

    let log = project.isokiln(&["logs"]).expect_code(0);
    assert_eq!(log.stdout, "begun\n");
    let mut following = project.start(&["logs", "slow", "--follow"]);

    let cancelled = project.isokiln(&["cancel"]).expect_code(0);
    cancelled.prints("stops when the stage in progress is done");
    assert!(following.is_running(), "the stage goes on");
    let since = Instant::now();
    project.isokiln(&["cancel", "--now"]).expect_code(0).prints("is cancelled");
    assert!(since.elapsed() < Duration::from_secs(15));
    following.wait().expect_code(0);
    let ended = json.wait().expect_code(130);
    let events = ended.events();
    assert_eq!(events.iter().filter(|event| event["event"] == "cancelling").count(), 2);
    assert_eq!(events.last().expect("the error")["error"]["message"], "cancelled");

    let run = project.runs().remove(0);
    project.isokiln(&["runs"]).expect_code(0).prints(&format!("{run}  cancelled"));
    project
        .isokiln(&["status", &run[..15]])
        .expect_code(0)
        .prints("cancelled tiny")
        .prints("broken off slow");
    project.isokiln(&["cancel"]).expect_code(2).says(&format!("error: run {run} is not running"));
    // What it was like can still be seen.
    project.isokiln(&["attach", &run]).expect_code(130).says("Run slow").says("error: cancelled");
    project.expect_to_continue();
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let project = Project::tiny("");
    for command in ["attach", "status", "logs", "cancel"] {
        project.isokiln(&[command]).expect_code(2).says("error: there is no run here yet").says("hint:");
    }
    project.isokiln(&["runs"]).expect_code(0).prints("no runs yet");
    project.build(&[]).expect_code(0);
    project.build(&[]).expect_code(0);
    project.isokiln(&["status", "19"]).expect_code(2).says("there is no run \"19\"").says("hint: valid: ");
    project.isokiln(&["status", "20"]).expect_code(2).says("several runs begin with \"20\"");
    // The newest run has only hits.
    project.isokiln(&["logs"]).expect_code(2).says("no stage has run in run").says("of an earlier run");
    let mut runs = project.runs();
    runs.sort();
    project.isokiln(&["logs", "--run", &runs[0]]).expect_code(0);
    let wrong = project.isokiln(&["logs", "bas", "--run", &runs[0]]).expect_code(2);
    wrong.says("no stage bas has run in run").says("hint: valid: base");
}

#[test]
fn a_run_whose_process_was_killed_is_told_as_such() {
    let project = Project::slow(60);
    let running = project.start_slow(|_| ());
    let run = project.runs().remove(0);
    kill(project.supervisor(), Signal::SIGKILL).expect("it runs");
    running.wait().expect_code(3).says(&format!("the supervisor of run {run} has ended without a word"));
    project.isokiln(&["runs"]).expect_code(0).prints(&format!("{run}  killed"));
    project
        .isokiln(&["attach"])
        .expect_code(3)
        .says("Run slow")
        .says("has ended without a word")
        .says("build again");
    project.isokiln(&["logs", "--follow"]).expect_code(0).prints("begun");
    project.isokiln(&["cancel"]).expect_code(2).says("is not running");
    project.expect_to_continue();
}

#[test]
fn under_ci_and_on_request_a_build_is_one_process() {
    for (variable, arguments) in [(Some("CI"), &[][..]), (None, &["--foreground"])] {
        let project = Project::slow(60);
        let running = project.start_slow(|command| {
            command.args(arguments);
            variable.map(|name| command.env(name, "true"));
        });
        assert_eq!(project.supervisor().as_raw(), i32::try_from(running.id()).expect("small"));
        let said = running.stderr();
        let place = if variable.is_some() { "CI" } else { "no terminal" };
        assert!(
            said.contains(&format!("Session {place}: the run is this process, and ends with it")),
            "{said}"
        );
        // It can be stopped from elsewhere all the same.
        project.isokiln(&["cancel", "--now"]).expect_code(0).prints("is cancelled");
        running.wait().expect_code(130);
        project.expect_to_continue();
    }
}

#[test]
fn the_session_that_a_build_was_started_in_is_told() {
    let project = Project::tiny("");
    let line = format!("{} build pipeline.toml --no-test", isokiln_tests::binary().display());
    for (expected, variables) in [
        ("ssh", &[("SSH_CONNECTION", "192.0.2.7 1 192.0.2.1 22")][..]),
        ("tmux, ssh", &[("SSH_CONNECTION", "192.0.2.7 1 192.0.2.1 22"), ("TMUX", "/tmp/tmux-0/default,1,0")]),
        ("screen, desktop", &[("STY", "1.pts-0.host"), ("DISPLAY", ":0")]),
        ("console", &[]),
    ] {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(project.path("."));
        for name in ["ISOKILN_DIR", "CI", "SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT", "TMUX", "STY", "DISPLAY"]
        {
            script.env_remove(name);
        }
        for name in ["WAYLAND_DISPLAY", "XDG_SESSION_TYPE", "GITHUB_ACTIONS"] {
            script.env_remove(name);
        }
        script.envs(variables.iter().copied()).env("NO_COLOR", "1").env("SHELL", "/bin/sh");
        let seen = Running::start(&mut script).wait().expect_code(0);
        let line = format!("Session {expected}: the build goes on without it");
        assert!(seen.stdout.contains(&line), "{line:?} is not said\n{seen}");
        project.isokiln(&["status"]).expect_code(0).prints(&format!("session {expected}, supervised"));
    }
}

/// Programs of systemd that say what they are told to, and what was asked of them.
fn pretend_systemd(project: &Project, kills: &str, lingers: &str) -> String {
    for (name, text) in [
        ("busctl", format!("printf 'b {kills}\\nas 0\\nas 1 \"nobody\"\\n'")),
        ("loginctl", format!("echo {lingers}")),
        (
            "systemd-run",
            "echo \"$@\" >>asked; while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"".to_owned(),
        ),
    ] {
        project.write(&format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(project.path(&format!("bin/{name}")), fs::Permissions::from_mode(0o755))
            .expect("mode");
    }
    project.write("run/systemd/private", "");
    format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_logout_that_would_kill_builds_is_escaped_or_told() {
    let build = |project: &Project, path: &str| {
        let mut command = project.command(&["build", "pipeline.toml", "--no-test"]);
        command.env("PATH", path).env("XDG_RUNTIME_DIR", project.path("run"));
        Running::start(&mut command).wait().expect_code(0)
    };
    let project = Project::tiny("");
    let path = pretend_systemd(&project, "true", "yes");
    build(&project, &path).says("Finished").never_says("warning");
    let asked = fs::read_to_string(project.path("asked")).expect("a scope was asked for");
    assert!(asked.starts_with("--user --scope --quiet --collect"), "{asked}");

    fs::remove_file(project.path("asked")).expect("what was asked");
    let path = pretend_systemd(&project, "true", "no");
    build(&project, &path).says("systemd ends programs at a logout").says("loginctl enable-linger");
    let path = pretend_systemd(&project, "false", "no");
    build(&project, &path).never_says("logout");
    assert!(!project.path("asked").exists(), "a scope of a manager that ends is no escape");
    let mut doctor = project.command(&["doctor"]);
    doctor.env("PATH", &path).env("XDG_RUNTIME_DIR", project.path("run"));
    Running::start(&mut doctor).wait().prints("logout: systemd leaves programs alone");
}

#[test]
fn a_question_outlives_the_terminal_and_is_answered_by_whoever_comes() {
    // Of another mirror, say, a person may know more: the rule wants to be asked.
    let project = Project::tiny("\n[[stage]]\nname = \"flaky\"\nuses = \"flaky\"\n");
    project.add_kind(
        "flaky",
        "if [ -e \"$CACHE/tried\" ]; then rm \"$CACHE/tried\"; echo ok >\"$ROOTFS/etc/flaky\"; exit; fi\ntouch \"$CACHE/tried\"\necho 'E: Failed to fetch http://mirror.example/x.deb  Connection timed out'\nexit 100\n",
    );
    // A terminal that nobody types at is not one at its end: its input is a pipe that stays open.
    let in_terminal = |arguments: &str| {
        let mut script = Command::new("script");
        let line = format!("{} {arguments}", isokiln_tests::binary().display());
        script.args(["--quiet", "--flush", "--return", "--command", &line, "typescript"]);
        project.mark(&mut script).env("SHELL", "/bin/sh");
        script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("script can be run")
    };
    let mut terminal = in_terminal("build pipeline.toml --no-test --recover=ask");
    wait_until("it asks", || {
        project.home().join("latest/run.json").exists() && project.status()["question"].is_string()
    });
    terminal.kill().expect("it can be killed");
    terminal.wait().expect("it ends");
    project.isokiln(&["status"]).expect_code(0).prints("running tiny").prints("asks stage flaky failed");
    let mut terminal = in_terminal("attach");
    terminal.stdin.as_mut().expect("a pipe").write_all(b"y\n").expect("it is read");
    assert!(terminal.wait().expect("it ends").success());
    wait_for(&project, "finished");
    assert_eq!(project.outcome(), "base done, flaky done");
}

#[test]
fn a_boot_test_can_be_watched_and_cancelled_from_elsewhere() {
    let project = Project::tiny("");
    project.write("endless.iso", boot_sector_iso());
    let mut running = project.start(&["test", "endless.iso", "--profile", "bios-cd"]);
    running.wait_until_it_says("Boot bios-cd under");
    project.isokiln(&["status"]).expect_code(0).prints("running boot test").prints("booting bios-cd");
    project.isokiln(&["cancel", "--now"]).expect_code(0).prints("is cancelled");
    running.wait().expect_code(130);
    project.expect_no_residue();
}
