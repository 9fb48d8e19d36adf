//! Full disks: no bytes or no inodes left, in the engine, in the store and where runs lie.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use isokiln_tests::{Engine, Finished, Project, TINY};
use serde_json::Value;

fn script(name: &str, text: &str) -> String {
    format!("\n[[stage]]\nname = {name:?}\nrun = '''\n{text}\n'''\n")
}

/// Replaces what comes after the base stage.
fn replace(project: &Project, stages: &str) {
    project.write("pipeline.toml", format!("{TINY}{stages}"));
}

/// A small file system in memory in a project. Gone with this, or the test's end.
struct Disk<'p> {
    project: &'p Project,
    at: PathBuf,
}

impl<'p> Disk<'p> {
    /// A folder of isokiln's as a file system with these mount options.
    fn new(project: &'p Project, folder: &str, options: &str) -> Self {
        let at = project.home().join(folder);
        fs::create_dir_all(&at).expect("a folder");
        // What is there already stays there.
        let kept = tempfile::tempdir().expect("a folder");
        copy(&at, kept.path());
        mount(&["-t", "tmpfs", "-o", options, "tmpfs"], &at);
        let disk = Self { project, at };
        copy(kept.path(), &disk.at);
        disk
    }

    fn change(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.at);
    }

    /// Takes all the bytes that are left.
    fn take_bytes(&self) {
        let mut file = File::create(self.at.join("filler")).expect("a file");
        for piece in [vec![0; 1 << 16], vec![0; 1]] {
            while file.write_all(&piece).is_ok() {}
        }
        assert_eq!(self.left().0, 0);
    }

    /// Takes all the inodes that are left.
    fn take_inodes(&self) {
        fs::create_dir(self.at.join("fillers")).expect("a folder");
        for count in 0.. {
            if File::create(self.at.join(format!("fillers/{count}"))).is_err() {
                break;
            }
        }
        assert_eq!(self.left().1, 0);
    }

    fn give_back(&self) {
        drop(fs::remove_file(self.at.join("filler")));
        drop(fs::remove_dir_all(self.at.join("fillers")));
    }

    /// Bytes and inodes.
    fn left(&self) -> (u64, u64) {
        let left = nix::sys::statvfs::statvfs(&self.at).expect("facts");
        (left.blocks_free() * left.fragment_size(), left.files_free())
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // While the folder is there, what belongs to it in the engine can be found.
        drop(self.project.isokiln(&["clean"]));
        let gone = Command::new("umount").arg(&self.at).status().expect("umount runs");
        assert!(gone.success(), "the small disk cannot be unmounted");
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let done = Command::new("mount").args(arguments).arg(at).status().expect("mount runs");
    assert!(done.success(), "this test mounts a small file system: run it as root");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

/// What is true after every failure: the store verifies, and earlier checkpoints are there.
#[track_caller]
fn expect_whole(project: &Project) {
    project.expect_whole_store();
    assert!(project.saved().iter().any(|stage| stage == "base"), "the checkpoint of base is gone");
}

/// Builds so many checkpoints of a stage `more`, of so many bytes that nothing makes smaller.
#[track_caller]
fn build_more(project: &Project, count: usize, bytes: usize) {
    for round in 0..count {
        replace(project, &script("more", &format!("head -c {bytes} /dev/urandom >/etc/more # {round}")));
        project.build(&[]).expect_code(0);
    }
}

/// A failed build that names the stage, what is full, and what frees how much.
#[track_caller]
fn expect_told(told: Finished, code: i32, stage: &str, disk: &str) -> Finished {
    let told = told.expect_code(code).says(stage).says(&format!("{disk} is full (")).says("inodes are left)");
    told.says("isokiln ").says("build again: it continues from the last checkpoint").never_says("panicked")
}

#[test]
fn collection_works_on_a_disk_without_room_and_keeps_what_builds_go_on_from() {
    for (inodes, what) in [(false, "bytes"), (true, "inodes")] {
        let project = Project::tiny("");
        let disk = Disk::new(&project, "store", "size=24m,nr_inodes=400");
        build_more(&project, 3, 300_000);
        let before = project.checkpoint("more")["digest"].clone();
        if inodes {
            disk.take_inodes()
        } else {
            disk.take_bytes()
        }
        let collected = project.isokiln(&["gc", "--keep", "1", "--format", "json"]).expect_code(0).json();
        assert!(collected["bytes"].as_u64() > Some(500_000), "{collected}");
        assert_eq!(project.saved(), ["base", "more"], "{what}");
        assert_eq!(project.checkpoint("more")["digest"], before, "{what}");
        project.expect_whole_store();
        // What room there was for it is there for the next time.
        assert!(project.home().join("store/.reserve").is_file(), "{what}");
        disk.give_back();
        project.build(&[]).expect_code(0).says("0 stages run, 2 from checkpoints");
        drop(disk);
        project.expect_no_residue();
    }
}

#[test]
fn checkpoints_can_be_removed_on_a_full_disk() {
    let project = Project::tiny(&script("more", "echo more >/etc/more"));
    let disk = Disk::new(&project, "store", "size=24m,nr_inodes=400");
    project.build(&[]).expect_code(0);
    disk.take_inodes();
    project.isokiln(&["checkpoint", "rm", "more"]).expect_code(0);
    assert_eq!(project.saved(), ["base"]);
    project.expect_whole_store();
}

#[test]
fn a_size_limit_goes_as_far_as_the_newest_checkpoints_allow_and_says_what_holds_the_rest() {
    let project = Project::tiny("");
    build_more(&project, 4, 2_000_000);
    let gc = |arguments: &[&str]| {
        let arguments = [&["gc", "--format", "json"], arguments].concat();
        let dry = project.isokiln(&[&arguments[..], &["--dry-run"]].concat()).expect_code(0);
        let done = project.isokiln(&arguments).expect_code(0);
        assert_eq!(dry.json(), done.json(), "{arguments:?}");
        project.expect_whole_store();
        done
    };
    let kept = |done: &Finished| done.json()["kept_bytes"].as_u64().expect("a number");
    let more = || project.saved().iter().filter(|stage| *stage == "more").count();
    let all = kept(&gc(&["--keep", "9"]));
    assert_eq!(more(), 4);
    // What is young stays whatever the number, but not whatever the size.
    gc(&["--keep", "1", "--keep-for", "1h"]);
    assert_eq!(more(), 4);
    let limit = all - 3_000_000;
    let done = gc(&["--keep", "9", "--keep-for", "1h", "--max-size", &limit.to_string()]);
    assert!(kept(&done) <= limit && kept(&done) > limit - 2_100_000, "no more than must {done}");
    assert_eq!(more(), 2);
    assert_eq!(done.json()["held_by"], Value::from([""; 0].as_slice()));
    let done = gc(&["--max-size", "1MiB"]);
    assert_eq!(project.saved(), ["base", "more"], "the newest of each stage are never given up");
    let done = done.says("the store stays above 1.0 MiB").says("MiB tiny/base").says("MiB tiny/more");
    done.says("isokiln checkpoint rm STAGE");

    // The folder's own rules, where the command line says nothing.
    build_more(&project, 1, 1_000_000);
    project.write(".isokiln/keep.toml", "[keep]\ncheckpoints = 1\n\ndays = 14\n");
    gc(&[]);
    assert_eq!(more(), 2, "it is young");
    project.write(".isokiln/keep.toml", "[keep]\ncheckpoints = 1\n");
    gc(&[]);
    assert_eq!(more(), 1);
    project.write(".isokiln/keep.toml", "[keep]\n\nmax-sise = \"1GiB\"\n");
    let wrong = project
        .isokiln(&["gc"])
        .expect_code(2)
        .says("keep.toml")
        .says(":3:")
        .says("unknown key \"max-sise\"");
    wrong.says("max-size");
    fs::remove_file(project.home().join("keep.toml")).expect("it was ours");
    project.build(&[]).expect_code(0).says("0 stages run, 2 from checkpoints");
}

#[test]
fn an_engine_without_room_is_told_and_got_over() {
    let many = "mkdir /var/many; for n in $(seq 3000); do echo >/var/many/$n; done";
    for (options, grown, stage) in [
        ("size=96m", "size=400m", script("big", "head -c 200000000 /dev/zero >/var/big")),
        ("size=200m,nr_inodes=2000", "size=200m,nr_inodes=20000", script("big", many)),
    ] {
        let project = Project::tiny("");
        let engine = Engine::connect();
        engine.volume_in_memory(&project.home(), options);
        project.build(&[]).expect_code(0);
        replace(&project, &stage);
        let told = project.build(&["--recover", "off"]);
        expect_told(told, 1, "big", "the engine's disk").says("isokiln clean frees ").says("iB there");
        expect_whole(&project);
        project.expect_no_residue();
        project.isokiln(&["clean"]).expect_code(0);
        engine.volume_in_memory(&project.home(), grown);
        project.build(&[]).expect_code(0);
        assert_eq!(project.outcome(), "base hit, big done");
    }
}

#[test]
fn a_store_without_room_is_told_and_got_over() {
    for (options, grown, inodes) in
        [("size=12m", "size=100m", false), ("size=100m,nr_inodes=400", "size=100m,nr_inodes=4000", true)]
    {
        let project = Project::tiny("");
        let disk = Disk::new(&project, "store", options);
        project.build(&[]).expect_code(0);
        replace(&project, &script("big", "head -c 20000000 /dev/urandom >/var/big"));
        if inodes {
            disk.take_inodes();
        }
        let told = expect_told(project.build(&[]), 3, "stage big", "the store's disk");
        told.says("No space left on device").says("isokiln gc");
        expect_whole(&project);
        disk.give_back();
        disk.change(grown);
        project.build(&[]).expect_code(0);
        assert_eq!(project.outcome(), "base hit, big done");
        expect_whole(&project);
        drop(disk);
        project.expect_no_residue();
    }
}

#[test]
fn a_build_says_what_room_it_will_need_and_warns_where_that_is_not_there() {
    let project = Project::tiny("");
    let disk = Disk::new(&project, "store", "size=24m");
    // Nothing is known before the first build, and nothing is needed where all is there.
    project.build(&[]).expect_code(0).never_says("Room");
    project.build(&[]).expect_code(0).never_says("Room");
    build_more(&project, 2, 2_000_000);
    let stage = |words: &str| script("more", &format!("head -c 2000000 /dev/urandom >/etc/more # {words}"));
    replace(&project, &(stage("again") + &script("new", "echo new >/etc/new")));
    let told = project.build(&["--format", "json"]).expect_code(0).never_says("will hardly have room");
    let told = told.says("Room about 1.9 MiB of ").says("nothing is known yet of new");
    let events = told.events();
    let place = |name: &str| events.iter().position(|event| event["event"] == name).expect("it is told");
    assert!(place("room-estimated") < place("stage-started"));
    let estimate = &events[place("room-estimated")];
    assert_eq!(estimate["stages"], Value::from(["more"].as_slice()));
    assert_eq!(estimate["unknown"], Value::from(["new"].as_slice()));
    for need in ["store", "engine"] {
        let needed = estimate[need]["needed"].as_u64().expect("a number");
        assert!((2_000_000..2_200_000).contains(&needed), "{estimate}");
        assert!(estimate[need]["free"].as_u64() > Some(needed), "{estimate}");
    }

    disk.take_bytes();
    replace(&project, &stage("once more"));
    let told =
        project.build(&[]).says("the store will hardly have room: about 1.9 MiB are needed, 0 B are free");
    expect_told(told.says("isokiln gc --keep 1 frees 3.8 MiB"), 3, "stage more", "the store's disk");
    expect_whole(&project);
    project.isokiln(&["gc", "--keep", "1"]).expect_code(0);
    project.build(&[]).expect_code(0).never_says("will hardly have room");
    drop(disk);
    project.expect_no_residue();
}

#[test]
fn runs_without_room_fail_and_name_the_stage() {
    // The log does not fit.
    let talks = script("first", "echo first >/etc/first") + &script("talks", "head -c 3000000 /dev/zero");
    // What happens cannot be recorded, though every stage would end well.
    let quiet = script("first", "echo first >/etc/first") + &script("quiet", "echo quiet >/etc/quiet");
    for (stages, inodes) in [(talks, false), (quiet.clone(), true)] {
        let project = Project::tiny("");
        project.build(&[]).expect_code(0);
        let disk = Disk::new(&project, "runs", "size=2m,nr_inodes=400");
        if inodes {
            // Room for the run itself and its first stages, but not for all of them.
            disk.change("nr_inodes=45");
        }
        replace(&project, &stages);
        let told = project.build(&[]).never_says("Finished");
        let stage = if inodes { "stage " } else { "stage talks" };
        expect_told(told, 3, stage, "the disk of the run's folder").says("No space left on device");
        expect_whole(&project);
        disk.change("size=50m,nr_inodes=4000");
        project.build(&[]).expect_code(0).never_says("Run base");
        assert!(project.outcome().starts_with("base hit, first "), "{}", project.outcome());
        expect_whole(&project);
        drop(disk);
        project.expect_no_residue();
    }
}

#[test]
fn a_run_whose_record_breaks_off_ends_and_names_the_stage() {
    let project = Project::tiny("");
    project.build(&[]).expect_code(0);
    // What it says is recorded, and in no log; it would go on for ever.
    project.add_kind(
        "endless",
        "text=$(head -c 4000 /dev/zero | tr '\\0' x)\nwhile :; do note \"$text\"; done\n",
    );
    replace(&project, "\n[[stage]]\nname = \"endless\"\nuses = \"endless\"\n");
    let disk = Disk::new(&project, "runs", "size=1m,nr_inodes=4000");
    let told = expect_told(project.build(&[]), 3, "stage endless", "the disk of the run's folder");
    told.says("events.jsonl").says("No space left on device").says_one_error();
    let record = fs::read_to_string(project.home().join("latest/events.jsonl")).expect("events");
    let whole = |line: &&str| serde_json::from_str::<Value>(line).is_ok();
    assert!(record.lines().filter(whole).count() > 100);
    expect_whole(&project);
    disk.change("size=50m");
    project.add_kind("endless", "echo ended >\"$ROOTFS/etc/ended\"\n");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, endless done");
    drop(disk);
    project.expect_no_residue();
}
