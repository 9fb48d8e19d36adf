//! The check that tests leave nothing: whatever kind of thing is left, it is named.

use std::fs;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use isokiln_tests::{Engine, Guard, builder_image, wait_until};

/// What is left on purpose, until it is dropped.
struct Left(Box<dyn FnMut()>);

impl Drop for Left {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn run(command: &mut Command) {
    let done = command.stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "{command:?} failed; run the tests as root");
}

fn left_by(undo: &[&str], path: &Path) -> Left {
    let undo: Vec<_> =
        undo.iter().map(|word| (*word).to_owned()).chain([path.display().to_string()]).collect();
    Left(Box::new(move || run(Command::new(&undo[0]).args(&undo[1..]))))
}

fn left_process(mut child: Child) -> Left {
    // A program that has only just been put in its process's place has no arguments and no environment yet.
    let arguments = format!("/proc/{}/cmdline", child.id());
    wait_until("the program runs", || fs::read(&arguments).is_ok_and(|arguments| !arguments.is_empty()));
    Left(Box::new(move || {
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }))
}

/// Fails the test unless the guard finds what was left, of one kind and no other, and nothing any more when it is gone.
#[track_caller]
fn expect_found(guard: &Guard, left: Left, kind: &str, name: &str) {
    let engine = Engine::connect();
    let found: Vec<_> = guard.traces(&engine).into_iter().collect();
    let [trace] = found.as_slice() else { panic!("not one {kind}: {found:#?}") };
    assert_eq!(trace.kind, kind, "{trace}");
    assert!(trace.name.contains(name), "{trace} does not hold {name:?}");
    drop(left);
    assert_eq!(guard.traces(&engine), Default::default());
}

#[test]
fn processes_are_found_by_mark_folder_and_arguments() {
    let guard = Guard::new();
    let mut marked = Command::new("sleep");
    guard.mark(marked.arg("100")).current_dir("/");
    expect_found(&guard, left_process(marked.spawn().expect("sleep")), "process", "sleep 100");

    let mut inside = Command::new("sleep");
    inside.arg("101").current_dir(guard.work());
    expect_found(&guard, left_process(inside.spawn().expect("sleep")), "process", "sleep 101");

    let mut given = Command::new("tail");
    fs::write(guard.path("log"), "").expect("a file");
    given.arg("-f").arg(guard.path("log"));
    expect_found(&guard, left_process(given.spawn().expect("tail")), "process", "tail -f");

    let other = Guard::new();
    let stranger = left_process(other.mark(Command::new("sleep").arg("102")).spawn().expect("sleep"));
    assert_eq!(
        guard.traces(&Engine::connect()),
        Default::default(),
        "another test's process is none of ours"
    );
    drop(stranger);
}

#[test]
fn mounts_are_found_here_and_in_name_spaces_of_processes() {
    let guard = Guard::new();
    run(Command::new("mount").args(["-t", "tmpfs", "left"]).arg(guard.work()));
    expect_found(&guard, left_by(&["umount"], &guard.work()), "mount", "tmpfs left");

    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", "mount -t tmpfs hidden . && exec sleep 103"]);
    let process = left_process(guard.mark(&mut hidden).spawn().expect("unshare"));
    let kinds = || {
        let found = guard.traces(&Engine::connect());
        found.into_iter().map(|trace| trace.kind).collect::<Vec<_>>()
    };
    wait_until("the mount is found", || kinds() == ["mount", "process"]);
    drop(process);
    assert!(kinds().is_empty());
}

#[test]
fn loop_devices_and_sockets_are_found() {
    let guard = Guard::new();
    fs::write(guard.path("disk"), vec![0; 1 << 20]).expect("a file");
    let attached = Command::new("losetup").args(["--find", "--show"]).arg(guard.path("disk")).output();
    let device = String::from_utf8(attached.expect("losetup").stdout).expect("a name");
    let left = left_by(&["losetup", "--detach"], Path::new(device.trim()));
    expect_found(&guard, left, "loop device", "/disk");

    let socket = UnixListener::bind(guard.path("socket")).expect("a socket");
    expect_found(
        &guard,
        Left(Box::new({
            let mut socket = Some(socket);
            move || drop(socket.take())
        })),
        "socket",
        "work/socket",
    );
}

#[test]
fn files_are_found_that_nobody_finishes() {
    let guard = Guard::new();
    let blobs = guard.path(".isokiln/store/blobs/sha256");
    fs::create_dir_all(&blobs).expect("folders");
    let run = guard.path(".isokiln/runs/1");
    fs::create_dir_all(&run).expect("folders");
    fs::write(blobs.join("0".repeat(64)), "whole").expect("a file");
    fs::write(blobs.join(".damaged-1-0"), "set aside").expect("a file");
    fs::write(run.join("run.json"), "{}").expect("a file");
    for (path, kind) in [
        (blobs.join(".tmp-1-0"), "unfinished file"),
        (blobs.join("0123"), "unfinished file"),
        (run.join("run.json.4711.0"), "unfinished file"),
        (guard.temporary().join("isokiln-pipes"), "temporary file"),
    ] {
        fs::write(&path, "").expect("a file");
        let name = path.display().to_string();
        expect_found(
            &guard,
            Left(Box::new(move || fs::remove_file(&path).expect("it is there"))),
            kind,
            &name,
        );
    }
    let dead = run.join("qmp.sock");
    drop(UnixListener::bind(&dead).expect("a socket"));
    let left = left_by(&["rm"], &dead);
    expect_found(&guard, left, "unfinished file", "qmp.sock");
}

#[test]
fn containers_and_volumes_are_found_by_run_volume_and_folder() {
    let guard = Guard::new();
    let named = |name: &str| format!("{name}-{}", std::process::id());
    let create = |given: &str, name: &str| {
        let mut command = Command::new("docker");
        command.args(["create", given, "--name", &named(name), builder_image(), "true"]);
        let made = command.output().expect("docker");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let id = String::from_utf8(made.stdout).expect("an id");
        left_by(&["docker", "rm"], Path::new(id.trim()))
    };
    let id = named("20261129-000000");
    let run_folder = guard.path(".isokiln/runs").join(&id);
    fs::create_dir_all(&run_folder).expect("folders");
    let label = format!("--label=org.isokiln.run={id}");
    expect_found(&guard, create(&label, "left-by-run"), "container", "left-by-run");
    let pid = run_folder.join("pid");
    fs::write(&pid, format!("{}\n", std::process::id())).expect("a file");
    expect_found(&guard, create(&label, "left-by-process"), "container", "left-by-process");
    // A run of another folder may have begun at the same moment.
    fs::write(&pid, "1\n").expect("a file");
    let namesake = create(&label, "of-a-namesake");
    assert_eq!(guard.traces(&Engine::connect()), Default::default());
    drop(namesake);

    let folder = format!("--volume={}:/pipes", guard.temporary().display());
    expect_found(&guard, create(&folder, "left-by-folder"), "container", "left-by-folder");

    let volume = named("isokiln-test");
    let label = format!("--label=org.isokiln.folder={}", guard.path(".isokiln").display());
    run(Command::new("docker").args(["volume", "create", &label, &volume]));
    let container = create(&format!("--volume={volume}:/layers"), "left-by-volume");
    let engine = Engine::connect();
    let found: Vec<_> = guard.traces(&engine).iter().map(ToString::to_string).collect();
    assert_eq!(found, [format!("container {}", named("left-by-volume")), format!("volume {volume}")]);
    assert_eq!(guard.residue(&engine).len(), 1, "a volume is no residue while its folder is there");
    drop(container);
    expect_found(&guard, left_by(&["docker", "volume", "rm"], Path::new(&volume)), "volume", &volume);
}

#[test]
fn a_guard_fails_the_test_that_leaves_something_and_hides_no_other_failure() {
    let words = |ended: Result<(), Box<dyn std::any::Any + Send>>| {
        let panic = ended.expect_err("it fails");
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
    };
    let leaving = catch_unwind(|| {
        let guard = Guard::new();
        fs::write(guard.temporary().join("left"), "").expect("a file");
    });
    let said = words(leaving).expect("words");
    assert!(said.starts_with("the test has left:\n  temporary file ") && said.ends_with("/left"), "{said}");
    let failing = catch_unwind(AssertUnwindSafe(|| {
        let guard = Guard::new();
        fs::write(guard.temporary().join("left"), "").expect("a file");
        panic!("the first failure");
    }));
    assert_eq!(words(failing).as_deref(), Some("the first failure"));
}
