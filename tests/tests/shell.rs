//! `isokiln shell`: where a stage's script ran, as a person and as a script use it. And what is recorded there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use isokiln_tests::{Engine, Finished, Project, Running, binary, wait_until};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::{Pid, ttyname};
use serde_json::Value;

/// A stage that leaves half of what it was to make, and fails.
const HALF: &str = "\n[[stage]]\nname = \"half\"\nrun = \"echo half >/etc/half; rm /etc/group; exit 3\"\n";

#[track_caller]
fn failed() -> Project {
    let project = Project::tiny(HALF);
    project.build(&[]).expect_code(1).says("status 3");
    project
}

/// `isokiln shell` with arguments, and a script on its standard input.
fn script(project: &Project, arguments: &str, script: &str) -> Finished {
    project.write("script", script);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("\"$0\" shell {arguments} <script")]).arg(binary());
    Finished::of(project.mark(&mut command))
}

/// Prints the name of the volume that belongs to a shell alone.
const OWN_VOLUME: &str =
    "sed -nE 's|.* /([^ ]*/)?volumes/([^/]+)/_data /isokiln/scratch .*|\\2|p' /proc/self/mountinfo";

#[track_caller]
fn expect_no_volume(name: &str) {
    assert_eq!(name.len(), 64, "{name:?} is no volume without a name");
    assert!(!Engine::connect().volumes().iter().any(|(other, _)| other == name), "{name} is left");
}

/// Work folders of stages in the engine.
fn work(project: &Project) -> BTreeSet<String> {
    let volume = project.volume().expect("a volume");
    Engine::connect().volume_names(&volume, "work").into_iter().collect()
}

#[test]
fn a_failed_stages_tree_is_shown_and_cannot_be_changed() {
    let project = failed();
    let kept = work(&project);
    for _ in 0..2 {
        let told = script(
            &project,
            "half",
            "cat $ROOTFS/etc/half\npwd\necho $STAGE\njq -r .run $OPTIONS\n[ -e $ROOTFS/etc/group ] || echo gone\n\
             chroot $ROOTFS /bin/sh -c 'cat /etc/half; ls -d /proc/self /dev/null'\n\
             echo other >$ROOTFS/etc/half; echo new >$ROOTFS/etc/new; cat $ROOTFS/etc/half\necho complaint >&2\n",
        )
        .expect_code(0);
        let lines: Vec<_> = told.stdout.lines().collect();
        let script = "echo half >/etc/half; rm /etc/group; exit 3";
        let expected = ["half", "/", "half", script, "gone", "half", "/dev/null", "/proc/self", "other"];
        assert_eq!(lines, expected, "{told}");
        // Whichever command comes first sweeps what another test has killed, and says so.
        let own = told.stderr.lines().filter(|line| !line.ends_with("of a run that was killed"));
        assert_eq!(own.collect::<Vec<_>>(), ["complaint"], "a script's output is its own");
    }
    // The artifacts folder, the cache and the volume can be written to or not, but nothing stays.
    let told = script(&project, "half", "echo x >$ARTIFACTS/x && echo x >$CACHE/x && cat $CACHE/x\n");
    told.expect_code(0).prints("x\n");
    script(&project, "half", "[ ! -e $CACHE/x ] && ! touch /isokiln/volume/x\n").expect_code(0);
    assert_eq!(work(&project), kept, "looking leaves no trace");
    project.expect_no_residue();
    expect_no_volume(script(&project, "half", OWN_VOLUME).expect_code(0).stdout.trim());
    project.expect_whole_store();
}

#[test]
fn a_command_gives_its_status_and_runs_with_the_rights_of_the_stage() {
    let project = failed();
    for (arguments, code, printed) in [
        (&["half", "--", "sh", "-c", "exit 7"][..], 7, ""),
        (&["half", "--", "cat", "/rootfs/etc/half"], 0, "half\n"),
        (&["half", "--", "printf", "a b|%s|", "c d"], 0, "a b|c d|"),
        (&["half", "--chroot", "--", "cat", "/etc/half"], 0, "half\n"),
        (&["half", "--chroot", "--", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["half", "--", "no-such-program"], 127, ""),
        // Mounting is not for stages that run programs of the root file system.
        (&["half", "--", "sh", "-c", "mount -t tmpfs x /mnt 2>/dev/null || echo refused"], 0, "refused\n"),
        (&["half", "--", "sh", "-c", "ls /sys/class/net"], 0, "lo\n"),
    ] {
        let told = project.isokiln(&[&["shell"], arguments].concat()).expect_code(code);
        assert_eq!(told.stdout, printed, "{told}");
    }
    project.expect_no_residue();
}

#[test]
fn a_checkpoint_can_be_entered_though_its_layers_must_be_unpacked() {
    let project = Project::tiny(
        "\n[[stage]]\nname = \"wish\"\nrun = \"echo $WISH >/etc/wish\"\nenvironment = [\"WISH\"]\n\
         \n[[stage]]\nname = \"other\"\nrun = \"echo other >/etc/wish\"\n",
    );
    let mut build = project.command(&["build", "pipeline.toml", "--no-test"]);
    Finished::of(build.env("WISH", "sesame")).expect_code(0);
    Engine::connect().remove_volume(&project.volume().expect("a volume"));

    let mut shell = project.command(&["shell", "wish", "--", "sh", "-c", "cat $ROOTFS/etc/wish; echo $WISH"]);
    let told = Finished::of(shell.env("WISH", "now")).expect_code(0);
    assert_eq!(told.stdout, "sesame\nnow\n");
    let told = project.isokiln(&["shell", "wish", "--", "cat", "/rootfs/etc/wish"]).expect_code(0);
    told.says("the stage had what is not here: variable WISH").prints("sesame\n");
    project
        .isokiln(&["shell", "other", "--chroot", "--", "cat", "/etc/wish"])
        .expect_code(0)
        .prints("other\n");
    project.isokiln(&["shell", "base", "--chroot", "--", "ls", "-d", "/proc/self"]).expect_code(0);

    // By the digest that people see, of the stage's checkpoint that has been there the longest.
    let digest = project.checkpoint("wish")["digest"].as_str().expect("a digest")[7..19].to_owned();
    project.edit("pipeline.toml", "echo $WISH", "echo again $WISH");
    Finished::of(build.env("WISH", "sesame")).expect_code(0);
    let cat = ["--", "cat", "/rootfs/etc/wish"];
    project.isokiln(&[&["shell", "wish"][..], &cat].concat()).expect_code(0).prints("again sesame\n");
    let old = project.isokiln(&[&["shell", "wish", "--digest", &digest][..], &cat].concat()).expect_code(0);
    assert_eq!(old.stdout, "sesame\n");
    project.expect_no_residue();
}

#[test]
fn what_cannot_be_entered_is_told_with_what_can() {
    let nothing = Project::tiny("");
    let told = nothing.isokiln(&["shell", "base"]).expect_code(2);
    told.says("there is no checkpoint of a stage \"base\"").says("isokiln build makes checkpoints");
    assert!(!nothing.home().exists(), "asking makes nothing");

    let project = failed();
    let told = project.isokiln(&["shell", "hafl"]).expect_code(2);
    told.says("did you mean \"half\"? valid: base, half");
    project.isokiln(&["shell", "base", "--pipeline", "nosuch"]).expect_code(2).says("in nosuch");
    project.isokiln(&["shell", "base", "--digest", "xyz"]).expect_code(2).says("6 to 64 hexadecimal digits");
    project
        .isokiln(&["shell", "base", "--digest", "123456"])
        .expect_code(2)
        .says("checkpoint 123456 of a stage");
    // What a failed run left is gone with the volume.
    Engine::connect().remove_volume(&project.volume().expect("a volume"));
    project.isokiln(&["shell", "half"]).expect_code(2).says("valid: base");
    project.expect_no_residue();
}

#[test]
fn a_failed_tree_stays_until_the_next_run() {
    let project = failed();
    let run = |project: &Project| project.runs().into_iter().max().expect("a run");
    let old = format!("{}.half", run(&project));
    // A collection leaves what a shell may be wanted in.
    project.isokiln(&["gc", "--keep", "1"]).expect_code(0);
    assert!(work(&project).contains(&old));
    project.isokiln(&["shell", "half", "--", "true"]).expect_code(0);
    project.edit("pipeline.toml", "exit 3", "true");
    project.build(&[]).expect_code(0);
    assert!(!work(&project).contains(&old));
    let told = project.isokiln(&["shell", "half", "--", "cat", "/rootfs/etc/half"]).expect_code(0);
    assert_eq!(told.stdout, "half\n");

    // Also that of the first stage, from which no layer has to be unpacked.
    project.write("stages/tiny/run.sh", "touch $ROOTFS/begun; exit 4\n");
    project.build(&[]).expect_code(1);
    let old = format!("{}.base", run(&project));
    project.isokiln(&["shell", "base", "--", "ls", "/rootfs"]).expect_code(0).prints("begun\n");
    project.build(&[]).expect_code(1);
    assert!(!work(&project).contains(&old));
    assert!(work(&project).contains(&format!("{}.base", run(&project))));
    project.expect_no_residue();
}

#[test]
fn a_stage_that_was_stopped_in_any_way_can_be_entered() {
    let stage = |limits: &str| {
        let project = Project::tiny(&format!("\n[[stage]]\nname = \"half\"\nuses = \"half\"\n{limits}"));
        project.add_kind("half", "echo half >\"$ROOTFS/etc/half\"; note begun; sleep 60\n");
        project
    };
    let enter = |project: &Project| {
        let told = project.isokiln(&["shell", "half", "--", "cat", "/rootfs/etc/half"]).expect_code(0);
        assert_eq!(told.stdout, "half\n");
        project.expect_no_residue();
    };
    let project = stage("limits = { time = \"2s\" }\n");
    project.build(&["--recover=off"]).expect_code(1).says("it took longer than its limit");
    enter(&project);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let project = stage("");
        let mut running = project.start(&["build", "pipeline.toml", "--no-test", "--foreground"]);
        running.wait_until_it_says("half: begun");
        if signal == Signal::SIGTERM {
            // A shell is not for what a build works on.
            project.isokiln(&["shell", "half"]).expect_code(3).says("is being run by run");
        }
        running.signal(signal);
        running.wait();
        enter(&project);
    }
}

#[test]
fn a_build_and_a_shell_do_not_disturb_each_other() {
    let project = failed();
    let old = format!("{}.half", project.runs()[0]);
    let mut command = project.command(&["shell", "half"]);
    let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut input = shell.stdin.take().expect("a pipe");
    let mut output = shell.stdout.take().expect("a pipe");
    let mut answer = |question: &str| {
        input.write_all(question.as_bytes()).expect("somebody reads");
        let mut answer = [0; 5];
        output.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(answer("cat $ROOTFS/etc/half\n"), "half\n");
    project.edit("pipeline.toml", "exit 3", "echo whole >/etc/half");
    project.build(&[]).expect_code(0).never_says("waiting");
    assert_eq!(answer("cat $ROOTFS/etc/half\n"), "half\n");
    assert!(work(&project).contains(&old), "somebody looks at it");
    drop(input);
    assert!(shell.wait().expect("it ends").success());
    project.build(&["--from", "half"]).expect_code(0);
    assert!(!work(&project).contains(&old));
    project.expect_no_residue();
}

#[test]
fn a_killed_shell_leaves_what_the_next_command_sweeps() {
    let project = failed();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let line = format!("{OWN_VOLUME}; echo here >&2; sleep 600");
        let mut command = project.command(&["shell", "half", "--", "sh", "-c", &line]);
        let mut shell = Running::start(&mut command);
        shell.wait_until_it_says("here");
        shell.signal(signal);
        let ended = shell.wait();
        if signal == Signal::SIGKILL {
            project.isokiln(&["shell", "half", "--", "true"]).expect_code(0).says("of a run that was killed");
        } else {
            assert_eq!(ended.code, Some(130), "{ended}");
        }
        expect_no_volume(ended.stdout.trim());
        project.expect_no_residue();
    }
}

/// A terminal with a shell at its other end.
struct Terminal {
    master: File,
    slave: OwnedFd,
    before: Termios,
    seen: Arc<Mutex<String>>,
    child: Child,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that fails must not leave a shell; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn open(project: &Project, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 123, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a terminal");
        let end = || pair.slave.try_clone().expect("a second handle");
        let before = tcgetattr(&pair.slave).expect("settings");
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary()).args(arguments);
        project.mark(&mut command).env("TERM", "xterm-256color");
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("setsid can be run");
        let master = File::from(pair.master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, heard) = (master.try_clone().expect("a second handle"), seen.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                heard.lock().expect("one thread").push_str(&String::from_utf8_lossy(&piece[..count]));
            }
        });
        Self { master, slave: pair.slave, before, seen, child }
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("somebody reads");
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        wait_until(&format!("the terminal shows {text:?}"), || {
            self.seen.lock().expect("one thread").contains(text)
        });
    }

    /// Waits for the end; the terminal is then as it was.
    #[track_caller]
    fn ends(mut self, code: i32) {
        let mut ended = None;
        let seen = self.seen.lock().expect("one thread").clone();
        wait_until(&format!("the shell has ended after {seen}"), || {
            ended = self.child.try_wait().expect("it can be waited for");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{seen}");
        assert_eq!(tcgetattr(&self.slave).expect("settings"), self.before, "the terminal is not as it was");
    }
}

#[test]
fn a_person_has_a_terminal() {
    let project = failed();
    let mut terminal = Terminal::open(&project, &["shell", "half"]);
    terminal.shows("half of tiny, which failed: ");
    terminal.shows("thrown away when you leave");
    terminal.shows("[half] / # ");
    terminal.types("stty size; echo $TERM; tty\r");
    terminal.shows("40 123\r\nxterm-256color\r\n/dev/pts/");
    terminal.types("echo gr\u{fc}\u{df}e | cat\r");
    terminal.shows("gr\u{fc}\u{df}e\r\n");
    // What is printed need not be text, and is not taken for anything else.
    terminal.types("head -c 300000 /dev/zero; printf '\\1\\2\\0'; echo; echo through\"\"out\r");
    terminal.shows("throughout\r\n");
    // Another size of the window.
    let path = ttyname(terminal.slave.as_fd()).expect("a name");
    let resized = Command::new("stty").arg("-F").arg(&path).args(["rows", "50", "cols", "99"]).status();
    assert!(resized.expect("stty can be run").success());
    terminal.types("sleep 600\r");
    terminal.shows("sleep 600\r\n");
    // Ctrl-C is for what runs in the shell, not for isokiln.
    terminal.types("\u{3}");
    terminal.types("echo status $?; stty size\r");
    terminal.shows("status 130\r\n50 99\r\n");
    // So is Ctrl-Z.
    terminal.types("sleep 601\r");
    terminal.shows("sleep 601\r\n");
    terminal.types("\u{1a}");
    terminal.shows("Stopped");
    // A shell asks twice where it has stopped jobs.
    terminal.types("kill -9 %1\rexit 5\rexit 5\r");
    terminal.ends(5);

    let mut terminal = Terminal::open(&project, &["shell", "half", "--chroot"]);
    terminal.shows("[half] / # ");
    terminal.types("cat /etc/half\r");
    terminal.shows("half\r\n[half]");
    terminal.types("\u{4}");
    terminal.ends(0);

    // A command at a terminal is not greeted, and what ends isokiln leaves the terminal as it was.
    let terminal = Terminal::open(&project, &["shell", "half", "--", "sh", "-c", "echo he''re; sleep 600"]);
    terminal.shows("here\r\n");
    let process = Pid::from_raw(i32::try_from(terminal.child.id()).expect("process ids are small"));
    kill(process, Signal::SIGTERM).expect("it can be signalled");
    terminal.ends(130);
    project.expect_no_residue();
}

#[test]
fn a_checkpoint_has_a_record_of_its_making() {
    let project = Project::tiny(
        "\n[[stage]]\nname = \"wish\"\nrun = \"echo wish >/etc/wish; sleep 333 >/dev/null 2>&1 </dev/null &\"\n\
         environment = [\"WISH\"]\n",
    );
    let mut build = project.command(&["build", "pipeline.toml", "--no-test"]);
    Finished::of(build.env("WISH", "open-sesame")).expect_code(0);
    let shown = project.checkpoint("wish");
    let record = &shown["circumstances"];
    assert_eq!(record["stage"], "wish");
    assert_eq!(record["run"], shown["run"]);
    assert_eq!(record["manifest"], shown["digest"]);
    assert_eq!(record["key"], shown["key"]);
    let around = &record["surroundings"];
    let names = around["environment"]["names"].as_array().expect("names");
    for name in ["WISH", "ROOTFS", "SOURCE_DATE_EPOCH", "STAGE"] {
        assert!(names.contains(&Value::from(name)), "{name} is not among {names:?}");
    }
    let mounts = around["mounts"].as_array().expect("mounts");
    let rootfs = mounts.iter().find(|mount| mount["target"] == "/rootfs").expect("the root file system");
    assert_eq!(rootfs["kind"], "overlay");
    assert!(mounts.iter().any(|mount| mount["target"] == "/rootfs/proc" && mount["kind"] == "proc"));
    let processes = around["processes"].as_array().expect("processes");
    let daemon = processes.iter().find(|process| process["command"] == "sleep 333").expect("the daemon");
    assert!(daemon["pid"].as_u64() > Some(1), "{daemon}");
    assert_eq!(record["setting"]["environment"], Value::from(["WISH"].as_slice()));
    let text = project.isokiln(&["checkpoint", "show", "wish"]).expect_code(0);
    text.prints("Variables, sha256:").prints("/rootfs/proc ").prints(" sleep 333\n").prints("Reviews:\n");

    // The same is in the run's folder, and the value of a variable is nowhere.
    let path = project.home().join("latest/coordination/checkpoints/wish.json");
    let copy: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    assert_eq!(copy, *record);
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--text", "open-sesame"]).arg(project.home());
    Finished::of(&mut grep).expect_code(1);

    // Made again it is the same checkpoint with another record; found again it keeps its own.
    let old = fs::read_dir(project.home().join("store/blobs/sha256")).expect("blobs").count();
    Finished::of(build.arg("--from").arg("wish").env("WISH", "open-sesame")).expect_code(0);
    let again = project.checkpoint("wish");
    assert_eq!(again["digest"], shown["digest"]);
    assert_ne!(again["circumstances"]["run"], record["run"]);
    assert_eq!(again["circumstances"]["surroundings"]["environment"], around["environment"]);
    let mut build = project.command(&["build", "pipeline.toml", "--no-test"]);
    Finished::of(build.env("WISH", "open-sesame")).expect_code(0).says("0 stages run");
    assert_eq!(project.checkpoint("wish")["circumstances"], again["circumstances"]);
    // The old record goes with the next collection, the new one with its checkpoint.
    project.isokiln(&["gc"]).expect_code(0);
    assert_eq!(fs::read_dir(project.home().join("store/blobs/sha256")).expect("blobs").count(), old);
    project.expect_whole_store();
    // Nothing rests on the record: without it the checkpoint is as good.
    let index = || fs::read_to_string(project.home().join("store/index.json")).expect("an index");
    let entries: Value = serde_json::from_str(&index()).expect("JSON");
    let is_record = |entry: &&Value| {
        let notes = &entry["annotations"];
        notes["org.isokiln.role"] == "circumstances" && notes["org.isokiln.stage"] == "base"
    };
    let entry = entries["manifests"].as_array().expect("a list").iter().find(is_record).expect("a record");
    fs::remove_file(project.blob(&entry["digest"])).expect("it is there");
    assert!(project.checkpoint("base")["circumstances"].is_null());
    project.isokiln(&["shell", "base", "--", "ls", "/rootfs"]).expect_code(0).says("they were not recorded");
    Finished::of(build.env("WISH", "open-sesame")).expect_code(0).says("0 stages run").never_says("anew");
    project.expect_whole_store();
    project.isokiln(&["checkpoint", "rm", "wish"]).expect_code(0);
    let index = index();
    assert!(!index.contains("\"circumstances\""), "it goes with its checkpoint: {index}");
    project.isokiln(&["gc"]).expect_code(0);
    project.expect_whole_store();
}
