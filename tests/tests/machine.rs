//! The machine rather than a pipeline: doctor, clean, image, and what a build leaves of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use isokiln_tests::{Engine, Finished, Labels, Project, Request, StandIn, boot_sector_iso, builder_image};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn the_doctor_looks_at_everything_and_has_a_cure_for_what_is_not_good() {
    let project = Project::tiny("");
    let told = project.isokiln(&["doctor"]).expect_code(0);
    let found = project.isokiln(&["doctor", "--format", "json"]).expect_code(0).json();
    let found = found.as_array().expect("a list");
    let subjects: Vec<_> = found.iter().filter_map(|finding| finding["subject"].as_str()).collect();
    let all = [
        "engine",
        "builder image",
        "rights",
        "disk of the engine",
        "boot tests",
        "logout",
        "disk of the store",
        "package archive",
    ];
    assert_eq!(subjects, all);
    for finding in found {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        assert!(!text("finding").is_empty(), "{finding}");
        match text("state") {
            "good" => assert_eq!(finding["cure"], Value::Null, "{finding}"),
            "fair" => assert!(!text("cure").is_empty(), "{finding}"),
            state => panic!("{state} with exit code 0: {finding}"),
        }
    }
    for subject in all {
        assert!(told.stdout.contains(&format!(" {subject}: ")), "{subject}\n{told}");
    }
    assert!(!project.home().exists(), "the doctor made a folder");
    let volumes = Engine::connect().volumes();
    let own = volumes.iter().filter(|(_, labels)| labels.values().any(|folder| folder.contains("doctor-")));
    let own: Vec<_> = own.filter(|(_, labels)| !maker_runs(labels)).collect();
    assert!(own.is_empty(), "a doctor has left its volume: {own:?}");
}

/// Whether the doctor that made a volume still runs.
fn maker_runs(labels: &Labels) -> bool {
    let pid = labels.values().filter_map(|folder| folder.rsplit_once("doctor-")).map(|(_, pid)| pid).next();
    pid.is_some_and(|pid| Path::new("/proc").join(pid).exists())
}

#[test]
fn without_an_engine_the_doctor_says_so_and_goes_on() {
    let project = Project::tiny("");
    let mut command = project.command(&["doctor"]);
    Finished::of(command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock"))
        .expect_code(3)
        .prints(
            "BAD engine: no container engine answers at unix:///nonexistent/engine.sock: there is no socket",
        )
        .prints("cure start the engine, or point DOCKER_HOST at one")
        .prints("disk of the store: ")
        .prints("package archive: ");
    let mut command = project.command(&["doctor", "--residue"]);
    Finished::of(command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock"))
        .expect_code(3)
        .says("error: isokiln needs a container engine")
        .says("hint: start the engine");
}

#[test]
fn a_doctor_that_is_stopped_leaves_nothing() {
    let project = Project::tiny("");
    let mut running = project.start(&["doctor"]);
    let pid = running.id();
    // It has begun to look when it has a container.
    isokiln_tests::wait_until("the doctor has a container", || {
        !running.is_running() || !of_process(pid).is_empty()
    });
    running.signal(Signal::SIGINT);
    running.wait().expect_code(130).says("error: cancelled");
    assert_eq!(of_process(pid), [""; 0]);
    let folder = format!("doctor-{pid}");
    let left = Engine::connect().volumes().into_iter();
    let left: Vec<_> =
        left.filter(|(_, labels)| labels.values().any(|value| value.ends_with(&folder))).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Containers that a process made: their owner label is boot id, namespace, process id and start time.
fn of_process(pid: u32) -> Vec<String> {
    let is_of = |labels: &Labels| {
        let owner = labels.get("org.isokiln.pid-start").map(String::as_str).unwrap_or_default();
        owner.split(' ').nth(2) == Some(pid.to_string().as_str())
    };
    Engine::connect()
        .containers()
        .into_iter()
        .filter(|(_, labels)| is_of(labels))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn a_volume_whose_folder_was_deleted_is_listed_and_goes_with_clean_all() {
    let project = Project::tiny("");
    project.build(&[]).expect_code(0);
    let orphan = project.volume().expect("a volume");
    let line = format!("{orphan}  layers and caches of {}, which is gone", project.home().display());
    fs::remove_dir_all(project.home()).expect("the folder can be deleted");

    let listed = project.isokiln(&["doctor", "--residue"]).expect_code(0);
    let found = listed.stdout.lines().find(|found| found.contains(&orphan)).unwrap_or_default();
    assert!(found.contains(&line) && found.ends_with("isokiln clean --all removes it"), "{listed}");
    let cleaned = project.isokiln(&["clean"]).expect_code(0);
    assert!(!cleaned.stdout.contains(&orphan), "without --all other folders' volumes stay\n{cleaned}");
    project.isokiln(&["clean", "--all"]).expect_code(0).prints(&format!("removed  volume  {orphan}"));
    let volumes: Vec<_> = Engine::connect().volumes().into_iter().map(|(name, _)| name).collect();
    assert!(!volumes.contains(&orphan));
    let image = project.isokiln(&["image", "build"]).expect_code(0).never_says("made in");
    assert!(image.stdout.contains(builder_image()), "clean leaves the builder image\n{image}");
}

#[test]
fn clean_takes_the_volume_and_the_next_build_goes_on_from_the_store() {
    let project = Project::tiny("\n[[stage]]\nname = \"last\"\nrun = \"echo one >/etc/last\"\n");
    project.build(&[]).expect_code(0);
    let (volume, saved) = (project.volume().expect("a volume"), project.saved());
    let cleaned = project.isokiln(&["clean", "--format", "json"]).expect_code(0).json();
    assert_eq!(cleaned["volumes"], serde_json::json!([volume]));
    assert_eq!(cleaned["folders"], serde_json::json!([]));
    assert_eq!(project.volume(), None);
    assert_eq!(project.saved(), saved);
    project.expect_whole_store();

    project.edit("pipeline.toml", "echo one", "echo two");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, last done");

    // Files of somebody else's in the folder are none of isokiln's business.
    project.write(".isokiln/notes.txt", "mine");
    project.isokiln(&["clean", "--all"]).expect_code(0).prints("store");
    let left: Vec<_> = fs::read_dir(project.home()).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(project.volume(), None);
    project.isokiln(&["clean", "--all"]).expect_code(0).never_says("error");
}

#[test]
fn what_a_mere_boot_test_left_is_cleaned_too() {
    let project = Project::tiny("");
    project.write("endless.iso", boot_sector_iso());
    let mut running = project.start(&["test", "endless.iso", "--profile", "bios-cd"]);
    running.wait_until_it_says("Boot bios-cd under");
    // A build in the same folder neither waits for the test nor takes its ISO away.
    project.build(&[]).expect_code(0).never_says("waiting");
    assert!(running.is_running());
    running.signal(Signal::SIGTERM);
    running.wait().expect_code(130);
    fs::remove_dir_all(project.home().join("store")).expect("the store can be deleted");
    let volume = project.volume().expect("a volume");
    project
        .isokiln(&["clean", "--all"])
        .expect_code(0)
        .prints(&format!("removed  volume  {volume}"))
        .prints(&project.home().join("runs").display().to_string());
    assert!(!project.home().exists());
    assert_eq!(project.volume(), None);
}

#[test]
fn the_image_is_found_in_under_a_second_and_removed_only_when_asked() {
    let project = Project::tiny("");
    let times = (0..3).map(|_| {
        let found = project.isokiln(&["image", "build"]).expect_code(0).never_says("made in");
        assert!(found.stdout.starts_with(builder_image()), "{found}");
        found.time
    });
    let best = times.min().expect("three times");
    assert!(best < Duration::from_secs(1), "it took {best:?}");

    // Not the real engine's: others build with it.
    let engine =
        StandIn::open(|request: &Request| match request.path.split('?').next().unwrap_or_default() {
            "/_ping" => (200, "OK".to_owned()),
            "/images/json" => (200, image_list()),
            path if path.starts_with("/images/") && request.method == "DELETE" => (200, "[]".to_owned()),
            _ => (404, "{\"message\":\"no such thing\"}".to_owned()),
        });
    let mut command = project.command(&["image", "rm"]);
    Finished::of(command.env("DOCKER_HOST", engine.address()))
        .expect_code(0)
        .prints("removed  image  isokiln-builder:one")
        .prints("removed  image  isokiln-builder:two");
    let removed: BTreeSet<_> = engine.requests("DELETE", "/images/").into_iter().map(|r| r.path).collect();
    let named = |name: &str| removed.iter().any(|path| path.contains(name));
    assert!(removed.len() == 2 && named("one") && named("two"), "{removed:?}");
}

/// Two builder images, as an engine lists them.
fn image_list() -> String {
    let image = |tag: &str| {
        serde_json::json!({
            "Id": format!("sha256:{tag}"), "ParentId": "", "RepoTags": [format!("isokiln-builder:{tag}")],
            "RepoDigests": [], "Created": 0, "Size": 1, "SharedSize": -1, "Labels": {}, "Containers": -1,
        })
    };
    serde_json::json!([image("one"), image("two")]).to_string()
}

#[test]
fn a_build_leaves_the_machine_as_it_was() {
    let project = Project::slow(1);
    let before = (mounts(), loops());
    project.build(&[]).expect_code(0);
    project.add_kind("slow", "exit 7\n");
    project.build(&[]).expect_code(1);
    assert_eq!((mounts(), loops()), before);
    project.expect_no_residue();
}

/// Mounts of this machine, but for those of containers, whose engine mounts them for others too.
fn mounts() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts can be read");
    let of_engine = |line: &&str| line.contains("/docker/") || line.starts_with("nsfs ");
    mounts.lines().filter(|line| !of_engine(line)).map(str::to_owned).collect()
}

/// Loop devices that are in use, with their files.
fn loops() -> BTreeSet<String> {
    let devices = fs::read_dir("/sys/block").expect("devices can be listed").flatten();
    devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok()).collect()
}
