//! Figures of speed and memory, printed as the tables of docs/figures.md: `cargo bench -p isokiln-tests`, or
//! `cargo bench -p isokiln-tests -- boots` for one of `layers`, `minimal`, `logs`, `reviews`, `boots`, `desktop`.
//!
//! Machines are noisy, so what is compared runs in turns, in one run, and ratios are taken turn by turn.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isokiln_tests::corpus::{Table, Workshop};
use isokiln_tests::{Project, repository};
use serde_json::Value;

const TURNS: usize = 3;
/// Boots differ by a tenth from one to the next.
const BOOT_TURNS: usize = 7;

fn main() {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let all: [(&str, fn()); 6] = [
        ("layers", layers),
        ("minimal", minimal),
        ("logs", logs),
        ("reviews", reviews),
        ("boots", boots),
        ("desktop", desktop),
    ];
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
        // In the process whose memory is looked at.
        let built = project.build(&["--from=bulk", "--until=bulk", "--foreground"]).expect_code(0);
        let capture = event(&project, "layer-stored", "bulk");
        project.build(&["--from=tar-zstd"]).expect_code(0);
        let before = reference(&project);
        // Without the volume, the layers come back from the store.
        project.isokiln(&["clean"]).expect_code(0);
        let restored = project.build(&["--from=tar-zstd", "--foreground"]).expect_code(0);
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

/// Bytes of the log that is reviewed by itself.
const LOG: usize = 400 << 20;

/// A large log's review.
fn logs() {
    println!("| log | bytes | seconds | throughput | peak memory of isokiln |");
    println!("| --- | --- | --- | --- | --- |");
    let project = Project::tiny("");
    let good = repository().join("tests/fixtures/logs/good/live-build.log");
    let text = fs::read(&good).unwrap_or_else(|error| panic!("{}: {error}", good.display()));
    let mut log = fs::File::create(project.path("log")).expect("a file");
    let mut bytes = 0;
    while bytes < LOG {
        log.write_all(&text).expect("room for the log");
        bytes += text.len();
    }
    let mut rates = Vec::new();
    for _ in 0..TURNS {
        let reviewed = project.isokiln(&["review", "log", "--no-agents"]).expect_code(0);
        let seconds = reviewed.time.as_secs_f64();
        let rate = bytes as f64 / seconds / 1e6;
        let memory = reviewed.peak_memory >> 20;
        println!("| live-build's, repeated | {bytes} | {seconds:.2} | {rate:.0} MB/s | {memory} MiB |");
        rates.push(rate);
    }
    println!("| median | | | {:.0} MB/s | |\n", median(rates));
}

/// Builds with reviews in turns with builds without.
fn reviews() {
    println!("| pipelines/minimal.toml from its first stage | with reviews | without | ratio |");
    println!("| --- | --- | --- | --- |");
    let pipeline = fs::read_to_string(repository().join("pipelines/minimal.toml")).expect("minimal.toml");
    let project = Project::new(&pipeline);
    project.write("quiet.toml", format!("review = \"off\"\n{pipeline}"));
    project.build(&[]).expect_code(0);
    let timed = |file: &str| {
        project.isokiln(&["build", file, "--no-test", "--from", "base"]).expect_code(0);
        project.record()["seconds"].as_f64().expect("seconds")
    };
    let mut ratios = Vec::new();
    for turn in 0..TURNS * 2 {
        // Whoever is first in a turn is second in the next.
        let (with, without) = if turn % 2 == 0 {
            let with = timed("pipeline.toml");
            (with, timed("quiet.toml"))
        } else {
            let without = timed("quiet.toml");
            (timed("pipeline.toml"), without)
        };
        println!("| build | {with:.1} | {without:.1} | {:.3} |", with / without);
        ratios.push(with / without);
    }
    println!("| median | | | {:.3} |\n", median(ratios));
}

/// Boots under test, in turns with the same machine that nobody watches.
struct Boots {
    /// Case of the corpus.
    case: &'static str,
    profiles: &'static [&'static str],
    options: &'static [&'static str],
    turns: usize,
    /// Makes the script that starts the machine one that does by itself what the checks wait for.
    alone: fn(&str) -> String,
    /// Whether a line of the serial port says that it is done.
    is_done: fn(&str) -> bool,
}

/// The corpus' `trixie` until systemd has reached what the check of the boot asks for.
fn boots() {
    time(&Boots {
        case: "trixie",
        profiles: &["bios-cd", "uefi-cd"],
        options: &["--check=boot"],
        turns: BOOT_TURNS,
        alone: str::to_owned,
        is_done: |line| line.contains("multi-user.target") && line.contains("Reached target"),
    });
}

/// The desktop edition until the last of its checks has been answered; by itself, the guest runs the same checks.
fn desktop() {
    time(&Boots {
        case: "ailinux",
        profiles: &["bios-cd"],
        options: &[
            "--memory=4GiB",
            "--check=boot",
            "--check=no-failed-units",
            "--check=network-manager",
            "--check=wlan",
            "--check=calamares",
        ],
        turns: TURNS,
        alone: checks_itself,
        is_done: |line| line.contains("checked by itself: 0"),
    });
}

fn time(boots: &Boots) {
    let table = Table::of_repository().expect("the corpus");
    let workshop = Workshop::open(&table, &repository().join("target/corpus")).expect("a folder");
    let iso = workshop.iso(table.case(boots.case).expect("the case")).expect("the ISO");
    println!("| boot | by itself | verdict | ratio | whole command |");
    println!("| --- | --- | --- | --- | --- |");
    for profile in boots.profiles {
        let project = Project::tiny("");
        let path = iso.to_str().expect("UTF-8");
        let test = || {
            let arguments = [&["test", path, "--profile", profile], boots.options].concat();
            let tested = project.isokiln(&arguments).expect_code(0);
            let run = project.runs().into_iter().max().expect("a run");
            let folder = project.home().join("runs").join(run).join("boot").join(boots.case).join(profile);
            (tested.time.as_secs_f64(), folder)
        };
        // The first finds out what the machine can do, and leaves the script.
        let (_, folder) = test();
        let script = (boots.alone)(&by_itself(&folder));
        let alone = || time_by_itself(&script, &iso, boots.is_done);
        let (mut alones, mut verdicts, mut commands) = (vec![], vec![], vec![]);
        for turn in 0..boots.turns {
            let alone_first = (turn % 2 == 0).then(alone);
            let (command, folder) = test();
            let alone = alone_first.unwrap_or_else(alone);
            let text = fs::read_to_string(folder.join("report.json")).expect("a report");
            let report: Value = serde_json::from_str(&text).expect("JSON");
            let checks = report["checks"].as_array().expect("checks").iter();
            let verdict = checks.filter_map(|check| check["seconds"].as_f64()).fold(0.0, f64::max);
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
    replaced(&script, "\nexec qemu-system", "\necho QEMU starts\nexec qemu-system")
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "there is no {from:?} in the script");
    changed
}

/// The unit that stands in for the probe's: its script comes by fw_cfg, since SMBIOS strings are small.
const ALONE: &str = "[Unit]\nDefaultDependencies=no\nAfter=systemd-udevd.service\n\
    ConditionPathExists=!/etc/initrd-release\n[Service]\nStandardOutput=null\n\
    ExecStart=/bin/sh -c 'modprobe qemu_fw_cfg; exec sh /sys/firmware/qemu_fw_cfg/by_name/opt/org.isokiln/checks/raw'\n";

/// Has the guest ask itself what the desktop's checks ask, as often as it likes, and say on the serial port when the last
/// has been answered.
fn checks_itself(script: &str) -> String {
    let source =
        |path: &str| fs::read_to_string(repository().join(path)).expect("a source of the repository");
    let data = |name: &str| {
        let check: toml::Table = source(&format!("qemu/checks/{name}.toml")).parse().expect("a check");
        check["script"].as_str().expect("a script").to_owned()
    };
    let connected = "nmcli --terse --fields STATE device | grep -qx connected || exit 2\n";
    let checks = [
        "timeout 600 systemctl is-system-running --wait\n".to_owned(),
        data("no-failed-units"),
        connected.to_owned(),
        source("qemu/probe/wlan.sh"),
        source("qemu/probe/graphical.sh") + &data("calamares"),
    ];
    let mut work = "mkdir -p /run/isokiln-probe\ncd /run/isokiln-probe\n".to_owned();
    for check in &checks {
        work += &format!("cat >check <<'END-OF-CHECK'\n{check}END-OF-CHECK\n");
        work += "while sh check >said 2>&1; status=$?; [ $status = 2 ]; do sleep 1; done\n";
        work +=
            "[ $status = 0 ] || { cat check said; echo \"checked by itself: $status\"; exit; } >/dev/ttyS0\n";
    }
    work += "echo \"checked by itself: 0\" >/dev/ttyS0\n";

    let unit = "systemd.extra-unit.isokiln-probe.service=";
    let (before, behind) = script.split_once(unit).expect("the probe's unit");
    let (_, behind) = behind.split_once('\'').expect("the end of an argument");
    let script = format!("{before}{unit}{}'{behind}", STANDARD.encode(ALONE));
    let carried = format!("\necho {} | base64 -d >/tmp/machine/checks\necho QEMU", STANDARD.encode(work));
    let script = replaced(&script, "\necho QEMU", &carried);
    let option = "  -fw_cfg name=opt/org.isokiln/checks,file=/tmp/machine/checks \\\n  $vnc";
    replaced(&script, "  $vnc", option)
}

/// Seconds from QEMU's start until the serial port says that it is done.
fn time_by_itself(script: &str, iso: &Path, is_done: fn(&str) -> bool) -> f64 {
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
        if seconds.is_none() && is_done(&line) {
            seconds = start.map(|start: Instant| start.elapsed().as_secs_f64());
            // Ctrl-A X ends QEMU, and with it the output.
            std::io::Write::write_all(&mut stdin, b"\x01x").expect("QEMU listens");
        }
        assert!(seconds.is_some() || !line.contains("checked by itself"), "a check does not hold: {line}");
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
