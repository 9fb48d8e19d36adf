//! Signals, closed terminals and other isokilns: what stops, what goes on, what is left.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use isokiln_tests::{Engine, Finished, Project, Running, binary, boot_sector_iso, wait_until};
use nix::sys::signal::{Signal, kill};

/// Stopping at once means: long before what runs would be done.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Sends a signal and waits for an end that comes soon.
#[track_caller]
fn stop(running: Running, signal: Signal) -> Finished {
    let since = Instant::now();
    running.signal(signal);
    let finished = running.wait();
    assert!(since.elapsed() < AT_ONCE, "it took {:.1?} to stop\n{finished}", since.elapsed());
    finished
}

#[test]
fn the_first_ctrl_c_lets_the_stage_finish_and_keeps_it() {
    let project = Project::slow(3);
    let running = project.start_slow(|_| ());
    running.signal(Signal::SIGINT);
    running
        .wait()
        .expect_code(130)
        .says("Cancel stopping at the next safe point; press Ctrl-C again to stop now")
        .says("Done slow")
        .says("error: cancelled")
        .never_says("Run after");
    assert_eq!(project.record()["exit_code"], 130);
    assert_eq!(project.saved(), ["base", "slow"]);
    project.expect_no_residue();
    project.expect_whole_store();

    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, slow hit, after done");
}

#[test]
fn the_second_ctrl_c_stops_at_once() {
    let project = Project::slow(60);
    let mut running = project.start_slow(|_| ());
    running.signal(Signal::SIGINT);
    running.wait_until_it_says("press Ctrl-C again");
    assert!(running.is_running(), "the first one is not enough");
    stop(running, Signal::SIGINT).expect_code(130).says("Cancel stopping now").says("error: cancelled");
    project.expect_to_continue();
}

#[test]
fn termination_stops_at_once_and_so_does_a_hang_up_in_the_foreground() {
    for (signal, arguments) in [(Signal::SIGTERM, &[][..]), (Signal::SIGHUP, &["--foreground"])] {
        let project = Project::slow(60);
        let running = project.start_slow(|command| {
            command.args(arguments);
        });
        stop(running, signal).expect_code(130).says("Cancel stopping now").says("error: cancelled");
        project.expect_to_continue();
    }
}

#[test]
fn who_waits_for_the_lock_can_be_stopped_in_any_way() {
    let project = Project::tiny("");
    project.build(&[]).expect_code(0);
    // Whoever has the lock has not said who it is.
    let lock = fs::File::create(project.home().join("lock")).expect("a file");
    lock.lock().expect("nobody else has it");
    for arguments in [&["build", "pipeline.toml"][..], &["gc"], &["clean"], &["clean", "--all"]] {
        let is_build = arguments[0] == "build";
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            if is_build && signal == Signal::SIGHUP {
                // That leaves only the view.
                continue;
            }
            let mut running = project.start(arguments);
            running.wait_until_it_says("waiting for another process, which writes to the same store");
            stop(running, signal).expect_code(130).says("error: cancelled");
            if is_build {
                assert_eq!(project.status()["state"], "cancelled");
            }
        }
    }
    lock.unlock().expect("it was ours");
    project.build(&[]).expect_code(0).says("0 stages run, 1 from checkpoints");
}

#[test]
fn a_signal_breaks_off_saving_and_unpacking() {
    let project = Project::tiny(
        "\n[[stage]]\nname = \"big\"\nuses = \"big\"\n\n[[stage]]\nname = \"after\"\nrun = \"echo one >/etc/after\"\n",
    );
    project.add_kind("big", "head -c 400M /dev/urandom >\"$ROOTFS/big\"\n");
    let mut running = project.start(&["build", "pipeline.toml", "--no-test"]);
    running.wait_until_it_says("Done big");
    stop(running, Signal::SIGTERM).expect_code(130).says_one_error().says("error: cancelled");
    assert_eq!(project.saved(), ["base"], "the stage was not being saved any more");
    project.expect_whole_store();
    project.expect_no_residue();

    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, big done, after done");
    Engine::connect().remove_volume(&project.volume().expect("a volume"));
    project.edit("pipeline.toml", "echo one", "echo two");
    let mut running = project.start(&["build", "pipeline.toml", "--no-test"]);
    running.wait_until_it_says("unpacking layer");
    stop(running, Signal::SIGTERM).expect_code(130).says_one_error().says("error: cancelled");
    project.expect_whole_store();
    project.expect_no_residue();

    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, big hit, after done");
}

#[test]
fn a_boot_test_ends_with_the_first_ctrl_c() {
    let project = Project::tiny("");
    project.write("endless.iso", boot_sector_iso());
    let mut running = project.start(&["test", "endless.iso", "--profile", "bios-cd"]);
    running.wait_until_it_says("Boot bios-cd under");
    stop(running, Signal::SIGINT).expect_code(130).says("error: cancelled");
    project.expect_no_residue();
    // Also while the machine is not there yet, and nothing is known of the host.
    fs::remove_file(project.home().join("acceleration.json")).expect("what the canary has found out");
    let mut running = project.start(&["test", "endless.iso", "--profile", "bios-cd"]);
    running.wait_until_it_says("finding out whether KVM runs guests");
    stop(running, Signal::SIGINT).expect_code(130).says("error: cancelled").never_says("Boot bios-cd");
    project.expect_no_residue();
}

#[test]
fn a_killed_build_leaves_what_the_next_command_lists_and_sweeps() {
    let project = Project::slow(60);
    // In a folder of its own, where nobody else sweeps.
    let temporary = project.temporary();
    let running = project.start_slow(|_| ());
    let folders = || fs::read_dir(&temporary).expect("a folder").flatten().count();
    wait_until("the folder for pipes is there", || folders() == 1);
    kill(project.supervisor(), Signal::SIGKILL).expect("it runs");
    running
        .wait()
        .expect_code(3)
        .says("error: the supervisor of run")
        .says("has ended without a word: signal: 9 (SIGKILL)")
        .says("hint: build again");
    assert_eq!(folders(), 1, "nobody was left to remove it");
    assert_eq!(project.status()["state"], "killed");
    let socket = project.home().join("latest/socket");
    assert!(socket.symlink_metadata().is_ok(), "nobody was left to remove it");

    let listed = project.isokiln(&["doctor", "--residue"]).expect_code(0);
    let line = listed.stdout.lines().find(|line| line.contains(&*temporary.to_string_lossy()));
    let line = line.unwrap_or_else(|| panic!("the folder is not listed\n{listed}"));
    assert!(line.starts_with("folder") && line.ends_with("the next command removes it"), "{line}");
    assert_eq!(folders(), 1, "listing removes nothing");
    let json = project.isokiln(&["doctor", "--residue", "--format", "json"]).expect_code(0).json();
    let ours = json.as_array().expect("a list").iter().find(|leftover| leftover["kind"] == "folder");
    assert_eq!(ours.expect("a folder")["fate"], "swept");

    project.hurry();
    project
        .build(&[])
        .expect_code(0)
        .says(&format!("removed folder {}", temporary.display()))
        .says("removed the socket of run");
    assert_eq!(project.outcome(), "base hit, slow done, after done");
    project.expect_no_residue();
    project.expect_whole_store();
}

#[test]
fn output_that_nobody_reads_does_not_stop_a_build() {
    for redirection in ["2>&1 | head -1", "--format json 2>&1 | head -1", ">&- 2>&-", "2>/dev/full"] {
        let project = Project::slow(2);
        let mut shell = Command::new("sh");
        let line = format!("\"$0\" build pipeline.toml --no-test {redirection}");
        shell.args(["-c", &line]).arg(binary());
        Finished::of(project.mark(&mut shell));
        assert_eq!(project.record()["exit_code"], 0, "{redirection}: {:#}", project.record());
        assert_eq!(project.saved(), ["base", "slow", "after"], "{redirection}");
        project.expect_no_residue();
    }
}

#[test]
fn a_build_outlives_the_terminal_that_it_was_started_from() {
    let project = Project::slow(8);
    let mut script = Command::new("script");
    let line = format!("{} build pipeline.toml --no-test", binary().display());
    script.args(["--quiet", "--flush", "--command", &line, "typescript"]);
    let terminal = Running::start(project.mark(&mut script).env("SHELL", "/bin/sh"));
    wait_until("the stage runs", || {
        fs::read(project.path("typescript"))
            .is_ok_and(|seen| String::from_utf8_lossy(&seen).contains("slow: waiting"))
    });
    wait_until("the base is saved", || project.saved() == ["base"]);
    // With the program that holds it, the terminal goes.
    terminal.signal(Signal::SIGKILL);
    assert_eq!(terminal.wait().code, None);
    project.isokiln(&["attach"]).expect_code(0).says("Run base").says("slow: waiting").says("Finished in");
    assert_eq!(project.outcome(), "base done, slow done, after done");
    project.expect_no_residue();
    project.expect_whole_store();
}

#[test]
fn builds_wait_for_each_other_in_one_store_and_not_in_two_and_readers_never() {
    let project = Project::slow(12);
    let mut first = project.start_slow(|_| ());
    let mut second = project.start(&["build", "pipeline.toml", "--no-test"]);
    let supervisor = project.supervisor();
    second.wait_until_it_says(&format!("waiting for process {supervisor}, which writes to the same store"));
    for arguments in [
        &["checkpoint", "list"][..],
        &["checkpoint", "show", "base"],
        &["plan", "pipeline.toml"],
        &["verify"],
        &["doctor", "--residue"],
        &["kinds"],
    ] {
        project.isokiln(arguments).expect_code(0).never_says("waiting");
    }
    let other = Project::tiny("");
    other.build(&[]).expect_code(0).never_says("waiting");
    assert!(first.is_running(), "the first build must outlast what ran beside it");
    first.wait().expect_code(0).says("3 stages run");
    second.wait().expect_code(0).says("0 stages run, 3 from checkpoints");
    project.expect_no_residue();
    project.expect_whole_store();
}
