//! Stages: the kinds `files` and `script`, what scripts print and do, limits, full disks.

use std::fs;
use std::path::Path;
use std::process::Command;

use isokiln_tests::{Engine, Finished, Project, TINY};

/// A script stage.
fn script(name: &str, text: &str) -> String {
    format!("\n[[stage]]\nname = {name:?}\nrun = '''\n{text}\n'''\n")
}

/// The log of a stage in the newest run.
#[track_caller]
fn log(project: &Project, stage: &str) -> Vec<u8> {
    let path = project.home().join("latest/stages").join(stage).join("log");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn log_text(project: &Project, stage: &str) -> String {
    String::from_utf8_lossy(&log(project, stage)).into_owned()
}

/// Replaces what comes after the base stage.
fn replace(project: &Project, stages: &str) {
    project.write("pipeline.toml", format!("{TINY}{stages}"));
}

/// What is still true after a failure: the store verifies, the parent's checkpoint is there, nothing is left
/// in the engine.
#[track_caller]
fn expect_whole(project: &Project) {
    project.isokiln(&["verify"]).expect_code(0);
    let base = project.checkpoints().into_iter().any(|checkpoint| checkpoint["stage"] == "base");
    assert!(base, "the checkpoint of base is gone");
    project.expect_no_residue();
}

#[test]
fn files_are_copied_with_owners_modes_and_links() {
    let project = Project::tiny(&format!(
        "{}{}{}",
        script(
            "before",
            "mkdir /etc/keep; chmod 700 /etc/keep; echo 'sys:x:77:88::/:/bin/sh' >>/etc/passwd; echo 'sysg:x:88:' >>/etc/group"
        ),
        r#"
[[stage]]
name = "tree"
uses = "files"
with = { source = "tree", owners = { "etc/keep/*" = "sys:sysg", "etc/keep/numbered" = "1234:4321" }, modes = { "etc/keep/se*" = "0440", "etc/with space/*" = "0600" } }

[[stage]]
name = "single"
uses = "files"
with = { source = "single.conf", target = "/etc/new/place" }
"#,
        script(
            "look",
            "cd /etc; stat -c '%n|%u:%g|%a|%F' keep keep/* keep/.hidden 'with space'/* link broken new/place/*; cat 'keep/-rf'; ls keep | wc -l"
        ),
    ));
    for name in ["secret", "numbered", ".hidden", "-rf", "a\nb", "späte $(rm) `x` \"q\" *"] {
        project.write(&format!("tree/etc/keep/{name}"), "content\n");
    }
    project.write("tree/etc/with space/a b", "x");
    project.write("single.conf", "one");
    std::os::unix::fs::symlink("keep/secret", project.path("tree/etc/link")).expect("a link");
    std::os::unix::fs::symlink("/nowhere/at all", project.path("tree/etc/broken")).expect("a link");
    project.build(&[]).expect_code(0);
    let seen = log_text(&project, "look");
    for line in [
        "keep|0:0|700|directory",
        "keep/secret|77:88|440|regular file",
        "keep/numbered|1234:4321|644|regular file",
        "keep/.hidden|77:88|644|regular file",
        "keep/späte $(rm) `x` \"q\" *|77:88|644|regular file",
        "with space/a b|0:0|600|regular file",
        "link|0:0|777|symbolic link",
        "broken|0:0|777|symbolic link",
        "new/place/single.conf|0:0|644|regular file",
        "content",
    ] {
        assert!(seen.lines().any(|other| other == line), "{line:?} is not in\n{seen}");
    }
    assert!(seen.trim_end().ends_with('6'), "six names, one of two lines\n{seen}");
}

#[test]
fn files_that_cannot_be_placed_are_told() {
    let project = Project::tiny("");
    project.write("tree/x", "x");
    let stage = |with: &str| {
        format!("\n[[stage]]\nname = \"tree\"\nuses = \"files\"\nwith = {{ source = \"tree\", {with} }}\n")
    };
    for (with, cause, hint) in [
        (
            "owners = { \"etc/nosuch*\" = \"root\" }",
            "owners names \"etc/nosuch*\", which matches nothing",
            "correct the pattern",
        ),
        ("owners = { \"x\" = \"nobody-here\" }", "owners cannot give \"nobody-here\" to \"x\"", "log"),
        ("modes = { \"x\" = \"rw?\" }", "modes cannot give \"rw?\" to \"x\"", "log"),
        ("target = \"../../..\"", "target leads out of the root file system", "name a folder inside"),
    ] {
        replace(&project, &stage(with));
        project.build(&[]).expect_code(1).says(&format!("tree: {cause}")).says(hint);
        expect_whole(&project);
    }
    // A link in the root file system must not lead out of it either.
    replace(
        &project,
        &format!(
            "{}{}",
            script("trap", "ln -s /../../../../isokiln/volume /etc/out; ln -s /isokiln/volume /etc/abs"),
            stage("target = \"/etc/abs\"")
        ),
    );
    project.build(&[]).expect_code(1).says("target leads out of the root file system");
    // Nor may a folder of the project follow one: its files would be in no layer.
    project.write("srv-tree/srv/lost", "x");
    let srv = stage("").replace("\"tree\", ", "\"srv-tree\"");
    replace(&project, &format!("{}{srv}", script("trap", "mkdir /data; ln -s /data /srv")));
    project
        .build(&[])
        .expect_code(1)
        .says("tree: srv is a link to /data in the root file system")
        .says("put the files into the folder that it leads to");
    replace(&project, &stage("target = \"/opt\""));
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, tree done");
}

#[test]
fn a_failing_script_is_told_and_the_next_build_goes_on() {
    let project = Project::tiny("");
    let kept = script("kept", "echo kept >/etc/kept");
    for (text, cause, hint) in [
        ("echo working; echo 'about to end' >&2; exit 3", "broken: the script ended with status 3", "log"),
        ("false\necho never", "broken: the script ended with status 1", "log"),
        ("sh -c 'kill -9 $$'", "broken: the script was killed by signal 9 (KILL)", "log"),
        ("kill -9 $$", "broken: the script was killed by signal 9 (KILL)", "log"),
        ("#!/usr/bin/nosuch --x\necho hi", "broken: the script could not be run (status 127)", "interpreter"),
        ("nosuch-program", "broken: the script could not be run (status 127)", "interpreter"),
        ("if then", "broken: the script ended with status 2", "log"),
    ] {
        replace(&project, &format!("{kept}{}", script("broken", text)));
        let told = project.build(&[]).expect_code(1).says(cause).says("hint").says(hint).never_says("never");
        told.says("latest/stages/broken/log".trim_start_matches("latest/"));
        expect_whole(&project);
    }
    project.build(&[]).expect_code(1);
    assert_eq!(project.outcome(), "base hit, kept hit, broken failed");
    assert_eq!(project.record()["error"], "stage broken: the script ended with status 2");
    replace(&project, &format!("{kept}{}", script("broken", "cat /etc/kept")));
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, kept hit, broken done");
    assert_eq!(log_text(&project, "broken"), "kept\n");
}

#[test]
fn a_hundred_megabytes_of_output_are_logged_in_little_memory() {
    const BYTES: u64 = 100_000_000;
    let text = format!(
        "yes 'a line of a talkative program, as long as such lines are' | head -c {BYTES}; echo; echo the end >&2; exit 4"
    );
    let project = Project::tiny(&script("noisy", &text));
    let told = project.build(&["--foreground"]).expect_code(1).says("noisy: the script ended with status 4");
    let told = told.says("| the end").says("| a line of a talkative program");
    let peak = told.peak_memory;
    assert!(peak > 1 << 20 && peak < 100 << 20, "{peak} bytes of memory\n{told}");
    let log = project.home().join("latest/stages/noisy/log");
    let size = fs::metadata(&log).expect("a log").len();
    let own_words = "isokiln: failed: the script ended with status 4\n".len() as u64;
    assert_eq!(size, BYTES + 1 + 8 + own_words, "the log is complete");
    expect_whole(&project);
}

#[test]
fn output_of_any_sort_is_logged_as_it_is_and_shown_harmlessly() {
    let project = Project::tiny(&format!(
        "{}{}{}{}",
        script("binary", r"head -c 3000000 /dev/zero; head -c 5000 /dev/urandom; printf '\nafter\n'"),
        script(
            "colours",
            r"printf '\033[31mred\033[0m\033]0;title\007\033[2J\n'; printf 'one\rtwo\n'; printf 'no newline at the end'; exit 0"
        ),
        // The word before a message is made up for each run; these are not it.
        script(
            "forger",
            r#"
printf '\036000000000000 {"ended":0}\n'
printf '\036%s {"failed":{"cause":"forged","hint":"forged"}}\n' "$ISOKILN_TOKEN"
printf '{"note":"forged"}\n'
printf '\036\036\036 {"warning":"forged"}\n'
env | sort
"#
        ),
        script("reader", "cat; if read -r line; then echo got $line; else echo nothing to read; fi"),
    ));
    let told = project.build(&["--format", "json"]).expect_code(0).never_says("forged").never_says("\u{1b}");
    let events = told.events();
    assert!(events.iter().any(|event| event["event"] == "run-finished"));
    assert!(!told.stdout.contains("forged"), "{told}");
    assert_eq!(log(&project, "binary").len(), 3_000_000 + 5000 + 7);
    assert!(log_text(&project, "colours").contains("\u{1b}[31mred"), "the log is as it was printed");
    assert!(log_text(&project, "colours").ends_with("no newline at the end"));
    let forger = log_text(&project, "forger");
    assert!(forger.contains("\u{1e}000000000000 {\"ended\":0}"), "{forger}");
    assert!(!forger.contains("ISOKILN_TOKEN"), "the script knows the word\n{forger}");
    assert_eq!(log_text(&project, "reader"), "nothing to read\n");

    replace(&project, &script("colours", r"printf '\033[31mred\033[0m \033]0;title\007\033[2J\n'; exit 1"));
    project.build(&[]).expect_code(1).says("| red").never_says("\u{1b}").never_says("\u{7}");
}

#[test]
fn a_script_is_alone_with_its_root_file_system() {
    let marker = tempfile::NamedTempFile::new().expect("a file");
    let project = Project::tiny(&format!(
        "{}{}{}{}",
        script(
            "daemons",
            "for n in 1 2 3; do (while :; do echo x >>/etc/grows; done) & done; sh -c 'sleep 1000' & echo started"
        ),
        script("after", "test -s /etc/grows; ls /proc | grep -c '^[0-9]'"),
        script(
            "outside",
            &format!(
                "test ! -e {0}; echo x >{0} || true; mkdir -p /tmp/x /run/y; ls /sys/class/net; test ! -e /isokiln; test ! -b /dev/vda; test ! -b /dev/sda",
                marker.path().display()
            )
        ),
        "\n[[stage]]\nname = \"online\"\nnetwork = true\nrun = \"ls /sys/class/net; cat /etc/resolv.conf\"\n",
    ));
    project.build(&[]).expect_code(0);
    assert_eq!(
        fs::metadata(marker.path()).expect("the file").len(),
        0,
        "a stage has written to this machine"
    );
    assert_eq!(log_text(&project, "outside").trim(), "lo", "there is a network that nobody asked for");
    assert!(log_text(&project, "online").contains("eth0"), "{}", log_text(&project, "online"));
    let processes: u32 = log_text(&project, "after").trim().parse().expect("a number");
    assert!(processes < 12, "{processes} processes in a fresh container");
    project.expect_no_residue();

    // What a stage leaves behind depends on nothing but its inputs: no trace of mounts, names or clocks.
    replace(
        &project,
        &format!(
            "{}{}",
            script(
                "writes",
                "date >/etc/now 2>/dev/null || echo x >/etc/now; echo 0123456789abcdef0123456789abcdef >/etc/machine-id; mkdir -p /var/lib/dbus /var/log/apt; cp /etc/machine-id /var/lib/dbus/machine-id; touch -d '2099-01-01' /etc/future; touch -d '1999-01-01 00:00:00Z' /etc/past; echo x >/tmp/x; echo x >/run/x; echo x >/var/tmp/x"
            ),
            script(
                "look",
                "stat -c '%n %Y' /etc/future /etc/past; wc -c </etc/machine-id; ls -A /tmp /run /var/tmp /var/lib/dbus; ls -A / /etc; cat /etc/resolv.conf"
            )
        ),
    );
    let mut build = project.command(&["build", "pipeline.toml", "--no-test"]);
    Finished::of(build.env("SOURCE_DATE_EPOCH", "1000000000")).expect_code(0);
    let seen = log_text(&project, "look");
    for line in ["/etc/future 1000000000", "/etc/past 915148800", "0"] {
        assert!(seen.lines().any(|other| other == line), "{line:?} is not in\n{seen}");
    }
    assert!(!seen.lines().any(|line| line == "x"), "{seen}");
}

#[test]
fn limits_hold_and_are_told() {
    let project = Project::tiny("");
    let limited = |text: &str, limits: &str| format!("{}limits = {{ {limits} }}\n", script("limited", text));
    replace(&project, &limited("echo started; sleep 1000", "time = \"3s\""));
    project
        .build(&[])
        .expect_code(1)
        .says("limited: it took longer than its limit of 3.00s")
        .says("limits = { time")
        .says("started");
    expect_whole(&project);

    // sort holds a line of any length in memory.
    replace(&project, &limited("sort /dev/zero", "memory = \"64MiB\""));
    project
        .build(&[])
        .expect_code(1)
        .says("limited: it needed more memory than its limit of 64.0 MiB")
        .says("limits = { memory");
    expect_whole(&project);

    // More processors than there are is no limit.
    replace(&project, &limited("echo", "cpus = 4096"));
    project.build(&[]).expect_code(0);

    let spin = "read -r start _ </proc/uptime; now=$start; while [ ${now%.*} -lt $((${start%.*} + 4)) ]; do read -r now _ </proc/uptime; done";
    replace(&project, &limited(spin, "cpus = 0.2"));
    let told = project.build(&["--format", "json"]).expect_code(0);
    let end = told.events().into_iter().find(|event| event["event"] == "checkpoint-stored").expect("an end");
    let used = end["usage"]["cpu_seconds"].as_f64().expect("a number");
    assert!(used > 0.1 && used < 2.0, "{used} seconds of processor time in 4 seconds\n{told}");
}

#[test]
fn a_full_engine_is_told_and_got_over() {
    let project = Project::tiny(&script("fits", "echo x >/etc/x"));
    let engine = Engine::connect();
    let volume = engine.volume_in_memory(&project.home(), "size=96m");
    project.build(&[]).expect_code(0);
    replace(
        &project,
        &format!(
            "{}{}",
            script("fits", "echo x >/etc/x"),
            script("big", "head -c 200000000 /dev/zero >/var/big")
        ),
    );
    project
        .build(&[])
        .expect_code(1)
        .says("big: the engine's disk is full")
        .says("isokiln clean")
        .says("continues from the last checkpoint");
    expect_whole(&project);
    project.isokiln(&["clean"]).expect_code(0).prints(&volume);
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, fits hit, big done");

    // Too small even for unpacking what is in the store.
    project.isokiln(&["clean"]).expect_code(0);
    engine.volume_in_memory(&project.home(), "size=8m");
    replace(&project, &format!("{}{}", script("fits", "echo x >/etc/x"), script("other", "echo y >/etc/y")));
    project
        .build(&[])
        .expect_code(3)
        .says("stage other")
        .says("the engine's disk is full")
        .says("then build again");
    expect_whole(&project);
    project.isokiln(&["clean"]).expect_code(0);
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, fits hit, other done");
}

/// A small file system in memory as a project's folder of isokiln. Gone with this, or the test's end.
struct SmallDisk<'p>(&'p Project);

impl<'p> SmallDisk<'p> {
    fn new(project: &'p Project, bytes: u64) -> Self {
        fs::create_dir_all(project.home()).expect("a folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], &project.home());
        Self(project)
    }

    fn grow(&self, bytes: u64) {
        mount(&["-o", &format!("remount,size={bytes}")], &self.0.home());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // While the folder is there, what belongs to it in the engine can be found.
        drop(self.0.isokiln(&["clean"]));
        let gone = Command::new("umount").arg(self.0.home()).status().expect("umount runs");
        assert!(gone.success(), "the small disk cannot be unmounted");
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let done = Command::new("mount").args(arguments).arg(at).status().expect("mount runs");
    assert!(done.success(), "this test mounts a small file system: run it as root");
}

#[test]
fn a_full_disk_of_the_store_is_told_and_got_over() {
    let project = Project::tiny("");
    let disk = SmallDisk::new(&project, 12 << 20);
    project.build(&[]).expect_code(0);
    let kept = project.checkpoints();
    replace(&project, &script("big", "head -c 20000000 /dev/urandom >/var/big"));
    let told = project
        .build(&[])
        .expect_code(3)
        .says("big")
        .says("the store's disk is full")
        .says("isokiln gc")
        .never_says("panicked");
    told.says("No space left on device");
    project.isokiln(&["verify"]).expect_code(0);
    assert_eq!(project.checkpoints(), kept, "earlier checkpoints are as they were");

    // The log does not fit either.
    replace(&project, &script("talks", "head -c 30000000 /dev/zero"));
    project
        .build(&[])
        .expect_code(3)
        .says("stages/talks/log")
        .says("No space left on device")
        .says("the disk of the run's folder is full");
    project.isokiln(&["verify"]).expect_code(0);

    disk.grow(200 << 20);
    replace(&project, &script("big", "head -c 20000000 /dev/urandom >/var/big"));
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, big done");
    project.isokiln(&["verify"]).expect_code(0);
    drop(disk);
    project.expect_no_residue();
}

#[test]
fn an_initramfs_is_made_once_when_a_stage_ends_however_it_ends() {
    let tool = "mkdir /boot; touch /boot/vmlinuz-6.1\n\
                printf '#!/bin/sh\\necho \"made $*\"; touch /boot/initrd.img-6.1\\n' >/usr/sbin/update-initramfs\n\
                chmod 755 /usr/sbin/update-initramfs";
    let project = Project::tiny(&format!(
        "{}{}{}{}",
        script("tool", tool),
        script("updates", "update-initramfs -u -k all"),
        "\n[[stage]]\nname = \"makes\"\nuses = \"early\"\n",
        script("again", "update-initramfs -u\nupdate-initramfs -c -k all"),
    ));
    project.write(
        "stages/early/kind.toml",
        "summary = \"Ends early\"\nrootfs = \"change\"\nprivilege = \"chroot\"\n",
    );
    project.write(
        "stages/early/run.sh",
        "in_rootfs update-initramfs -u\nin_rootfs update-initramfs -c -k all\nexit\nfail 'not reached' ''\n",
    );
    project.build(&[]).expect_code(0);
    let made = |stage: &str| {
        let log = log_text(&project, stage);
        log.lines().filter(|line| line.starts_with("made ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(made("updates"), [""; 0], "there is none to update");
    assert_eq!(made("makes"), ["made -c -k 6.1"]);
    assert_eq!(made("again"), ["made -u -k 6.1"]);

    project.edit("stages/early/run.sh", "exit\n", "exit 7\n");
    project.build(&[]).expect_code(1);
    assert_eq!(made("makes"), [""; 0], "what failed makes none");
    expect_whole(&project);
}
