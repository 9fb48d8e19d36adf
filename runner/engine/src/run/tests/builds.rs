//! Builds in which everything goes well: what runs, what hits, what is stored and told.

use bytes::Bytes;
use isokiln_core::event::Usage;
use serde_json::Value;

use super::bench::{Bench, ISO, branch, leaves, script};
use super::fake::{Act, Point};
use crate::run::{BuildOptions, RunError};
use crate::sandbox::{Saying, StageOutput, Tree};

fn two_scripts() -> String {
    script("desktop", "install desktop") + &script("tweaks", "echo one")
}

#[tokio::test]
async fn stages_run_in_order_and_each_becomes_a_checkpoint() {
    let bench = Bench::new(&two_scripts());
    let finished = bench.build_well().await;
    assert_eq!(finished.ran(), ["base", "desktop", "tweaks"]);
    assert_eq!(finished.subjects(Point::Adopt), ["base", "desktop", "tweaks"]);
    assert_eq!(finished.calls.last().unwrap().0, Point::Destroy);
    let layers = bench.layers();
    assert_eq!(layers["base"], layers["tweaks"][..1]);
    assert_eq!(layers["desktop"], layers["tweaks"][..2]);
    assert_eq!(layers["tweaks"].len(), 3);
    assert_eq!(finished.result.as_ref().unwrap().script_seconds, 3.0);
    // Nothing changed: there was nothing before.
    for stage in ["base", "desktop", "tweaks"] {
        assert_eq!(finished.changed(stage).unwrap(), [""; 0], "{stage}");
    }
    bench.assert_store_is_whole();
}

#[tokio::test]
async fn a_second_build_hits_everything_and_starts_nothing() {
    let bench = Bench::new(&(two_scripts() + ISO));
    bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
    let first = bench.build_well().await;
    assert_eq!(first.ran(), ["base", "desktop", "tweaks", "iso"]);
    // Not even the volume is needed.
    bench.sandbox.lose_volume();
    let second = bench.build_well().await;
    assert_eq!(second.calls, [(Point::Destroy, String::new())]);
    assert_eq!(second.hits(), ["base", "desktop", "tweaks", "iso"]);
    let delivered = second.folder.join("artifacts/demo.iso");
    assert_eq!(std::fs::read_to_string(&delivered).unwrap(), "an iso");
    assert_eq!(second.result.unwrap().artifacts, [delivered]);
}

#[tokio::test]
async fn a_changed_script_runs_its_stage_and_those_that_start_from_it() {
    let mut bench = Bench::new(&two_scripts());
    bench.build_well().await;
    bench.edit(&(script("desktop", "install another") + &script("tweaks", "echo one")));
    let second = bench.build_well().await;
    assert_eq!((second.hits(), second.ran()), (vec!["base"], vec!["desktop", "tweaks"]));
    assert_eq!(second.changed("desktop").unwrap(), ["option run"]);
    assert_eq!(second.changed("tweaks").unwrap(), ["parent"]);
    let layers = bench.layers();
    assert_eq!(layers["tweaks"][..2], layers["desktop"]);
    // Both versions are kept: going back runs nothing.
    bench.edit(&two_scripts());
    assert_eq!(bench.build_well().await.ran(), [""; 0]);
}

#[tokio::test]
async fn a_change_in_two_stages_names_what_changed_in_each() {
    let mut bench = Bench::new(&two_scripts());
    bench.build_well().await;
    bench.edit(&(script("desktop", "install another") + &script("tweaks", "echo two")));
    let second = bench.build_well().await;
    assert_eq!(second.changed("desktop").unwrap(), ["option run"]);
    assert_eq!(second.changed("tweaks").unwrap(), ["option run", "parent"]);
}

#[tokio::test]
async fn a_stage_that_comes_out_as_before_cuts_off_what_follows() {
    let mut bench = Bench::new(&two_scripts());
    let act = || Act { writes: Some("the same".to_owned()), ..Act::default() };
    bench.sandbox.act("desktop", act());
    bench.build_well().await;
    let before = bench.layers();
    bench.edit(&(script("desktop", "# a comment\ninstall desktop") + &script("tweaks", "echo one")));
    let second = bench.build_well().await;
    assert_eq!((second.hits(), second.ran()), (vec!["base", "tweaks"], vec!["desktop"]));
    assert_eq!(bench.layers(), before);
    assert_eq!(bench.build_well().await.ran(), [""; 0]);
}

#[tokio::test]
async fn layers_that_the_engine_has_lost_are_brought_back_bottom_first() {
    let mut bench = Bench::new(&two_scripts());
    bench.build_well().await;
    let layers = bench.layers();
    bench.sandbox.lose_volume();
    bench.edit(&(script("desktop", "install desktop") + &script("tweaks", "echo two")));
    let second = bench.build_well().await;
    let wanted: Vec<_> = layers["desktop"].iter().map(|layer| layer.0.short()).collect();
    assert_eq!(second.subjects(Point::Restore), wanted);
    assert_eq!(second.subjects(Point::Settle), wanted);
    let trees: Vec<_> = layers["desktop"].iter().map(|layer| Tree::Layer(*layer)).collect();
    assert_eq!(bench.sandbox.specs()[0].trees, trees);
    // They are there now.
    bench.edit(&(script("desktop", "install desktop") + &script("tweaks", "echo three")));
    assert_eq!(bench.build_well().await.count(Point::Restore), 0);
}

#[tokio::test]
async fn until_stops_after_a_stage_and_leaves_out_other_branches() {
    let mut bench = Bench::new(&(two_scripts() + &branch("server", "base", "install server")));
    bench.options.until = Some("desktop".parse().unwrap());
    assert_eq!(bench.build_well().await.ran(), ["base", "desktop"]);
    bench.options.until = Some("server".parse().unwrap());
    assert_eq!(bench.build_well().await.ran(), ["server"]);
    assert_eq!(bench.stored(), ["base", "desktop", "server"]);
}

#[tokio::test]
async fn from_runs_a_stage_and_its_descendants_though_nothing_changed() {
    let mut bench = Bench::new(&(two_scripts() + &branch("server", "base", "install server")));
    bench.build_well().await;
    let before = bench.layers();
    bench.options.from = Some("desktop".parse().unwrap());
    let second = bench.build_well().await;
    assert_eq!(second.ran(), ["desktop", "tweaks"]);
    let mut hits = second.hits();
    hits.sort_unstable();
    assert_eq!(hits, ["base", "server"]);
    assert_eq!(bench.layers(), before);
    assert_eq!(bench.store().checkpoints().unwrap().len(), 4, "the same key is there once");
}

#[tokio::test]
async fn an_unknown_stage_is_refused_with_the_nearest_name() {
    let typo = || Some("destkop".parse().unwrap());
    let until = BuildOptions { until: typo(), ..BuildOptions::default() };
    let from = BuildOptions { from: typo(), ..BuildOptions::default() };
    for options in [until, from] {
        let mut bench = Bench::new(&two_scripts());
        bench.options = options;
        let finished = bench.build().await;
        assert_eq!((finished.error().exit_code(), finished.count(Point::RunStage)), (2, 0));
        assert!(matches!(
            finished.error(),
            RunError::NoSuchStage { meant: Some(meant), .. } if meant == "desktop"
        ));
    }
}

#[tokio::test]
async fn a_stage_gets_its_script_its_parents_tree_and_its_limits() {
    let bench = Bench::new(
        "[[stage]]\nname = \"desktop\"\nrun = \"echo it\"\nnetwork = true\nlimits = { time = \"90s\" }\n",
    );
    bench.build_well().await;
    let specs = bench.sandbox.specs();
    assert_eq!(specs[0].trees, []);
    assert_eq!(specs[1].trees, [Tree::Work("base".parse().unwrap())]);
    assert!(specs[1].network);
    assert_eq!(specs[1].limits.time.as_secs(), 90);
    assert_eq!(specs[1].environment["STAGE"], "desktop");
    let shared = "stages that pipelines can share are not told the pipeline";
    assert!(!specs[1].environment.contains_key("PIPELINE"), "{shared}");
    let options = specs[1].files.iter().find(|file| file.path == "/isokiln/options.json").unwrap();
    assert_eq!(options.bytes, r#"{"run":"echo it"}"#);
    assert!(specs[1].files.iter().any(|file| file.path == "/isokiln/kind/run.sh"));
}

#[tokio::test]
async fn a_stage_that_only_reads_adds_no_layer() {
    let bench = Bench::new(&(ISO.to_owned() + &script("after", "true")));
    bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
    let finished = bench.build_well().await;
    assert_eq!(finished.subjects(Point::Capture), ["base", "after"]);
    let layers = bench.layers();
    assert_eq!(layers["iso"], layers["base"]);
    assert_eq!(layers["after"].len(), 2);
    let after = bench.sandbox.specs().pop().unwrap();
    assert_eq!(after.trees, [Tree::Layer(layers["base"][0])]);
}

#[tokio::test]
async fn the_log_has_every_byte_and_the_watcher_every_line() {
    let bench = Bench::new("");
    let pieces: [&[u8]; 3] = [b"hello\nwor", b"ld\n\xff\x00", b"end"];
    let mut output: Vec<_> = pieces.iter().map(|bytes| StageOutput::Log(Bytes::from_static(bytes))).collect();
    output.insert(1, StageOutput::Said(Saying::Progress("unpacking".to_owned())));
    output.push(StageOutput::Said(Saying::Note("by the way".to_owned())));
    output.push(StageOutput::Said(Saying::Warning("got over it".to_owned())));
    output.push(StageOutput::Usage(Usage { memory_peak: 7, ..Usage::default() }));
    bench.sandbox.act("base", Act { output, ..Act::default() });
    let finished = bench.build_well().await;
    assert_eq!(std::fs::read(finished.folder.join("stages/base/log")).unwrap(), pieces.concat());
    let told = names(&serde_json::to_string(&finished.events).unwrap());
    let wanted = [
        "stage-started",
        "stage-line",
        "stage-progress",
        "stage-line",
        "note",
        "warning",
        "stage-usage",
        "stage-finished",
        "layer-stored",
        "checkpoint-stored",
    ];
    assert_eq!(told, wanted);
    // What was used when last counted, and what was used in all.
    let used = |name: &str| {
        let events = serde_json::to_value(&finished.events).unwrap();
        let event = events.as_array().unwrap().iter().find(|event| event["event"] == name).unwrap().clone();
        event["usage"]["memory_peak"].as_u64().unwrap()
    };
    assert_eq!((used("stage-finished"), used("checkpoint-stored")), (7, 42));
    assert_eq!(finished.reviewed(), ["base clean"]);
}

#[tokio::test]
async fn the_record_has_what_the_watcher_saw_but_lines_and_usage() {
    let mut bench = Bench::new(&(script("desktop", "one") + ISO));
    bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
    let output =
        vec![StageOutput::Log(Bytes::from_static(b"a line\n")), StageOutput::Usage(Usage::default())];
    bench.sandbox.act("desktop", Act { output, ..Act::default() });
    bench.build_well().await;
    bench.edit(&(script("desktop", "two") + ISO));
    bench.sandbox.lose_volume();
    let finished = bench.build_well().await;
    let record = std::fs::read_to_string(finished.folder.join("events.jsonl")).unwrap();
    let mut lines: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let times: Vec<_> = lines.iter().map(|line| line["time"].as_str().unwrap().to_owned()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    lines.retain(|line| line["event"] != "stage-reviewed");
    let recorded: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let wanted = [
        "room-estimated",
        "stage-hit",
        "working",
        "layer-restored",
        "stage-started",
        "stage-finished",
        "layer-stored",
        "checkpoint-stored",
        "stage-started",
        "stage-finished",
        "checkpoint-stored",
        "artifact",
    ];
    assert_eq!(recorded, wanted);
    let mut seen = names(&serde_json::to_string(&finished.events).unwrap());
    seen.retain(|name| name != "stage-line" && name != "stage-usage");
    assert_eq!(seen, wanted);
    assert_eq!(finished.reviewed(), ["desktop clean", "iso clean"]);
    assert_eq!(lines[11]["path"], finished.folder.join("artifacts/demo.iso").display().to_string());
    assert_eq!(lines[11]["size"], 6);
}

/// Names of the events of a JSON list, without those of reviews, which come when they come.
fn names(events: &str) -> Vec<String> {
    let events: Vec<Value> = serde_json::from_str(events).unwrap();
    let names = events.iter().map(|event| event["event"].as_str().unwrap().to_owned());
    names.filter(|name| name != "stage-reviewed").collect()
}
