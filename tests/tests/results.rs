//! What boot tests leave: tables, JUnit, comparisons, and a script that starts the machine again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isokiln_tests::{Finished, Project, boot_sector_iso, talking_iso, wait_until};
use serde_json::{Value, json};

/// Words on the screen, and then what XML must not hold: control characters, colours, bytes that are no UTF-8.
const WORDS: &[u8] = b"HELLO WORLD\r\n\x01\x1b[31m\xff<&]]>\r\n";
const CHECK: &str = "screen:HELLO WORLD";

/// `isokiln test` on `bios-cd`, and what else is named.
fn run(project: &Project, arguments: &[&str]) -> Finished {
    project.isokiln(&[&["test", "--profile", "bios-cd"], arguments].concat())
}

/// An ISO that no firmware starts: its test ends without a machine.
fn without_boot_record() -> Vec<u8> {
    let mut image = boot_sector_iso();
    image[17 * 2048..18 * 2048].fill(0);
    image[17 * 2048..][..7].copy_from_slice(b"\xffCD001\x01");
    image
}

fn project() -> Project {
    let project = Project::tiny("");
    project.write("good.iso", talking_iso(WORDS));
    project.write("bad.iso", without_boot_record());
    project
}

/// A file of the project's only run.
fn of_run(project: &Project, path: &str) -> PathBuf {
    let runs = project.runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    project.home().join("runs").join(&runs[0]).join(path)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_machine_on_which_all_is_well_is_summed_up_in_a_line_and_in_junit() {
    let project = project();
    let told = run(&project, &["good.iso", "--check", CHECK, "--junit", "out.xml"])
        .expect_code(0)
        .says("        PASS bios-cd  screen: HELLO WORLD: ")
        .says("        PASS bios-cd: reached boot menu, ")
        .never_says("evidence")
        .never_says("seconds");
    assert_eq!(told.stderr.matches("        Boot ").count(), 1, "{told}");
    let junit = text(&project.path("out.xml"));
    assert_eq!(junit, text(&of_run(&project, "junit.xml")));
    assert!(junit.contains(r#"tests="1" skipped="0" failures="0" errors="0""#), "{junit}");
    assert!(
        junit.contains(r#"<testcase name="screen: HELLO WORLD" classname="good.iso on bios-cd""#),
        "{junit}"
    );
    assert!(junit.contains(r#"<property name="reached" value="boot-menu"/>"#), "{junit}");
    // The serial log, without what XML does not allow.
    assert!(junit.contains("<system-out>HELLO WORLD\n\u{fffd}&lt;&amp;]]&gt;"), "{junit}");
}

#[test]
fn a_failure_is_a_failure_in_the_table_and_in_junit() {
    let project = project();
    let arguments =
        ["bad.iso", "--profile", "uefi-cd", "--check", "boot", "--check", CHECK, "--junit", "out.xml"];
    let told = run(&project, &arguments).expect_code(4);
    let table: Vec<_> =
        told.stderr.lines().skip_while(|line| !line.trim_start().starts_with("bios-cd  ")).take(7).collect();
    assert_eq!(
        table,
        [
            "                     bios-cd         uefi-cd",
            "boot                 FAIL            FAIL",
            "screen: HELLO WORLD  INCONCLUSIVE    INCONCLUSIVE",
            "reached              -               -",
            "cause                no-boot-record  no-boot-record",
            "probe                -               -",
            "seconds              0.0             0.0",
        ],
        "{told}"
    );
    // Both run under the same accelerator for the same reason.
    let boots: Vec<_> = told.stderr.lines().filter(|line| line.starts_with("        Boot ")).collect();
    assert!(boots[0].contains(" (") && !boots[1].contains('('), "{boots:?}");
    assert_eq!(told.stderr.matches("    evidence ").count(), 2, "{told}");
    let junit = text(&project.path("out.xml"));
    assert!(junit.contains(r#"tests="4" skipped="2" failures="2" errors="0""#), "{junit}");
    assert!(junit.contains(r#" type="no-boot-record">FAIL: the ISO has no boot record"#), "{junit}");
}

#[test]
fn what_passed_on_the_old_iso_and_not_on_the_new_one_is_a_regression() {
    let project = project();
    let arguments =
        ["--baseline", "good.iso", "bad.iso", "--check", CHECK, "--format", "json", "--junit", "out.xml"];
    let told = run(&project, &arguments)
        .expect_code(4)
        .says("        Boot good.iso bios-cd under ")
        .says("        PASS good.iso bios-cd  screen: HELLO WORLD")
        .says("    Compared bios-cd: bad.iso with good.iso\n  regression screen: HELLO WORLD passed before and is now INCONCLUSIVE")
        .says("boot test FAIL on bios-cd\n");
    let events = told.events();
    let last = events.last().expect("a result");
    assert_eq!(
        (&last["reports"][0]["iso"], &last["baseline"][0]["iso"]),
        (&json!("bad.iso"), &json!("good.iso"))
    );
    let comparison = &last["comparison"][0];
    assert_eq!(comparison["regressions"].as_array().map(Vec::len), Some(1), "{comparison}");
    let file: Value = serde_json::from_str(&text(&of_run(&project, "comparison.json"))).expect("JSON");
    assert_eq!(file, last["comparison"]);
    // What another ISO came to is none of this one's results.
    let junit = text(&project.path("out.xml"));
    assert!(junit.contains("bad.iso on bios-cd") && !junit.contains("good.iso on"), "{junit}");
}

#[test]
fn an_iso_compared_with_its_namesake_is_no_worse_and_keeps_its_own_evidence() {
    let project = project();
    project.write("old/good.iso", talking_iso(WORDS));
    run(&project, &["--baseline", "old/good.iso", "good.iso", "--check", CHECK])
        .expect_code(0)
        .says("    Compared bios-cd: good.iso with baseline-good.iso\n    no worse ")
        .says("     screens ");
    for name in ["good", "baseline-good"] {
        assert!(of_run(&project, &format!("boot/{name}/bios-cd/end.png")).is_file());
    }
}

#[test]
fn junit_of_a_run_that_comes_to_nothing_is_no_success() {
    let project = project();
    let mut command = project.command(&["test", "good.iso", "--profile", "bios-cd", "--junit", "out.xml"]);
    let told = Finished::of(command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock"));
    told.expect_code(3);
    let junit = text(&project.path("out.xml"));
    assert!(junit.contains(r#"errors="1""#) && junit.contains("the run has not come to its end"), "{junit}");
    run(&project, &["good.iso", "--junit", "nowhere/out.xml"]).expect_code(3).says("nowhere/out.xml");
    assert!(!project.home().exists(), "nothing was begun");
    let project = Project::tiny("\n[[stage]]\nname = \"broken\"\nrun = \"exit 7\"\n");
    project.isokiln(&["build", "pipeline.toml", "--junit", "built.xml"]).expect_code(1);
    let junit = text(&project.path("built.xml"));
    assert!(junit.contains(r#"errors="1""#) && junit.contains("stage broken"), "{junit}");
}

#[test]
fn the_script_in_the_evidence_starts_the_same_machine() {
    let project = project();
    run(&project, &["good.iso", "--check", CHECK]).expect_code(0);
    let script = of_run(&project, "boot/good/bios-cd/reproduce.sh");
    let said = project.path("said");
    let mut machine = Command::new("sh")
        .arg(&script)
        .arg(project.path("good.iso"))
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&said).expect("a file"))
        .spawn()
        .expect("sh can be run");
    wait_until("the guest speaks on the serial port", || {
        let ended = machine.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "the machine has ended: {ended:?}");
        fs::read(&said).is_ok_and(|said| said.windows(11).any(|words| words == b"HELLO WORLD"))
    });
    // Ctrl-A X.
    machine.stdin.take().expect("a pipe").write_all(b"\x01x").expect("it listens");
    assert!(machine.wait().expect("it can be waited for").success());
    let usage = Command::new("sh").arg(&script).output().expect("sh can be run");
    assert!(!usage.status.success() && String::from_utf8_lossy(&usage.stderr).contains("[--screen] ISO"));
}
