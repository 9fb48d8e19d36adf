//! The engine missing, refusing, far away, or losing things under a build.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use isokiln_tests::{Engine, Finished, Forwarder, Project, Request, StandIn, binary, wait_until};
use nix::sys::signal::Signal;

/// Fails the test unless the command was refused with cause and cure, and nothing was made.
#[track_caller]
fn expect_refused(project: &Project, finished: Finished, cause: &str, cure: &str) {
    finished.expect_code(3).says("error: isokiln needs a container engine").says(cause).says(cure);
    assert!(!project.home().exists(), "isokiln's folder was made");
}

#[test]
fn an_engine_that_is_not_there_ends_every_command_with_cause_and_cure() {
    let project = Project::tiny("");
    let socket = project.path("engine.sock");
    let dead = project.path("dead.sock");
    drop(UnixListener::bind(&dead).expect("a socket"));
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let stranger = StandIn::open(|_| (404, "<html>not an engine</html>".to_owned()));
    let garbage = TcpListener::bind("127.0.0.1:0").expect("a port");
    let garbage_address = format!("tcp://{}", garbage.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut client in garbage.incoming().flatten() {
            // What comes before the request is another error than what comes for an answer.
            drop(client.read(&mut [0; 4096]));
            drop(client.write_all(b"\x00\x01SSH-2.0-nonsense\r\n\r\n"));
        }
    });
    let gone = "no container engine answers at";
    let start = "hint: start the engine, or point DOCKER_HOST at one";
    let write = "hint: write unix:///path/to/socket or tcp://host:port";
    let unknown = "which isokiln does not understand";
    for (address, causes, cure) in [
        (format!("unix://{}", socket.display()), [gone, "there is no socket"], start),
        (format!("unix://{}", dead.display()), [gone, "Connection refused"], start),
        (format!("tcp://{port}"), [gone, "Connection refused"], start),
        (stranger.address().to_owned(), [gone, "404"], start),
        (garbage_address, [gone, "invalid HTTP version"], start),
        ("ssh://builder@127.0.0.1".to_owned(), [unknown, "ssh://builder@127.0.0.1"], write),
        ("nonsense".to_owned(), [unknown, "nonsense"], write),
        ("tcp://".to_owned(), [unknown, "tcp://"], write),
        ("tcp://127.0.0.1:port".to_owned(), [unknown, "127.0.0.1:port"], write),
    ] {
        for arguments in [&["build", "pipeline.toml"][..], &["plan", "pipeline.toml"], &["image", "build"]] {
            let mut command = project.command(arguments);
            let finished = Finished::of(command.env("DOCKER_HOST", &address));
            expect_refused(&project, finished.says(causes[1]), causes[0], cure);
        }
    }
    // The project is at fault before the engine is asked.
    let mut command = project.command(&["build", "nosuch.toml"]);
    Finished::of(command.env("DOCKER_HOST", "nonsense")).expect_code(2).says("nosuch.toml");
    assert!(!project.home().exists(), "isokiln's folder was made");
}

#[test]
fn an_engine_that_lets_others_in_only_says_which_group_to_join() {
    let project = Project::tiny("");
    let socket = project.path("engine.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).expect("a mode");
    // Somebody else has to get at the project and the program.
    fs::set_permissions(project.path("."), Permissions::from_mode(0o755)).expect("a mode");
    fs::copy(binary(), project.path("isokiln")).expect("a copy");
    let mut command = if nix::unistd::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(project.path("isokiln"));
        command
    } else {
        Command::new(project.path("isokiln"))
    };
    command.args(["build", "pipeline.toml"]).env("DOCKER_HOST", format!("unix://{}", socket.display()));
    expect_refused(
        &project,
        Finished::of(project.mark(&mut command)),
        "does not let this user in",
        "hint: join the group",
    );
}

#[test]
fn an_engine_by_tcp_builds_restores_and_delivers_over_the_api_alone() {
    let project = Project::tiny("\n[[stage]]\nname = \"leave\"\nuses = \"leave\"\n");
    project.write(
        "stages/leave/kind.toml",
        "summary = \"For a test\"\nrootfs = \"read\"\nprivilege = \"none\"\n",
    );
    project.write("stages/leave/run.sh", "cat \"$ROOTFS/etc/passwd\" >\"$ARTIFACTS/passwd\"\n");
    let far = Forwarder::open();
    let build = || {
        let mut command = project.command(&["build", "pipeline.toml", "--no-test"]);
        Finished::of(command.env("DOCKER_HOST", far.address()))
    };
    build().expect_code(0);
    assert_eq!(project.outcome(), "base done, leave done");
    let layer = project.checkpoints()[0]["size_bytes"].as_u64().expect("a size");
    // Layers are taken out as tar, so larger than they are stored.
    assert!(far.received() > layer, "{} bytes came for a layer of {layer}", far.received());
    let passwd = fs::read_to_string(project.artifact("passwd")).expect("the artifact");
    assert_eq!(passwd, "root:x:0:0:root:/root:/bin/sh\n");

    Engine::connect().remove_volume(&project.volume().expect("a volume"));
    project.edit("stages/leave/run.sh", "passwd\" >", "group\" >");
    let before = far.sent();
    build().expect_code(0);
    assert_eq!(project.outcome(), "base hit, leave done");
    assert!(far.sent() - before > layer, "{} bytes went for a layer of {layer}", far.sent() - before);
    assert_eq!(fs::read_to_string(project.artifact("passwd")).expect("the artifact"), "root:x:0:\n");

    assert!(far.was_sent(r#""Type":"volume""#), "the requests can be looked at");
    assert!(!far.was_sent(r#""Type":"bind""#), "a folder of this machine was mounted");
    project.expect_whole_store();
    project.expect_no_residue();
}

/// A build whose engine goes away in the middle of a stage.
fn broken_off(break_off: impl FnOnce(&Forwarder)) {
    let project = Project::slow(60);
    let far = Forwarder::open();
    let running = project.start_slow(|command| {
        // What comes of waiting for it is tested with other faults that are got over.
        command.arg("--recover=off").env("DOCKER_HOST", far.address());
    });
    break_off(&far);
    let finished = running
        .wait()
        .expect_code(3)
        .says_one_error()
        .says("error: stage slow could not be run")
        .says("the connection to the container engine broke off")
        .says("hint: isokiln doctor says how the engine is; then try again");
    assert!(finished.time < Duration::from_secs(50), "{finished}");
    project.expect_to_continue();
}

#[test]
fn an_engine_that_hangs_up_for_good_is_one_clear_error() {
    broken_off(Forwarder::hang_up);
}

#[test]
fn an_engine_that_hangs_up_for_a_moment_is_one_clear_error() {
    broken_off(Forwarder::hiccup);
}

#[test]
fn a_stage_whose_container_is_removed_fails_and_the_next_build_continues() {
    let project = Project::slow(60);
    let running = project.start_slow(|command| {
        command.arg("--recover=off");
    });
    Engine::connect().remove_container(&project.container("slow").expect("the stage's container"));
    running
        .wait()
        .expect_code(1)
        .says("FAILED slow: its container was killed from outside")
        .says("hint see the engine's log for the reason, then build again");
    assert_eq!(project.outcome(), "base done, slow failed");
    project.expect_to_continue();
}

#[test]
fn a_porter_that_is_removed_ends_the_build_and_the_next_one_continues() {
    let project = Project::slow(4);
    let running = project.start_slow(|command| {
        command.arg("--recover=off");
    });
    wait_until("the porter is there", || project.container("porter").is_some());
    Engine::connect().remove_container(&project.container("porter").expect("the porter"));
    running
        .wait()
        .expect_code(3)
        .says("error: what stage slow changed cannot be captured")
        .says("No such container")
        .says("hint: isokiln doctor says how the engine is; then try again");
    project.expect_to_continue();
}

#[test]
fn a_volume_that_is_removed_between_builds_is_made_anew() {
    let project = Project::tiny("\n[[stage]]\nname = \"last\"\nrun = \"cat /etc/passwd >/etc/last\"\n");
    project.build(&[]).expect_code(0);
    let engine = Engine::connect();
    engine.remove_volume(&project.volume().expect("a volume"));
    project.build(&[]).expect_code(0).says("0 stages run, 2 from checkpoints");

    project.edit("pipeline.toml", "cat /etc/passwd", "cat /etc/group");
    project.build(&[]).expect_code(0).says("1 stages run, 1 from checkpoints");
    assert_eq!(project.outcome(), "base hit, last done");
    assert!(project.volume().is_some(), "the volume is there again");
    project.expect_no_residue();
}

/// An engine without a builder image, which takes any.
fn engine_without_image() -> StandIn {
    StandIn::open(|request: &Request| match request.path.split('?').next().unwrap_or_default() {
        "/_ping" => (200, "OK".to_owned()),
        "/images/json" | "/containers/json" => (200, "[]".to_owned()),
        "/images/create" => (200, "{\"status\":\"taken\"}".to_owned()),
        _ => (404, "{\"message\":\"no such thing\"}".to_owned()),
    })
}

/// `image build --route mirror` with a program in mmdebstrap's place.
fn image_build(project: &Project, engine: &StandIn, mmdebstrap: &str) -> Command {
    project.write("bin/mmdebstrap", format!("#!/bin/sh\n{mmdebstrap}"));
    fs::set_permissions(project.path("bin/mmdebstrap"), Permissions::from_mode(0o755)).expect("a mode");
    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").expect("a path"));
    let mut command = project.command(&["image", "build", "--route", "mirror"]);
    command.env("PATH", path).env("DOCKER_HOST", engine.address());
    command
}

#[test]
fn an_image_whose_maker_fails_is_not_taken_for_one() {
    let project = Project::tiny("");
    let engine = engine_without_image();
    Finished::of(&mut image_build(&project, &engine, "echo 'E: no room' >&2; exit 25\n"))
        .expect_code(3)
        .says("error: the builder image is needed for every stage")
        .says("mmdebstrap failed: E: no room")
        .says("hint: isokiln image build --route mirror|dockerfile tries another way");
    Finished::of(&mut image_build(&project, &engine, "echo half of it; echo 'E: cut' >&2; exit 1\n"))
        .expect_code(3)
        .says("mmdebstrap failed: E: cut");
    // An engine makes an image even of nothing, and the next build would find it.
    let taken = engine.requests("POST", "/images/create");
    assert!(taken.iter().all(|request| !request.whole), "a broken image was handed over: {taken:?}");

    // A maker that ends well is believed; this engine then does not have the image all the same.
    Finished::of(&mut image_build(&project, &engine, "echo all of it\n"))
        .expect_code(3)
        .says("the engine took it but does not have it");
    let taken = engine.requests("POST", "/images/create");
    let last = taken.last().expect("a request");
    assert!(last.whole && last.body == b"all of it\n", "{last:?}");
}

#[test]
fn a_signal_while_the_image_is_made_ends_its_maker_and_everything_else() {
    let project = Project::tiny("");
    let engine = engine_without_image();
    let made = project.path("unfinished");
    let script = format!(
        "trap 'rm {made}; exit 1' TERM\nsleep 60 &\ntouch {made}\necho 'I: at work' >&2\nwait\n",
        made = made.display()
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut running = isokiln_tests::Running::start(&mut image_build(&project, &engine, &script));
        running.wait_until_it_says("making the builder image");
        wait_until("mmdebstrap runs", || made.exists());
        running.signal(signal);
        let finished = running.wait().expect_code(130).says("error: cancelled");
        assert!(finished.time < Duration::from_secs(30), "{finished}");
        assert!(!made.exists(), "mmdebstrap was not given the time to clean up");
    }
    assert!(engine.requests("POST", "/images/create").iter().all(|request| !request.whole));
}
