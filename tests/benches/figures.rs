//! Figures of speed and memory, printed as the tables of docs/figures.md: `cargo bench -p isokiln-tests`.
//!
//! Machines are noisy, so what is compared runs in turns, in one run, and ratios are taken turn by turn.

use std::fs;

use isokiln_tests::{Project, repository};
use serde_json::Value;

const TURNS: usize = 3;

fn main() {
    layers();
    minimal();
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
