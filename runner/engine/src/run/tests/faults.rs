//! Builds in which something fails: what is told, what is kept, and that the next build goes on from there.

use std::error::Error;

use bytes::Bytes;
use isokiln_core::event::Event;
use isokiln_core::review::Room;

use super::bench::{Bench, Finished, ISO, chain, leaves, script};
use super::fake::{Act, Point};
use crate::run::RunError;
use crate::sandbox::{SandboxError, Saying, StageExit, StageOutput};

fn stages(tweak: &str) -> String {
    script("desktop", "install desktop") + &script("tweaks", tweak) + ISO
}

/// Two builds of the same project, the engine's volume lost and `tweaks` changed between them, so that the
/// second one does everything that a build can do.
async fn bench_before_second_build() -> Bench {
    let mut bench = Bench::new(&stages("echo one"));
    bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
    bench.build_well().await;
    bench.sandbox.lose_volume();
    bench.edit(&stages("echo two"));
    bench
}

fn act(exit: StageExit) -> Act {
    Act { exit, ..Act::default() }
}

#[tokio::test]
async fn a_failing_stage_ends_the_build_and_the_next_one_goes_on_from_there() {
    let bench = Bench::new(&stages("echo one"));
    bench.sandbox.act("tweaks", act(StageExit::Status(7)));
    let failed = bench.build().await;
    assert_eq!(failed.error().exit_code(), 1);
    assert_eq!(failed.error().to_string(), "stage tweaks failed: it ended with status 7");
    assert_eq!(failed.ran(), ["base", "desktop", "tweaks"]);
    assert_eq!(failed.calls.last().unwrap().0, Point::Destroy);
    assert_eq!(bench.stored(), ["base", "desktop"]);
    bench.assert_store_is_whole();
    bench.sandbox.recover();
    let next = bench.build_well().await;
    assert_eq!((next.hits(), next.ran()), (vec!["base", "desktop"], vec!["tweaks", "iso"]));
}

#[tokio::test]
async fn a_failed_stage_shows_the_end_of_its_log() {
    let bench = Bench::new(&script("desktop", "install desktop"));
    let output = vec![
        StageOutput::Log(Bytes::from_static(b"one\ntwo\nE: no")),
        StageOutput::Said(Saying::Failed { cause: "no such package".into(), hint: "correct it".into() }),
        StageOutput::Said(Saying::Failed { cause: "something after it".into(), hint: String::new() }),
    ];
    bench.sandbox.act("desktop", Act { output, ..act(StageExit::Status(1)) });
    let failed = bench.build().await;
    assert_eq!(failed.error().to_string(), "stage desktop failed: no such package");
    assert_eq!(failed.error().hint().unwrap(), "correct it");
    let Some(Event::StageFailed { stage, cause, hint, log, tail }) =
        failed.events.iter().rev().find(is_failure)
    else {
        panic!("{:?}", failed.events)
    };
    assert_eq!(
        (stage.as_str(), cause.as_str(), hint.as_deref()),
        ("desktop", "no such package", Some("correct it"))
    );
    assert_eq!(tail, &["one", "two", "E: no"]);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "one\ntwo\nE: no");
}

fn is_failure(event: &&Event) -> bool {
    matches!(event, Event::StageFailed { .. })
}

#[tokio::test]
async fn each_way_to_end_has_its_own_words() {
    let full = Act {
        rooms: vec![Room { what: "the engine's disk".into(), bytes: 1, inodes: 1 }],
        ..act(StageExit::Status(1))
    };
    for (act, words) in [
        (act(StageExit::Status(3)), "it ended with status 3"),
        (act(StageExit::TimedOut), "it took longer than its limit of 1m 30s"),
        (act(StageExit::OutOfMemory), "it needed more memory than its limit of 1.0 GiB"),
        (act(StageExit::Lost), "its container was killed from outside"),
        (full, "the engine's disk is full (1 B and 1 inodes are left)"),
    ] {
        let limits = "limits = { time = \"90s\", memory = \"1GiB\" }\n";
        let bench = Bench::new(&(script("desktop", "install desktop") + limits));
        bench.sandbox.act("desktop", act);
        let failed = bench.build().await;
        assert_eq!(failed.error().to_string(), format!("stage desktop failed: {words}"));
        assert_eq!(failed.error().exit_code(), 1, "{words}");
        assert!(failed.error().hint().is_some(), "{words}");
        assert_eq!(failed.events.iter().filter(is_failure).count(), 1, "{words}");
        assert_eq!(bench.stored(), ["base"], "{words}");
    }
}

#[tokio::test]
async fn whatever_the_sandbox_cannot_do_is_told_and_got_over_by_the_next_build() {
    for point in Point::ALL {
        let bench = bench_before_second_build().await;
        bench.sandbox.fail(point, 1);
        let failed = bench.build().await;
        let words = match point {
            Point::Prepare => "the engine cannot move layers",
            Point::KeepOnly | Point::Destroy => "the engine could not be tidied up",
            Point::Restore | Point::Restored | Point::Settle => {
                "the layers for stage tweaks cannot be unpacked"
            }
            Point::RunStage => "stage tweaks could not be run",
            Point::Dismissed => "stage tweaks could not be ended",
            Point::Capture | Point::Captured => "what stage tweaks changed cannot be captured",
            Point::Adopt => "what stage tweaks changed cannot be kept in the engine",
            Point::Artifact | Point::Fetched => "the artifacts of stage iso cannot be stored",
            Point::PrepareLayer | Point::Again => unreachable!("a failure that ends no build"),
        };
        assert_eq!(chain(failed.error()), format!("{words}: {point:?} failed in the engine: made to fail"));
        assert_eq!(failed.error().exit_code(), 3, "{point:?}");
        assert_eq!(failed.count(Point::Destroy), 1, "{point:?}");
        assert_eq!(failed.calls.last().unwrap().0, Point::Destroy, "{point:?}");
        assert_eq!(failed.events.iter().filter(is_failure).count(), 0, "{point:?}: no script is to blame");
        bench.assert_store_is_whole();
        let tweaks_stored = matches!(point, Point::Artifact | Point::Fetched | Point::Destroy);
        let iso_stored = point == Point::Destroy;

        bench.sandbox.recover();
        bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
        let next = bench.build_well().await;
        let mut missing = Vec::new();
        missing.extend((!tweaks_stored).then_some("tweaks"));
        missing.extend((!iso_stored).then_some("iso"));
        assert_eq!(next.ran(), missing, "{point:?}");
        assert_eq!(next.result.as_ref().unwrap().artifacts, [next.folder.join("artifacts/demo.iso")]);
        bench.assert_store_is_whole();
    }
}

#[tokio::test]
async fn a_full_disk_in_the_engine_comes_with_a_hint() {
    let bench = bench_before_second_build().await;
    let reason = "tar: cannot write: No space left on device".to_owned();
    bench.sandbox.fail_with(Point::Restored, 1, SandboxError::Helper { what: "tar".to_owned(), reason });
    let finished = bench.build().await;
    let error = finished.error();
    assert!(error.to_string().contains("cannot go on: the engine's disk is full ("), "{}", chain(error));
    assert!(error.hint().unwrap().contains("isokiln clean frees"), "{:?}", error.hint());
    assert_eq!(error.exit_code(), 3);
}

#[tokio::test]
async fn a_capture_that_breaks_off_is_explained_by_the_helper_if_it_failed() {
    for helper_fails in [true, false] {
        let bench = Bench::new(&script("desktop", "install desktop"));
        bench.sandbox.act("desktop", Act { cut_short: true, ..Act::default() });
        if helper_fails {
            bench.sandbox.fail(Point::Captured, 2);
        }
        let failed = bench.build().await;
        let reason = if helper_fails {
            "Captured failed in the engine: made to fail"
        } else {
            "the layer is cut short"
        };
        assert_eq!(chain(failed.error()), format!("what stage desktop changed cannot be captured: {reason}"));
        assert_eq!(bench.stored(), ["base"]);
        bench.assert_store_is_whole();
    }
}

#[tokio::test]
async fn a_layer_that_did_not_arrive_whole_is_not_settled() {
    for helper_fails in [true, false] {
        let bench = bench_before_second_build().await;
        bench.sandbox.stop_reading();
        if helper_fails {
            bench.sandbox.fail(Point::Restored, 1);
        }
        let failed = bench.build().await;
        let reason = match helper_fails {
            true => "Restored failed in the engine: made to fail",
            false => "cannot write the layer: broken pipe",
        };
        let words = format!("the layers for stage tweaks cannot be unpacked: {reason}");
        assert_eq!(chain(failed.error()), words);
        assert_eq!((failed.count(Point::Settle), failed.count(Point::RunStage)), (0, 0));
    }
}

#[tokio::test]
async fn the_first_error_counts_and_one_of_the_cleaning_up_is_a_warning() {
    let bench = Bench::new(&script("desktop", "install desktop"));
    bench.sandbox.act("desktop", act(StageExit::Status(1)));
    bench.sandbox.fail(Point::Destroy, 1);
    let failed = bench.build().await;
    assert!(matches!(failed.error(), RunError::Stage { .. }));
    let words = "the engine could not be tidied up: Destroy failed in the engine: made to fail";
    assert_eq!(failed.warnings(), [words]);
}

#[tokio::test]
async fn a_parent_that_cannot_be_saved_is_the_error_though_its_child_already_runs() {
    let bench = Bench::new(&script("desktop", "install desktop"));
    bench.sandbox.hold(Point::RunStage, "desktop");
    bench.sandbox.hold(Point::Adopt, "base");
    bench.sandbox.fail(Point::Adopt, 1);
    let (failed, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.sandbox.let_go(Point::Adopt, "base");
        // The child is never let go: it is stopped.
    });
    assert_eq!(failed.error().to_string(), "what stage base changed cannot be kept in the engine");
    assert_eq!(failed.count(Point::Capture), 1);
    assert_eq!(bench.stored(), [""; 0]);
}

#[tokio::test]
async fn a_child_that_fails_leaves_its_parent_time_to_be_saved() {
    let bench = Bench::new(&script("desktop", "install desktop"));
    bench.sandbox.act("desktop", act(StageExit::Status(1)));
    bench.sandbox.hold(Point::Adopt, "base");
    let (failed, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.sandbox.reached(Point::Adopt, "base").await;
        bench.sandbox.let_go(Point::Adopt, "base");
    });
    assert_eq!(failed.error().exit_code(), 1);
    assert_eq!(bench.stored(), ["base"]);
}

#[tokio::test]
async fn a_disk_that_fills_up_at_any_moment_costs_only_what_was_not_stored() {
    let mut failures = 0;
    for room in 0.. {
        let mut bench = Bench::new(&(script("desktop", "install desktop") + ISO));
        bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
        bench.room = room;
        let failed = bench.build().await;
        let Err(error) = &failed.result else { break };
        failures += 1;
        assert_eq!(error.exit_code(), 3, "room {room}: {}", chain(error));
        let told = format!("{error} {}", error.hint().unwrap());
        assert!(
            told.contains("disk is full") && told.contains("isokiln gc"),
            "room {room}: {}",
            chain(error)
        );
        assert!(error.source().is_some(), "room {room}");
        bench.assert_store_is_whole();
        let stored = bench.stored();
        bench.room = usize::MAX;
        assert_runs_what_is_missing(&bench.build_well().await, &stored, &["base", "desktop", "iso"]);
        bench.assert_store_is_whole();
    }
    assert!(failures > 20, "each stage makes several files: {failures}");
}

#[track_caller]
fn assert_runs_what_is_missing(next: &Finished, stored: &[String], all: &[&str]) {
    let missing: Vec<_> = all.iter().copied().filter(|stage| !stored.iter().any(|it| it == stage)).collect();
    assert_eq!(next.ran(), missing);
}
