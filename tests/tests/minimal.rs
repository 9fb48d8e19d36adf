//! The minimal live system, whole and real: built, built again alike, booted, and spoilt.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use isokiln_tests::{Guard, MINIMAL_STAGES, Project, repository};
use serde_json::Value;

#[test]
fn the_minimal_system_is_built_alike_and_boots_and_can_fail() {
    let (first, second) = (project(), project());
    first.build(&[]).expect_code(0).says("5 stages run, 0 from checkpoints");
    makes_one_initramfs(&first);
    is_hybrid_labelled_and_summed(&first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            is_built_alike(&first, &second);
            fails_without_a_boot_record(&second);
            fails_with_the_phase_where_it_does_not_find_its_system(&second);
        });
        boots_on_both_machines_and_is_not_tested_twice(&first);
        is_decided_by_a_command_in_the_guest(&first);
    });
    first.expect_no_residue();
    second.expect_no_residue();
}

fn project() -> Project {
    let pipeline = fs::read_to_string(repository().join("pipelines/minimal.toml")).expect("minimal.toml");
    Project::new(&pipeline)
}

fn diff_ids(project: &Project) -> Vec<(String, Value)> {
    let stages = project.checkpoints().into_iter();
    let mut ids: Vec<_> = stages
        .map(|stage| (stage["stage"].as_str().expect("a name").to_owned(), stage["diff_ids"].clone()))
        .collect();
    ids.sort_by(|a, b| a.0.cmp(&b.0));
    ids
}

/// Whether two files hold the same bytes.
fn same(one: &Path, other: &Path) -> bool {
    let (mut one, mut other) = (File::open(one).expect("a file"), File::open(other).expect("a file"));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = one.read(&mut a).expect("readable");
        if length == 0 {
            return other.read(&mut b).expect("readable") == 0;
        }
        if other.read_exact(&mut b[..length]).is_err() || a[..length] != b[..length] {
            return false;
        }
    }
}

/// A copy of the minimal ISO that a test may spoil; removed with the guard.
fn copy(project: &Project, guard: &Guard) -> PathBuf {
    let path = guard.path("spoilt.iso");
    fs::copy(project.artifact("minimal.iso"), &path).expect("room for a copy");
    path
}

/// Replaces text of the same length wherever a file holds it; gives how often it did.
fn replace(path: &Path, from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len(), "the file must keep its shape");
    let mut file = File::options().read(true).write(true).open(path).expect("a file");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("readable");
    let mut count = 0;
    let mut start = 0;
    while let Some(found) = bytes[start..].windows(from.len()).position(|window| window == from) {
        start += found;
        file.seek(SeekFrom::Start(start as u64)).and_then(|_| file.write_all(to)).expect("writable");
        start += from.len();
        count += 1;
    }
    count
}

fn is_built_alike(first: &Project, second: &Project) {
    second.build(&[]).expect_code(0).says("5 stages run, 0 from checkpoints");
    let ids = diff_ids(first);
    assert_eq!(ids.len(), MINIMAL_STAGES.len());
    assert_eq!(ids, diff_ids(second));
    assert!(same(&first.artifact("minimal.iso"), &second.artifact("minimal.iso")), "the ISOs differ");
    second.isokiln(&["verify"]).expect_code(0);
}

fn is_hybrid_labelled_and_summed(project: &Project) {
    let iso = project.artifact("minimal.iso");
    let mut head = vec![0; 18 << 11];
    File::open(&iso).expect("an ISO").read_exact(&mut head).expect("readable");
    assert_eq!(&head[510..512], b"\x55\xaa", "a BIOS boots a stick from its MBR");
    assert_eq!(&head[512..520], b"EFI PART", "firmware finds the ESP of a stick in a GPT");
    assert_eq!(&head[16 << 11 | 1..16 << 11 | 6], b"CD001");
    assert_eq!(String::from_utf8_lossy(&head[(16 << 11) + 40..(16 << 11) + 72]).trim_end(), "MINIMAL");
    assert_eq!(&head[(17 << 11) + 7..(17 << 11) + 30], b"EL TORITO SPECIFICATION");
    let sums = fs::read_to_string(project.artifact("minimal.iso.sha256")).expect("checksums");
    let artifacts = project.record()["artifacts"].clone();
    let digest = artifacts.as_array().expect("artifacts").iter().find_map(|artifact| {
        artifact["path"].as_str()?.ends_with("minimal.iso").then(|| artifact["digest"].as_str())?
    });
    let digest = digest.expect("the ISO's digest").strip_prefix("sha256:").expect("a SHA-256");
    assert_eq!(sums, format!("{digest}  minimal.iso\n"));
}

/// However many packages ask for one while they are installed.
fn makes_one_initramfs(project: &Project) {
    let log = project.artifact("minimal.iso").with_file_name("../stages/live/log");
    let log = fs::read_to_string(log).expect("the log of the stage");
    assert!(log.matches(": when the stage ends").count() > 1, "{log}");
    assert_eq!(log.matches("update-initramfs: Generating").count(), 1, "{log}");
}

fn boots_on_both_machines_and_is_not_tested_twice(project: &Project) {
    let tested = project.isokiln(&["build", "pipeline.toml"]).expect_code(0);
    tested.says("0 stages run, 5 from checkpoints; boot test PASS on bios-cd, uefi-cd");
    let record = project.record();
    for test in record["boot_tests"].as_array().expect("boot tests") {
        assert_eq!((&test["verdict"], &test["cached"]), (&Value::from("PASS"), &Value::from(false)));
        let folder = PathBuf::from(test["folder"].as_str().expect("a folder"));
        let report = fs::read_to_string(folder.join("report.json")).expect("a report");
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let checks: Vec<_> = report["checks"].as_array().expect("checks").iter().collect();
        assert_eq!(checks.len(), 3, "{report}");
        assert!(checks.iter().all(|check| check["verdict"] == "PASS"), "{report}");
        assert!(fs::read_to_string(folder.join("serial.log")).expect("a log").contains("login:"));
    }
    project
        .isokiln(&["build", "pipeline.toml"])
        .expect_code(0)
        .says("the same ISO has passed this test before");
}

fn is_decided_by_a_command_in_the_guest(project: &Project) {
    let iso = project.artifact("minimal.iso");
    let tested = project
        .isokiln(&[
            "test",
            iso.to_str().expect("text"),
            "--profile=bios-cd",
            "--check=command:test -e /run/live/medium",
            "--check=command:echo nothing here >&2; exit 3",
            "--format=json",
        ])
        .expect_code(4)
        .says("nothing here");
    let events = tested.events();
    let report = &events.last().expect("a last line")["reports"][0];
    let verdicts: Vec<_> =
        report["checks"].as_array().expect("checks").iter().map(|check| check["verdict"].clone()).collect();
    assert!(verdicts.contains(&Value::from("PASS")) && verdicts.contains(&Value::from("FAIL")), "{report}");
}

fn fails_without_a_boot_record(project: &Project) {
    let guard = Guard::new();
    let iso = copy(project, &guard);
    let file = File::options().write(true).open(&iso).expect("a file");
    // The boot record becomes another end of the list; the MBR and GPT go, too.
    file.write_all_at(&[0; 16 << 11], 0).expect("writable");
    file.write_all_at(b"\xff", 17 << 11).expect("writable");
    project
        .isokiln(&["test", iso.to_str().expect("text"), "--profile=bios-cd"])
        .expect_code(4)
        .says("boot record");
}

fn fails_with_the_phase_where_it_does_not_find_its_system(project: &Project) {
    let guard = Guard::new();
    let iso = copy(project, &guard);
    assert!(replace(&iso, b"boot=live", b"boot=lost") >= 2, "both boot menus name the live boot");
    let tested = project.isokiln(&["test", iso.to_str().expect("text"), "--profile=bios-cd"]).expect_code(4);
    tested.says("initramfs");
}

#[test]
fn what_is_no_iso_is_refused_before_anything_starts() {
    let project = Project::tiny("");
    project.write("no.iso", "a text");
    project.isokiln(&["test", "no.iso"]).expect_code(2).says("no.iso").says("hint:");
    project.isokiln(&["test", "missing.iso"]).expect_code(2).says("missing.iso");
    project.isokiln(&["test", "no.iso", "--profile=bios-dc"]).expect_code(2).says("bios-cd");
    assert_eq!(project.runs(), Vec::<String>::new());
}
