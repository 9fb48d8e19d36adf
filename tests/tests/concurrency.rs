//! Several isokilns at the same time: one folder, two folders, two users.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use isokiln_tests::{Engine, Finished, Project, Running, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A pipeline whose first stage is that of every test project.
fn pipeline(name: &str, stages: &str) -> String {
    format!(
        "name = {name:?}\n\n[system]\ndistribution = \"debian\"\nsuite = \"trixie\"\n\n[[stage]]\nname = \"base\"\nuses = \"tiny\"\n{stages}"
    )
}

fn script(name: &str, run: &str) -> String {
    format!("\n[[stage]]\nname = {name:?}\nrun = '''\n{run}\n'''\n")
}

fn start(project: &Project, file: &str) -> Running {
    project.start(&["build", file, "--no-test"])
}

/// `run.json` of the newest run of a pipeline.
#[track_caller]
fn record(project: &Project, pipeline: &str) -> Value {
    let mut runs = project.runs();
    runs.sort();
    let records = runs.iter().rev().filter_map(|run| {
        let text = fs::read(project.home().join("runs").join(run).join("run.json")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    });
    records
        .into_iter()
        .find(|record| record["pipeline"] == pipeline)
        .unwrap_or_else(|| panic!("no run of {pipeline}"))
}

/// What a run did, as `stage state` in order.
fn outcome(record: &Value) -> String {
    let stages = record["stages"].as_array().expect("stages").iter();
    let word = |stage: &Value, key: &str| stage[key].as_str().unwrap_or("?").to_owned();
    let words = stages.map(|stage| format!("{} {}", word(stage, "stage"), word(stage, "state")));
    words.collect::<Vec<_>>().join(", ")
}

/// A stage that waits for the other pipeline's file in the cache, so that neither can end without the other.
fn meet(own: &str, other: &str) -> String {
    format!(
        "touch \"$CACHE/{own}\"\nuntil test -e \"$CACHE/{other}\"; do sleep 0.05; done\necho {own} >\"$ROOTFS/etc/{own}\"\n"
    )
}

#[test]
fn builds_of_two_pipelines_in_one_folder_run_at_the_same_time_and_share_what_they_can() {
    let project = Project::tiny("");
    for (own, other) in [("one", "two"), ("two", "one")] {
        project.add_kind(&format!("meet-{own}"), &meet(own, other));
        let stages = format!(
            "\n[[stage]]\nname = \"meet\"\nuses = \"meet-{own}\"\n{}",
            script("after", &format!("test -e /etc/{own}; echo after >/etc/after"))
        );
        project.write(&format!("{own}.toml"), pipeline(own, &stages));
    }
    // Both rest on a base that the engine has lost: they unpack the same layer at the same time.
    project.write("base.toml", pipeline("base", ""));
    start(&project, "base.toml").wait().expect_code(0);
    for round in 0..2 {
        Engine::connect().remove_volume(&project.volume().expect("a volume"));
        let (one, two) = (start(&project, "one.toml"), start(&project, "two.toml"));
        one.wait().expect_code(0).never_says("waiting for");
        two.wait().expect_code(0).never_says("waiting for");
        for own in ["one", "two"] {
            let done = outcome(&record(&project, own));
            assert_eq!(done, "base hit, meet done, after done", "{own} in round {round}");
            project.edit(&format!("{own}.toml"), "echo after", "echo again;  echo after");
            project.edit(&format!("stages/meet-{own}/run.sh"), "touch", "# again\ntouch");
        }
        project.expect_whole_store();
        project.expect_no_residue();
    }
    let layers = |pipeline: &str| {
        let shown =
            project.isokiln(&["checkpoint", "show", "after", "--pipeline", pipeline, "--format", "json"]);
        shown.expect_code(0).json()["diff_ids"].as_array().expect("a list").clone()
    };
    assert_eq!(layers("one")[0], layers("two")[0]);
    assert_ne!(layers("one")[1], layers("two")[1]);
    // The newest of two builds that began at the same time is one of them, whole.
    assert!(project.record()["exit_code"] == 0);
}

#[test]
fn a_build_that_begins_while_another_runs_spares_what_that_one_rests_on() {
    let project = Project::tiny("");
    project.add_kind(
        "gate",
        "note waiting\nuntil test -e \"$CACHE/open\"; do sleep 0.05; done\necho gate >\"$ROOTFS/etc/gate\"\n",
    );
    let stages = script("own", "echo own >/etc/own")
        + "\n[[stage]]\nname = \"gate\"\nuses = \"gate\"\n"
        + &script("after", "cat /etc/own /etc/gate >/etc/after");
    project.write("slow.toml", pipeline("slow", &stages));
    let opens = "\n[[stage]]\nname = \"open\"\nuses = \"open\"\n";
    project.add_kind("open", "touch \"$CACHE/open\"\n");
    project.write("quick.toml", pipeline("quick", &(script("other", "echo other >/etc/other") + opens)));
    start(&project, "quick.toml").wait().expect_code(0);
    project.edit("quick.toml", "echo other", "echo  other");
    Engine::connect().remove_volume(&project.volume().expect("a volume"));

    let mut slow = start(&project, "slow.toml");
    slow.wait_until_it_says("gate: waiting");
    // It unpacks the base and tidies, though what the other has made is in no checkpoint of its own.
    project.edit("stages/open/run.sh", "touch", "# again\ntouch");
    start(&project, "quick.toml").wait().expect_code(0);
    slow.wait().expect_code(0);
    assert_eq!(outcome(&record(&project, "slow")), "base hit, own done, gate done, after done");
    project.expect_whole_store();
    project.expect_no_residue();
}

#[test]
fn a_second_build_of_a_pipeline_waits_and_finds_what_the_first_has_made() {
    let project = Project::slow(4);
    let mut first = project.start_slow(|_| ());
    let mut second = start(&project, "pipeline.toml");
    second.wait_until_it_says("which writes to the same store (build of tiny)");
    assert!(first.is_running());
    first.wait().expect_code(0).says("3 stages run");
    second.wait().expect_code(0).says("0 stages run, 3 from checkpoints");
    project.expect_no_residue();
}

#[test]
fn who_removes_something_waits_for_builds_and_builds_for_it() {
    let project = Project::slow(4);
    let mut first = project.start_slow(|_| ());
    let mut waiting = Vec::new();
    for arguments in [&["gc"][..], &["checkpoint", "rm", "after"]] {
        let mut running = project.start(arguments);
        running.wait_until_it_says("which writes to the same store (build of tiny)");
        waiting.push(running);
    }
    assert!(first.is_running());
    first.wait().expect_code(0);
    for running in waiting {
        running.wait().expect_code(0);
    }
    project.expect_whole_store();

    // A build waits for whoever is alone, and says for whom.
    let lock = fs::File::options().write(true).open(project.home().join("lock")).expect("the lock");
    lock.lock().expect("nobody has it");
    fs::write(project.home().join("lock"), "1 gc\n").expect("the lock can be signed");
    let mut build = start(&project, "pipeline.toml");
    build.wait_until_it_says("waiting for process 1, which writes to the same store (gc)");
    lock.unlock().expect("it was ours");
    build.wait().expect_code(0);
}

#[test]
fn locks_of_killed_processes_block_nobody() {
    let project = Project::slow(60);
    let first = project.start_slow(|command| {
        command.arg("--foreground");
    });
    let mut second = project.start(&["build", "pipeline.toml", "--no-test", "--foreground"]);
    second.wait_until_it_says("waiting for");
    for running in [first, second] {
        running.signal(Signal::SIGKILL);
        assert_eq!(running.wait().code, None);
    }
    project.isokiln(&["gc"]).expect_code(0).never_says("waiting for");
    project.hurry();
    project.build(&[]).expect_code(0).never_says("waiting for");
    assert_eq!(project.outcome(), "base hit, slow done, after done");
    project.expect_no_residue();
    project.expect_whole_store();
}

/// Runs isokiln as a user of their own, who is let in by the engine's socket's group.
struct Stranger {
    folder: tempfile::TempDir,
    user: u32,
    group: u32,
}

impl Stranger {
    fn new() -> Self {
        use std::os::unix::fs::{MetadataExt, chown};
        let folder = tempfile::TempDir::with_prefix("isokiln-test-").expect("a folder");
        let socket = fs::metadata("/var/run/docker.sock").expect("the engine's socket").gid();
        let user = 54_321;
        // isokiln's binary need not lie where others may look.
        fs::copy(isokiln_tests::binary(), folder.path().join("isokiln")).expect("the binary can be copied");
        fs::create_dir(folder.path().join("tmp")).expect("a folder");
        for path in [folder.path().to_owned(), folder.path().join("tmp")] {
            chown(path, Some(user), Some(user)).expect("this test runs as root");
        }
        Self { folder, user, group: socket }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &self.user.to_string(), "--regid", &self.user.to_string()])
            .args(["--groups", &self.group.to_string(), "--"])
            .arg(self.folder.path().join("isokiln"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("HOME", self.folder.path())
            .env_remove("ISOKILN_DIR");
        command
    }
}

#[test]
fn two_users_of_one_engine_do_not_meet() {
    let project = Project::slow(60);
    let stranger = Stranger::new();
    // The stranger's project is a copy that they can read.
    for name in ["stages", "pipeline.toml"] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(project.path(name)).arg(stranger.folder.path());
        Finished::of(&mut copy).expect_code(0);
    }
    let mut theirs = Running::start(&mut stranger.command(&["build", "pipeline.toml", "--no-test"]));
    theirs.wait_until_it_says("slow: waiting");
    // Whatever root does with its own folder and sweeps leaves them alone, though their folder is closed to others.
    let mut ours = project.start_slow(|command| {
        command.arg("--foreground");
    });
    project.isokiln(&["doctor", "--residue"]).expect_code(0);
    assert!(theirs.is_running() && ours.is_running());
    Finished::of(&mut stranger.command(&["doctor", "--residue"])).expect_code(0);
    ours.signal(Signal::SIGKILL);
    ours.wait();
    // The stranger's next command sweeps what root's killed run has left, and nothing of what lives.
    project.hurry();
    project.build(&[]).expect_code(0);
    assert!(theirs.is_running(), "{}", theirs.stderr());
    let since = Instant::now();
    theirs.signal(Signal::SIGTERM);
    theirs.wait().expect_code(130);
    assert!(since.elapsed() < Duration::from_secs(15));
    // A volume whose folder cannot be looked at is not taken for one that nobody needs.
    project.isokiln(&["clean", "--all"]).expect_code(0);
    let home = stranger.folder.path().join(".isokiln");
    let has_volume = || {
        let volumes = Engine::connect().volumes();
        volumes.iter().any(|(_, labels)| labels.values().any(|value| value == &home.display().to_string()))
    };
    assert!(has_volume());
    Finished::of(&mut stranger.command(&["clean"])).expect_code(0);
    wait_until("their volume is gone", || !has_volume());
}
