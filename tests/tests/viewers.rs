//! Viewers at bad moments: suspended ones, ones whose terminal is closed as they start, ones whose output nobody reads,
//! and commands beside a build that waits.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use isokiln_tests::{Finished, Project, Running, binary, wait_until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const BUILD: [&str; 3] = ["build", "pipeline.toml", "--no-test"];

fn has_ended(project: &Project) -> bool {
    project.status()["state"] != "running"
}

/// A shell that runs a script in the project, with isokiln as `$0`.
fn shell(project: &Project, script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(binary());
    project.mark(&mut command);
    command
}

#[test]
fn a_viewer_that_was_suspended_until_the_end_is_told_all_of_it() {
    let project = Project::slow(3);
    let text = project.start_slow(|_| ());
    let json = project.start(&["attach", "--format", "json"]);
    wait_until("the second viewer is told", || json.stderr().contains("Run slow"));
    for viewer in [&text, &json] {
        viewer.signal(Signal::SIGSTOP);
    }
    wait_until("the run has ended", || has_ended(&project));
    let supervisor = fs::read_to_string(project.home().join("latest/pid")).expect("a process");
    let path = format!("/proc/{}", supervisor.trim());
    wait_until("the supervisor has ended", || {
        let status = fs::read_to_string(format!("{path}/stat")).unwrap_or_default();
        status.is_empty() || status.contains(") Z ")
    });
    for viewer in [&text, &json] {
        viewer.signal(Signal::SIGCONT);
    }
    let text = text.wait().expect_code(0);
    for said in ["Done base", "Done slow", "Done after", "3 stages run"] {
        assert_eq!(text.stderr.matches(said).count(), 1, "{said:?} is said once\n{text}");
    }
    let json = json.wait().expect_code(0);
    let names: Vec<_> = json.events().iter().map(|event| event["event"].clone()).collect();
    assert_eq!(names.last().expect("events"), "run-finished", "{json}");
    let count = |name: &str| names.iter().filter(|other| *other == name).count();
    assert_eq!((count("run-started"), count("stage-finished"), count("run-finished")), (1, 3, 1), "{json}");
}

#[test]
fn a_supervisor_that_stands_still_is_told_and_hears_what_was_wished_when_it_goes_on() {
    let project = Project::slow(60);
    let running = project.start_slow(|_| ());
    let supervisor = project.supervisor();
    kill(supervisor, Signal::SIGSTOP).expect("it runs");
    let since = Instant::now();
    let told = project.isokiln(&["cancel", "--now"]).expect_code(3);
    told.says("does not answer").says(&format!("kill -TERM {supervisor}"));
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    kill(supervisor, Signal::SIGCONT).expect("it is there");
    running.wait().expect_code(130);
    project.expect_to_continue();
}

#[test]
fn a_signal_in_a_builds_first_moments_stops_it_or_leaves_it_alone_but_loses_nothing() {
    let project = Project::slow(2);
    project.build(&[]).expect_code(0);
    let mut codes = Vec::new();
    let met = |codes: &[Option<i32>]| codes.contains(&Some(129)) && codes.contains(&Some(130));
    // Until each has met a build, which takes longer to begin where there is much to do.
    for moment in 0..60 {
        if moment >= 12 && met(&codes) {
            break;
        }
        let signal = [Signal::SIGINT, Signal::SIGHUP][moment % 2];
        let before = project.runs().len();
        let running = Running::start(project.command(&BUILD).process_group(0));
        sleep(Duration::from_millis(9 * moment as u64));
        let group = Pid::from_raw(running.id().try_into().expect("small"));
        // To all that a terminal would send it to.
        killpg(group, signal).expect("it is there");
        let ended = running.wait();
        codes.push(ended.code);
        match ended.code {
            // Before there was anything that could have been left alone.
            None => assert!(!ended.stderr.contains("the build goes on"), "{ended}"),
            Some(129) => {
                assert_eq!(signal, Signal::SIGHUP, "{ended}");
                wait_until("the build that goes on is there", || project.runs().len() > before);
                wait_until("it ends", || has_ended(&project));
                let newest = project.status();
                assert_eq!((&newest["state"], &newest["exit_code"]), (&"finished".into(), &0.into()));
            }
            Some(130) => assert_eq!(signal, Signal::SIGINT, "{ended}"),
            // It was quicker.
            Some(0) => {}
            Some(_) => panic!("{signal} after {} ms: {ended}", 9 * moment),
        }
        wait_until("nothing runs", || project.processes().is_empty());
    }
    assert!(met(&codes), "no signal has met a build: {codes:?}");
    project.expect_no_residue();
}

#[test]
fn what_only_looks_ends_when_nobody_reads_it_any_more() {
    let project = Project::slow(60);
    project.add_kind("slow", "echo begun\nnote waiting\nfor i in $(seq 600); do echo $i; sleep 0.1; done\n");
    let running = project.start_slow(|_| ());
    for command in ["logs --follow", "logs slow --follow", "attach --format json"] {
        let script = format!("\"$0\" {command} | head --lines=1");
        let since = Instant::now();
        let ended = Running::start(&mut shell(&project, &script)).wait_at_most(Duration::from_secs(30));
        assert_eq!(ended.code, Some(0), "{ended}");
        assert!(since.elapsed() < Duration::from_secs(20), "{ended}");
        assert_eq!(ended.stdout.lines().count(), 1, "{ended}");
        assert!(!has_ended(&project));
    }
    project.isokiln(&["cancel", "--now"]).expect_code(0);
    running.wait().expect_code(130);
    // How the run has ended is told by the exit code all the same.
    let script = "\"$0\" attach --format json | head --lines=1; exit ${PIPESTATUS[0]}";
    Finished::of(&mut shell(&project, script)).expect_code(130);
}

#[test]
fn a_stop_that_somebody_has_wished_is_told_to_each_viewer_in_its_own_words() {
    let project = Project::slow(60);
    let mut builder = project.start_slow(|_| ());
    let mut looker = project.start(&["attach"]);
    looker.wait_until_it_says("slow: waiting");
    let cancelled = project.isokiln(&["cancel", "--format", "json"]).expect_code(0).json();
    assert_eq!(
        (&cancelled["run"], &cancelled["state"]),
        (&project.runs()[0].as_str().into(), &"running".into())
    );
    builder.wait_until_it_says("press Ctrl-C again to stop now");
    let run = project.runs().remove(0);
    looker.wait_until_it_says(&format!("isokiln cancel --now {run} stops it now"));
    looker.signal(Signal::SIGINT);
    let left = looker.wait().expect_code(0);
    left.says("the build is being stopped").never_says("Ctrl-C").never_says("goes on:");
    // It is stopping already: the first Ctrl-C here is the second wish.
    builder.signal(Signal::SIGINT);
    builder.wait().expect_code(130).says("stopping now");
    let told = project.isokiln(&["attach"]).expect_code(130).says("stopping at the next safe point");
    told.never_says("Ctrl-C").never_says("cancel --now");
}

#[test]
fn a_build_that_waits_is_told_and_survives_a_clean_of_everything() {
    let project = Project::tiny("");
    project.write(".isokiln/locks/tiny", "");
    let held = File::open(project.path(".isokiln/locks/tiny")).expect("a file");
    held.lock().expect("nobody has it");
    let running = project.start(&BUILD);
    wait_until("it waits", || running.stderr().contains("waiting for another process"));
    project.isokiln(&["status"]).expect_code(0).prints("waits for another process");
    project.isokiln(&["runs"]).expect_code(0).prints("waits for another process");
    let cleaned = project.isokiln(&["clean", "--all"]).expect_code(0);
    let run = project.runs().remove(0);
    cleaned.says(&format!("run {run} goes on, and its folder stays"));
    drop(held);
    running.wait().expect_code(0).says("1 stages run");
    assert_eq!(project.runs(), [run]);
    assert_eq!(project.outcome(), "base done");
    project.isokiln(&["attach"]).expect_code(0).says("Done base");
    project.isokiln(&["clean", "--all"]).expect_code(0);
    assert!(!project.home().exists());
}

#[test]
fn a_pipeline_on_standard_input_is_built_by_the_process_that_has_it() {
    let project = Project::tiny("");
    // Kinds are looked for beside the file: it has none of its own. No archive has the suite.
    project.write(
        "pipeline.toml",
        "name = \"standard\"\n[system]\ndistribution = \"debian\"\nsuite = \"nosuch\"\n\
         [[stage]]\nname = \"base\"\nuses = \"bootstrap\"\n",
    );
    for file in ["/dev/stdin", "/proc/self/fd/0"] {
        let script = format!("\"$0\" build {file} --no-test <pipeline.toml");
        let told = Finished::of(&mut shell(&project, &script)).expect_code(2);
        told.says("Start standard").says("the run is this process").says("stage base cannot be planned");
    }
}

#[test]
fn results_for_what_only_this_process_has_open_are_written_by_it() {
    let project = Project::tiny("");
    let script = "\"$0\" build pipeline.toml --no-test --detach --junit /dev/stdout | cat";
    let told = Finished::of(&mut shell(&project, script)).expect_code(0);
    told.says("--detach does nothing: no other process can open /dev/stdout")
        .says("the run is this process")
        .prints("<testsuites ");
}

#[test]
fn names_of_stages_are_looked_at_before_anything_is_started() {
    let project = Project::tiny("");
    for option in ["--until", "--from"] {
        let told = project.build(&[option, "bace", "--detach"]).expect_code(2);
        told.says("bace").says("did you mean \"base\"?").never_says("Start");
    }
    assert!(!project.home().exists());
}

#[test]
fn a_supervisor_keeps_nothing_of_its_starters_open() {
    let project = Project::slow(60);
    project.write("held", "");
    // A lock that others wait for, and a pipe that is read to its end.
    let script = "exec 9<held; flock 9; \"$0\" build pipeline.toml --no-test --detach 3>&1 | cat";
    Running::start(&mut shell(&project, script)).wait_at_most(Duration::from_secs(30)).expect_code(0);
    assert!(!has_ended(&project));
    let held = File::open(project.path("held")).expect("a file");
    held.try_lock().expect("only the shell had it");
    project.isokiln(&["cancel", "--now"]).expect_code(0);
    wait_until("nothing runs", || project.processes().is_empty());
}

#[test]
fn a_path_that_is_no_text_and_what_is_no_run_hurt_no_list() {
    let project = Project::tiny("");
    let home = project.path("").join(OsStr::from_bytes(b"caf\xe9"));
    let isokiln = |arguments: &[&str]| Finished::of(project.command(arguments).arg("--dir").arg(&home));
    isokiln(&BUILD).expect_code(0);
    fs::create_dir(home.join("runs/notes")).expect("a folder");
    let listed = isokiln(&["runs", "--format", "json"]).expect_code(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let status = isokiln(&["status", "--format", "json"]).expect_code(0).json();
    assert!(status["folder"].as_str().is_some_and(|path| path.contains("caf\u{fffd}")), "{status}");
    // Its process did not come to record anything.
    fs::create_dir(home.join("runs/20991231-000000-0000")).expect("a folder");
    isokiln(&["status"]).expect_code(0).prints("killed nothing recorded, run 20991231-000000-0000");
    isokiln(&["clean", "--all"]).expect_code(0);
}
