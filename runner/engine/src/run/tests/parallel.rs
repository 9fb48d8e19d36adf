//! Branches, and scripts that run at the same time.

use super::bench::{Bench, branch, chain, leaves, script};
use super::fake::{Act, Call, Point};
use crate::sandbox::{StageExit, Tree};

/// Two editions on a shared base.
fn editions(parallel: usize) -> Bench {
    let mut bench = Bench::new(
        &(branch("desktop", "base", "install desktop") + &branch("server", "base", "install server")),
    );
    bench.options.parallel = Some(parallel);
    bench
}

#[tokio::test]
async fn two_children_of_one_parent_run_at_the_same_time_and_the_parent_once() {
    let bench = editions(2);
    bench.sandbox.hold(Point::RunStage, "desktop");
    bench.sandbox.hold(Point::RunStage, "server");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.sandbox.reached(Point::RunStage, "server").await;
        bench.sandbox.let_go(Point::RunStage, "desktop");
        bench.sandbox.let_go(Point::RunStage, "server");
    });
    assert!(finished.result.is_ok());
    assert_eq!(finished.ran().iter().filter(|stage| **stage == "base").count(), 1);
    let layers = bench.layers();
    assert_eq!(layers["desktop"][..1], layers["base"]);
    assert_eq!(layers["server"][..1], layers["base"]);
    assert_ne!(layers["server"][1], layers["desktop"][1]);
}

#[tokio::test]
async fn children_start_while_their_parent_is_being_saved() {
    let bench = editions(2);
    bench.sandbox.hold(Point::Capture, "base");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "desktop").await;
        bench.sandbox.reached(Point::RunStage, "server").await;
        bench.sandbox.let_go(Point::Capture, "base");
    });
    assert!(finished.result.is_ok());
    let specs = bench.sandbox.specs();
    assert_eq!(specs[1].trees, [Tree::Work("base".parse().unwrap())]);
    assert_eq!(specs[2].trees, specs[1].trees);
    // Saved in order all the same.
    assert_eq!(finished.subjects(Point::Adopt)[0], "base");
}

#[tokio::test]
async fn one_script_at_a_time_unless_more_are_asked_for() {
    for parallel in [0, 1] {
        let bench = editions(parallel);
        bench.sandbox.idle(vec![3]);
        assert_eq!(bench.build_well().await.ran().len(), 3);
        assert_eq!(bench.sandbox.most_running(), 1);
    }
}

#[tokio::test]
async fn a_failing_branch_stops_the_other_and_saves_what_has_run() {
    let mut bench = editions(3);
    bench.edit(
        &(branch("desktop", "base", "one")
            + &branch("server", "base", "two")
            + &branch("tiny", "base", "three")),
    );
    // The first fails while the second has run and the third is running.
    bench.sandbox.act("desktop", Act { exit: StageExit::Status(9), ..Act::default() });
    bench.sandbox.hold(Point::RunStage, "desktop");
    bench.sandbox.hold(Point::RunStage, "tiny");
    bench.sandbox.hold(Point::Adopt, "server");
    let (failed, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "tiny").await;
        bench.sandbox.reached(Point::Adopt, "server").await;
        bench.sandbox.let_go(Point::RunStage, "desktop");
        bench.sandbox.reached(Point::Dismissed, "tiny").await;
        bench.sandbox.let_go(Point::Adopt, "server");
    });
    assert_eq!(failed.error().to_string(), "stage desktop failed: it ended with status 9");
    assert_eq!(bench.stored(), ["base", "server"]);
    bench.assert_store_is_whole();
    bench.sandbox.recover();
    let mut ran = bench.build_well().await.ran().join(" ");
    if ran == "tiny desktop" {
        ran = "desktop tiny".to_owned();
    }
    assert_eq!(ran, "desktop tiny");
}

#[tokio::test]
async fn no_stage_becomes_a_layer_before_the_engine_has_been_tidied() {
    let bench = editions(2);
    // What is made by then would be tidied away: nobody knows of it yet.
    bench.sandbox.hold(Point::KeepOnly, "");
    let (finished, ()) = tokio::join!(bench.build(), async {
        bench.sandbox.reached(Point::RunStage, "base").await;
        bench.sandbox.reached(Point::KeepOnly, "").await;
        // Time to make a layer of it, if nothing kept it from that.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!bench.sandbox.calls().iter().any(|(point, _)| *point == Point::Capture));
        bench.sandbox.let_go(Point::KeepOnly, "");
    });
    if let Err(error) = &finished.result {
        panic!("{}", chain(error));
    }
    let tidied = |calls: &[Call]| calls.iter().filter(|(point, _)| *point == Point::KeepOnly).count();
    assert_eq!(tidied(&bench.sandbox.calls()), 1, "once is enough");
}

#[tokio::test]
async fn tidying_spares_a_layer_whose_checkpoint_is_still_being_stored() {
    let stages = |edition: &str| {
        let make = |name: &str| format!("make {name} {edition}");
        branch("desktop", "base", &make("desktop"))
            + &script("tweaks", &make("tweaks"))
            + &script("rules", &make("rules"))
            + &branch("busy", "base", &make("busy"))
            + &branch("server", "base", "the same")
            + &script("late", &make("late"))
    };
    let mut bench = Bench::new(&stages("one"));
    bench.options.parallel = Some(2);
    bench.build_well().await;
    // `base` runs again and comes out as before, so `server` waits for it and hits; `late` is then the first
    // stage to ask what lies in the engine.
    bench.store().retain(|entry| entry.note.stage.as_str() != "base").unwrap();
    bench.edit(&stages("two"));
    bench.sandbox.act("desktop", leaves("file", "what it leaves"));
    let held = [
        (Point::Capture, "base"),
        (Point::Artifact, "file"),
        (Point::RunStage, "busy"),
        (Point::RunStage, "tweaks"),
    ];
    for (point, subject) in held {
        bench.sandbox.hold(point, subject);
    }
    let (finished, ()) = tokio::join!(bench.build(), async {
        // Both slots are taken when `late` asks for one.
        bench.sandbox.reached(Point::RunStage, "busy").await;
        bench.sandbox.reached(Point::RunStage, "tweaks").await;
        bench.sandbox.let_go(Point::Capture, "base");
        // `desktop` has become a layer, and its checkpoint waits for the artifact.
        bench.sandbox.reached(Point::Adopt, "desktop").await;
        bench.sandbox.reached(Point::Artifact, "file").await;
        bench.sandbox.let_go(Point::RunStage, "busy");
        bench.sandbox.reached(Point::RunStage, "late").await;
        bench.sandbox.let_go(Point::Artifact, "file");
        bench.sandbox.let_go(Point::RunStage, "tweaks");
    });
    if let Err(error) = &finished.result {
        panic!("{}", chain(error));
    }
    assert_eq!((finished.hits(), finished.count(Point::KeepOnly)), (vec!["server"], 1));
    assert!(finished.ran().contains(&"rules"));
}
