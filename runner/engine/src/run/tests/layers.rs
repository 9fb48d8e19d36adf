//! Kinds that prepare layers, of which `iso` is one.

use isokiln_core::digest::DiffId;

use super::bench::{Bench, ISO, chain, leaves, script};
use super::fake::Point;
use crate::sandbox::{Cancel, Tree};

fn bench() -> Bench {
    let bench = Bench::new(&(script("tools", "one") + &script("tweaks", "two") + ISO));
    bench.sandbox.act("iso", leaves("demo.iso", "an ISO"));
    bench
}

/// The identity that the lowest layer has in every such build.
async fn lowest_layer() -> DiffId {
    let bench = bench();
    bench.build_well().await;
    bench.layers()["base"][0]
}

fn subject(layer: DiffId) -> String {
    format!("iso {}", layer.0.short())
}

#[tokio::test]
async fn layers_are_prepared_while_later_stages_run_and_the_last_is_left_to_the_stage() {
    let bench = bench();
    bench.sandbox.hold(Point::RunStage, "tweaks");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.seen.stored("tools").await;
        let [base, tools] = bench.layers()["tools"][..] else { panic!("two layers") };
        bench.sandbox.reached(Point::PrepareLayer, &subject(base)).await;
        bench.sandbox.reached(Point::PrepareLayer, &subject(tools)).await;
        bench.sandbox.let_go(Point::RunStage, "tweaks");
    });
    if let Err(error) = &finished.result {
        panic!("{}", chain(error));
    }
    let layers = bench.layers()["tweaks"].clone();
    assert_eq!(finished.subjects(Point::PrepareLayer), [subject(layers[0]), subject(layers[1])]);
    // The stage itself is told of layers only: what has been prepared is found by their names.
    let specs = bench.sandbox.specs();
    let trees: Vec<_> = layers.into_iter().map(Tree::Layer).collect();
    assert_eq!(specs.last().unwrap().trees, trees);
}

#[tokio::test]
async fn preparing_holds_up_nobody_but_the_stage_that_it_is_for() {
    let base = lowest_layer().await;
    let bench = bench();
    bench.sandbox.hold(Point::PrepareLayer, &subject(base));
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.seen.stored("tweaks").await;
        assert!(!bench.sandbox.calls().contains(&(Point::RunStage, "iso".to_owned())));
        bench.sandbox.let_go(Point::PrepareLayer, &subject(base));
    });
    assert!(finished.result.is_ok());
    assert_eq!(finished.ran(), ["base", "tools", "tweaks", "iso"]);
}

#[tokio::test]
async fn what_fails_to_be_prepared_fails_no_build() {
    let bench = bench();
    bench.sandbox.fail(Point::PrepareLayer, 1);
    let finished = bench.build_well().await;
    assert_eq!(finished.subjects(Point::PrepareLayer).len(), 2);
    assert_eq!(finished.ran(), ["base", "tools", "tweaks", "iso"]);
}

#[tokio::test]
async fn nothing_is_prepared_for_what_is_there_or_was_made_by_an_earlier_build() {
    let mut bench = bench();
    bench.build_well().await;
    assert!(bench.build_well().await.subjects(Point::PrepareLayer).is_empty());
    bench.edit(&(script("tools", "one") + &script("tweaks", "other") + ISO));
    let finished = bench.build_well().await;
    assert_eq!(finished.ran(), ["tweaks", "iso"]);
    assert!(finished.subjects(Point::PrepareLayer).is_empty());
}

#[tokio::test]
async fn a_wish_to_stop_in_time_lets_the_stage_in_progress_end_and_prepares_no_more() {
    let base = lowest_layer().await;
    let bench = bench();
    bench.sandbox.hold(Point::PrepareLayer, &subject(base));
    bench.sandbox.hold(Point::RunStage, "tweaks");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.seen.stored("tools").await;
        bench.sandbox.reached(Point::PrepareLayer, &subject(base)).await;
        bench.sandbox.reached(Point::RunStage, "tweaks").await;
        bench.cancel.send_replace(Cancel::Gracefully);
        bench.sandbox.let_go(Point::PrepareLayer, &subject(base));
        // Time to go on, if nothing kept it from that.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        bench.sandbox.let_go(Point::RunStage, "tweaks");
    });
    assert_eq!(finished.error().to_string(), "cancelled");
    assert_eq!(bench.stored(), ["base", "tools", "tweaks"]);
    assert_eq!(finished.subjects(Point::PrepareLayer), [subject(base)]);
}

#[tokio::test]
async fn a_wish_to_stop_ends_preparing_too() {
    let base = lowest_layer().await;
    let bench = bench();
    bench.sandbox.hold(Point::PrepareLayer, &subject(base));
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::PrepareLayer, &subject(base)).await;
        bench.cancel.send_replace(Cancel::Now);
    });
    assert_eq!(finished.error().to_string(), "cancelled");
    bench.assert_store_is_whole();
}
