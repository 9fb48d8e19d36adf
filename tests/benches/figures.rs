//! Figures of speed and memory, printed as the tables of docs/figures.md: `cargo bench -p isokiln-tests`, or
//! `cargo bench -p isokiln-tests -- boots` for one of `layers`, `minimal`, `boots`.
//!
//! Machines are noisy, so what is compared runs in turns, in one run, and ratios are taken turn by turn.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use isokiln_tests::corpus::{Table, Workshop};
use isokiln_tests::{Project, repository};
use serde_json::Value;

const TURNS: usize = 3;
/// Boots differ by a tenth from one to the next.
const BOOT_TURNS: usize = 7;

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let all: [(&str, fn()); 3] = [("layers", layers), ("minimal", minimal), ("boots", boots)];
    for (name, measure) in all {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            measure();
        }
    }
}

/// Capture and restore of a large layer, in turns with tar and zstd in the engine on the same tree.
fn layers() {
    let project = Project::tiny(
        r#"
[[stage]]
name = "bulk"
uses = "bulk"

[[stage]]
name = "tar-zstd"
uses = "tar-zstd"
with = { folder = "bulk" }
"#,
    );
    println!("| layer | bytes | isokiln | tar, zstd -3 -T0 | throughput | peak memory of isokiln |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let (mut captures, mut restores) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let built = project.build(&["--from=bulk", "--until=bulk"]).expect_code(0);
        let capture = event(&project, "layer-stored", "bulk");
        project.build(&["--from=tar-zstd"]).expect_code(0);
        let before = reference(&project);
        // Without the volume, the layers come back from the store.
        project.isokiln(&["clean"]).expect_code(0);
        let restored = project.build(&["--from=tar-zstd"]).expect_code(0);
        let after = reference(&project);
        let restore = longest(&project, "layer-restored");
        let seconds = capture["seconds"].as_f64().expect("seconds");
        let bytes = capture["unpacked"].as_f64().expect("bytes");
        captures.push(row("capture", bytes, seconds, before.capture, built.peak_memory));
        restores.push(row("restore", bytes, restore, after.restore, restored.peak_memory));
    }
    println!("| capture, median | | | | {:.2} × | |", median(captures));
    println!("| restore, median | | | | {:.2} × | |\n", median(restores));
}

/// A cold build of the minimal system, an unchanged one, and a plan.
fn minimal() {
    println!("| pipelines/minimal.toml | seconds |");
    println!("| --- | --- |");
    let pipeline = fs::read_to_string(repository().join("pipelines/minimal.toml")).expect("minimal.toml");
    let (mut shares, mut rebuilds, mut plans) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let project = Project::new(&pipeline);
        project.build(&[]).expect_code(0);
        let record = project.record();
        let (all, scripts) = (record["seconds"].as_f64(), record["script_seconds"].as_f64());
        let (all, scripts) = (all.expect("seconds"), scripts.expect("seconds"));
        let share = (all - scripts) / all;
        println!(
            "| cold build: {scripts:.1} s in stage scripts, {:.1} % overhead | {all:.1} |",
            share * 100.0
        );
        shares.push(share * 100.0);
        rebuilds.push(project.build(&[]).expect_code(0).time.as_secs_f64());
        plans.push(project.isokiln(&["plan", "pipeline.toml"]).expect_code(0).time.as_secs_f64());
    }
    println!("| cold build, median overhead | {:.1} % |", median(shares));
    println!("| unchanged rebuild, median | {:.2} |", median(rebuilds));
    println!("| plan, median | {:.2} |", median(plans));
}

/// Boots of the corpus' `trixie` under test, in turns with the same machine started by its reproduce.sh, which
/// nobody watches but for what systemd says on the serial port.
fn boots() {
    let table = Table::of_repository().expect("the corpus");
    let workshop = Workshop::open(&table, &repository().join("target/corpus")).expect("a folder");
    let iso = workshop.iso(table.case("trixie").expect("the case")).expect("the ISO");
    println!("| boot | by itself | verdict | ratio | whole command |");
    println!("| --- | --- | --- | --- | --- |");
    for profile in ["bios-cd", "uefi-cd"] {
        let project = Project::tiny("");
        let path = iso.to_str().expect("UTF-8");
        let test = || {
            let tested =
                project.isokiln(&["test", path, "--profile", profile, "--check", "boot"]).expect_code(0);
            let run = project.runs().into_iter().max().expect("a run");
            let folder = project.home().join("runs").join(run).join("boot/trixie").join(profile);
            (tested.time.as_secs_f64(), folder)
        };
        // The first finds out what the machine can do, and leaves the script.
        let (_, folder) = test();
        let script = by_itself(&folder);
        let (mut alones, mut verdicts, mut commands) = (vec![], vec![], vec![]);
        for turn in 0..BOOT_TURNS {
            let alone_first = (turn % 2 == 0).then(|| time_by_itself(&script, &iso));
            let (command, folder) = test();
            let alone = alone_first.unwrap_or_else(|| time_by_itself(&script, &iso));
            let text = fs::read_to_string(folder.join("report.json")).expect("a report");
            let report: Value = serde_json::from_str(&text).expect("JSON");
            let verdict = report["checks"][0]["seconds"].as_f64().expect("seconds");
            println!(
                "| {profile} | {alone:.1} s | {verdict:.1} s | {:.3} | {command:.1} s |",
                verdict / alone
            );
            alones.push(alone);
            verdicts.push(verdict);
            commands.push(command);
        }
        let (alone, verdict) = (median(alones), median(verdicts));
        println!(
            "| {profile}, median | {alone:.1} s | {verdict:.1} s | {:.3} | {:.1} s |",
            verdict / alone,
            median(commands)
        );
    }
    workshop.tidy().expect("a tidy engine");
}

/// The script that starts a test's machine, made to say when QEMU starts.
fn by_itself(folder: &Path) -> String {
    let script = fs::read_to_string(folder.join("reproduce.sh")).expect("the script");
    let says = script.replacen("\nexec qemu-system", "\necho QEMU starts\nexec qemu-system", 1);
    assert_ne!(says, script, "the script starts QEMU elsewhere");
    says
}

/// Seconds from QEMU's start until systemd has reached what the check of the boot asks for.
fn time_by_itself(script: &str, iso: &Path) -> f64 {
    let mut command = Command::new("sh");
    command.args(["-c", script, "reproduce.sh"]).arg(iso);
    let mut machine =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the machine starts");
    let output = BufReader::new(machine.stdout.take().expect("its output"));
    let mut stdin = machine.stdin.take().expect("its input");
    let (mut start, mut seconds) = (None, None);
    for line in output.split(b'\n').map(|line| line.expect("its output")) {
        let line = String::from_utf8_lossy(&line);
        if line.contains("QEMU starts") {
            start = Some(Instant::now());
        }
        if seconds.is_none() && line.contains("multi-user.target") && line.contains("Reached target") {
            seconds = start.map(|start: Instant| start.elapsed().as_secs_f64());
            // Ctrl-A X ends QEMU, and with it the output.
            std::io::Write::write_all(&mut stdin, b"\x01x").expect("QEMU listens");
        }
    }
    machine.wait().expect("its end");
    seconds.expect("the machine comes up")
}

fn row(what: &str, bytes: f64, ours: f64, theirs: f64, memory: u64) -> f64 {
    let ratio = theirs / ours;
    println!(
        "| {what} | {:.2} GB | {ours:.2} s | {theirs:.2} s | {ratio:.2} × | {:.0} MiB |",
        bytes / 1e9,
        memory as f64 / f64::from(1 << 20)
    );
    ratio
}

struct Reference {
    capture: f64,
    restore: f64,
}

fn reference(project: &Project) -> Reference {
    let text = fs::read_to_string(project.artifact("tar-zstd.json")).expect("figures of the reference");
    let figures: Value = serde_json::from_str(&text).expect("JSON");
    let figure = |name: &str| figures[name].as_f64().expect("seconds");
    Reference { capture: figure("capture"), restore: figure("restore") }
}

fn events(project: &Project, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(project.home().join("latest/events.jsonl")).expect("events");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["event"] == kind).collect()
}

fn event(project: &Project, kind: &str, stage: &str) -> Value {
    let found = events(project, kind).into_iter().find(|event| event["stage"] == stage);
    found.unwrap_or_else(|| panic!("no {kind} of {stage}"))
}

fn longest(project: &Project, kind: &str) -> f64 {
    events(project, kind).iter().filter_map(|event| event["seconds"].as_f64()).fold(0.0, f64::max)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
