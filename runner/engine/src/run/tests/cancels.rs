//! Builds that the user stops: before, between and during stages.

use isokiln_core::event::Event;
use tokio::sync::watch;

use super::bench::{Bench, Finished, branch, script};
use super::fake::{Act, Point};
use crate::run::RunError;
use crate::sandbox::Cancel;

fn bench() -> Bench {
    Bench::new(&(script("desktop", "install desktop") + &script("tweaks", "echo one")))
}

#[track_caller]
fn assert_cancelled(finished: &Finished) {
    assert!(matches!(finished.error(), RunError::Cancelled), "{:?}", finished.result);
    assert_eq!(finished.error().exit_code(), 130);
    assert_eq!(finished.calls.last().unwrap().0, Point::Destroy);
    assert!(!finished.events.iter().any(|event| matches!(event, Event::StageFailed { .. })));
}

/// The user changes their mind and builds again.
async fn build_again(bench: &Bench) -> Finished {
    bench.assert_store_is_whole();
    bench.cancel.send_replace(Cancel::No);
    bench.sandbox.recover();
    bench.build_well().await
}

#[tokio::test]
async fn a_wish_from_before_the_build_starts_nothing() {
    for wish in [Cancel::Gracefully, Cancel::Now] {
        let bench = bench();
        bench.cancel.send_replace(wish);
        let finished = bench.build().await;
        assert_cancelled(&finished);
        assert_eq!(finished.calls.len(), 1, "{:?}", finished.calls);
    }
}

#[tokio::test]
async fn a_graceful_wish_lets_the_running_stage_finish_and_saves_it() {
    let bench = bench();
    bench.sandbox.hold(Point::RunStage, "desktop");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.cancel.send_replace(Cancel::Gracefully);
        bench.sandbox.let_go(Point::RunStage, "desktop");
    });
    assert_cancelled(&finished);
    assert_eq!(finished.ran(), ["base", "desktop"]);
    assert_eq!(bench.stored(), ["base", "desktop"]);
    assert_eq!(build_again(&bench).await.ran(), ["tweaks"]);
}

#[tokio::test]
async fn an_urgent_wish_stops_the_running_stage_and_keeps_those_before_it() {
    let bench = bench();
    bench.sandbox.hold(Point::RunStage, "desktop");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.cancel.send_replace(Cancel::Now);
    });
    assert_cancelled(&finished);
    assert_eq!(finished.count(Point::Dismissed), 2, "the container of the stopped stage is gone");
    assert_eq!(bench.stored(), ["base"]);
    assert_eq!(build_again(&bench).await.ran(), ["desktop", "tweaks"]);
}

#[tokio::test]
async fn a_graceful_wish_can_become_urgent() {
    let bench = bench();
    bench.sandbox.hold(Point::RunStage, "desktop");
    bench.sandbox.hold(Point::Adopt, "base");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.cancel.send_replace(Cancel::Gracefully);
        // The build goes on working on both, which gives it time to hear of the first wish alone.
        bench.sandbox.let_go(Point::Adopt, "base");
        bench.seen.stored("base").await;
        bench.cancel.send_replace(Cancel::Now);
    });
    assert_cancelled(&finished);
    assert_eq!(bench.stored(), ["base"]);
}

#[tokio::test]
async fn a_wish_while_the_last_stage_runs_has_nothing_left_to_stop() {
    let bench = bench();
    bench.sandbox.hold(Point::RunStage, "tweaks");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "tweaks").await;
        bench.cancel.send_replace(Cancel::Gracefully);
        bench.sandbox.let_go(Point::RunStage, "tweaks");
    });
    assert!(finished.result.is_ok());
    assert_eq!(bench.stored(), ["base", "desktop", "tweaks"]);
}

#[tokio::test]
async fn what_has_run_is_saved_though_the_wish_is_urgent() {
    for (point, subject) in [(Point::Capture, "base"), (Point::Captured, "base"), (Point::Adopt, "base")] {
        let bench = bench();
        bench.sandbox.hold(point, subject);
        bench.sandbox.hold(Point::RunStage, "desktop");
        let (finished, ()) = tokio::join!(bench.build(), async {
            bench.sandbox.reached(point, subject).await;
            bench.sandbox.reached(Point::RunStage, "desktop").await;
            bench.cancel.send_replace(Cancel::Now);
            bench.sandbox.reached(Point::Dismissed, "desktop").await;
            bench.sandbox.let_go(point, subject);
        });
        assert_cancelled(&finished);
        assert_eq!(bench.stored(), ["base"], "{point:?}");
        assert_eq!(build_again(&bench).await.ran(), ["desktop", "tweaks"]);
    }
}

#[tokio::test]
async fn a_wish_between_two_stages_starts_no_other() {
    for wish in [Cancel::Gracefully, Cancel::Now] {
        let mut bench = bench();
        bench.sandbox.act("desktop", Act { writes: Some("the same".to_owned()), ..Act::default() });
        bench.build_well().await;
        // `tweaks` waits for what comes of `desktop`, because it may be a hit.
        bench.edit(&(script("desktop", "install another") + &script("tweaks", "echo one")));
        bench.sandbox.act("desktop", Act { writes: Some("another".to_owned()), ..Act::default() });
        bench.sandbox.hold(Point::Adopt, "desktop");
        let (finished, ()) = tokio::join!(bench.build(), async {
            bench.sandbox.reached(Point::Adopt, "desktop").await;
            bench.cancel.send_replace(wish);
            bench.sandbox.let_go(Point::Adopt, "desktop");
        });
        assert_cancelled(&finished);
        assert_eq!(finished.ran(), ["desktop"]);
        assert_eq!(build_again(&bench).await.ran(), ["tweaks"]);
    }
}

#[tokio::test]
async fn a_stage_that_waits_for_a_slot_is_not_started_after_a_wish() {
    let bench = Bench::new(&(branch("desktop", "base", "one") + &branch("server", "base", "two")));
    bench.sandbox.hold(Point::RunStage, "desktop");
    bench.sandbox.hold(Point::RunStage, "server");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.first_run("desktop", "server").await;
        bench.cancel.send_replace(Cancel::Gracefully);
        bench.sandbox.let_go(Point::RunStage, "desktop");
        bench.sandbox.let_go(Point::RunStage, "server");
    });
    assert_cancelled(&finished);
    assert_eq!(finished.ran().len(), 2, "{:?}", finished.ran());
    assert_eq!(bench.stored().len(), 2);
}

#[tokio::test]
async fn a_build_goes_on_though_nobody_can_wish_any_more() {
    let bench = bench();
    bench.sandbox.hold(Point::RunStage, "desktop");
    let cancel = watch::Sender::new(Cancel::No);
    let build = bench.build_with(cancel.subscribe());
    let (finished, ()) = tokio::join!(build, async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        drop(cancel);
        bench.sandbox.let_go(Point::RunStage, "desktop");
    });
    assert!(finished.result.is_ok());
    assert_eq!(bench.stored(), ["base", "desktop", "tweaks"]);
}
