//! Builds in which a failed stage is reviewed and run again.

use std::fs;

use bytes::Bytes;
use isokiln_core::archive::{ArchiveState, ArchiveSuite};
use isokiln_core::digest::Digest;
use isokiln_core::event::Event;
use isokiln_core::review::Recover;
use serde_json::Value;

use super::bench::{Bench, Finished, branch, script};
use super::fake::{Act, Point};
use crate::sandbox::{Cancel, SandboxError, StageExit, StageOutput};

const HASH_SUM: &str = "E: Failed to fetch http://mirror.example.org/Packages.xz  Hash Sum mismatch\n";
const NO_RELEASE: &str =
    "E: Failed getting release file http://mirror.example.org/debian/dists/trixie/Release\n";
const INTERRUPTED: &str =
    "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.\n";
const OLD_INDEXES: &str =
    "W: Some index files failed to download. They have been ignored, or old ones used instead.\n";

fn says(exit: StageExit, log: &'static str) -> Act {
    Act { exit, output: vec![StageOutput::Log(Bytes::from_static(log.as_bytes()))], ..Act::default() }
}

fn fails(log: &'static str) -> Act {
    says(StageExit::Status(100), log)
}

/// A bench whose failed stages are run again.
fn bench(stages: &str) -> Bench {
    let mut bench = Bench::new(stages);
    bench.options.recover = Recover::Auto;
    bench
}

fn decision(finished: &Finished, name: &str) -> Value {
    let path = finished.folder.join("coordination/ai_memory/decisions").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stage_whose_container_was_lost_is_run_again() {
    let bench = bench("");
    bench.sandbox.acts("base", vec![says(StageExit::Lost, "one\n"), says(StageExit::Status(0), "two\n")]);
    let finished = bench.build_well().await;
    assert_eq!(
        (finished.ran(), finished.recoveries()),
        (vec!["base", "base"], vec!["base retry".to_owned()])
    );
    assert_eq!(finished.reviewed(), ["base clean", "base known"]);
    // The log of each attempt is there.
    let log = |name| fs::read_to_string(finished.folder.join("stages/base").join(name)).unwrap();
    assert_eq!((log("log.1").as_str(), log("log").as_str()), ("one\n", "two\n"));
    let first = decision(&finished, "base-1.json");
    assert_eq!(
        (&first["action"], &first["review"]["cause"]["rule"]),
        (&"retry".into(), &"machine-container-lost".into())
    );
    assert_eq!(decision(&finished, "base-2.json")["outcome"], "passed");
    bench.assert_store_is_whole();
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_is_done_without_where_it_is_broken() {
    let bench = bench("");
    bench.sandbox.acts("base", vec![fails(HASH_SUM), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), ["base clean-cache"]);
    let fresh: Vec<_> = bench.sandbox.specs().iter().map(|spec| spec.fresh_cache).collect();
    assert_eq!(fresh, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn another_mirror_stands_in_and_the_checkpoint_says_so() {
    let bench = bench("");
    bench.sandbox.acts("base", vec![fails(NO_RELEASE), Act::default()]);
    let suite = ArchiveSuite {
        uri: "http://two.example.org/debian".into(),
        suite: "trixie".into(),
        components: vec!["main".into()],
        digest: Digest::of("release"),
        date: 1,
    };
    bench.mirrors.have(vec![ArchiveState(vec![suite])]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), ["base refresh-mirror"]);
    let sources = bench.sandbox.specs()[1]
        .files
        .iter()
        .find(|file| file.path.ends_with("sources.list"))
        .unwrap()
        .clone();
    assert_eq!(sources.bytes, "deb http://two.example.org/debian trixie main\n");
    let inputs = bench.checkpoint("base").unwrap().inputs.0;
    assert!(inputs.contains_key("archive http://two.example.org/debian trixie"), "{inputs:?}");
}

#[tokio::test(start_paused = true)]
async fn without_another_mirror_the_next_cure_is_tried() {
    let bench = bench("");
    bench.sandbox.acts("base", vec![fails(NO_RELEASE), Act::default()]);
    let finished = bench.build().await;
    // What the rule allows besides decides whether there is a next one.
    match finished.result {
        Ok(_) => assert_ne!(finished.recoveries(), ["base refresh-mirror"]),
        Err(_) => assert_eq!(finished.recoveries(), [""; 0]),
    }
    assert!(!finished.recoveries().contains(&"base refresh-mirror".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_runs_the_stage_before_again_too() {
    let bench = bench(&(script("desktop", "one") + &script("last", "two")));
    bench.build_well().await;
    let mut bench = bench;
    bench.edit(&(script("desktop", "changed") + &script("last", "two")));
    bench.sandbox.acts("desktop", vec![fails(INTERRUPTED), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), ["desktop rollback"]);
    assert_eq!(finished.ran(), ["desktop", "base", "desktop", "last"]);
    bench.assert_store_is_whole();
}

#[tokio::test(start_paused = true)]
async fn only_an_optional_package_is_left_out() {
    let stage = "[[stage]]\nname = \"desktop\"\nuses = \"packages\"\n\
                 with = { install = [\"vim\"], optional = [\"falkon\", \"mc\"] }\n";
    let bench = bench(stage);
    let poisoned = "isokiln: failed: the failed optional package falkon cannot be undone\n";
    bench.sandbox.acts("desktop", vec![fails(poisoned), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), ["desktop skip-optional"]);
    let options = |nth: usize| -> Value {
        let specs = bench.sandbox.specs();
        let desktop: Vec<_> = specs.iter().filter(|spec| spec.stage.as_str() == "desktop").collect();
        let file = desktop[nth].files.iter().find(|file| file.path.ends_with("options.json")).unwrap();
        serde_json::from_slice(&file.bytes).unwrap()
    };
    assert_eq!(options(0)["optional"], serde_json::json!(["falkon", "mc"]));
    assert_eq!(options(1)["optional"], serde_json::json!(["mc"]));
    assert_eq!(options(1)["install"], serde_json::json!(["vim"]));
    // What was made without it is not taken for the whole: the next build tries again.
    let next = bench.build_well().await;
    assert_eq!((next.hits(), next.ran()), (vec!["base"], vec!["desktop"]));
    assert_eq!(bench.build_well().await.hits(), ["base", "desktop"]);

    // One that is not optional is not.
    let bench = self::bench(stage);
    let required = "isokiln: failed: the failed optional package vim cannot be undone\n";
    bench.sandbox.act("desktop", fails(required));
    let failed = bench.build().await;
    assert_eq!((failed.error().exit_code(), failed.recoveries().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_cure_is_never_tried_twice_and_the_build_ends() {
    let bench = bench("");
    bench.sandbox.act("base", fails(HASH_SUM));
    let failed = bench.build().await;
    assert_eq!(failed.error().exit_code(), 1);
    let mut tried = failed.recoveries();
    assert!(!tried.is_empty() && tried.len() <= 3, "{tried:?}");
    let count = tried.len();
    tried.sort();
    tried.dedup();
    assert_eq!(tried.len(), count, "a cure was tried twice");
    assert_eq!(failed.ran().len(), count + 1);
    bench.assert_store_is_whole();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_not_tried_again() {
    let bench = bench("");
    bench.sandbox.act("base", fails("frobnicate: went wrong\n"));
    let failed = bench.build().await;
    assert_eq!((failed.ran().len(), failed.reviewed()), (1, vec!["base unknown".to_owned()]));
    let decision = decision(&failed, "base-1.json");
    assert_eq!(decision["review"]["cause"], Value::Null);
    assert_eq!(decision["action"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_person_is_asked_where_that_is_wished() {
    for (answer, runs) in [(Some(true), 2), (Some(false), 1), (None, 1)] {
        let mut bench = bench("");
        bench.options.recover = Recover::Ask;
        *bench.consent.answer.lock().unwrap() = answer;
        bench.sandbox.acts("base", vec![says(StageExit::Lost, ""), Act::default()]);
        let finished = bench.build().await;
        assert_eq!((finished.ran().len(), finished.result.is_ok()), (runs, runs == 2), "{answer:?}");
        let questions = bench.consent.questions.lock().unwrap().clone();
        assert_eq!(
            questions,
            ["stage base failed: its container was killed from outside. Do this about it: retry?"]
        );
    }
}

#[tokio::test]
async fn a_stage_that_ended_well_with_a_damaged_result_is_told_or_blocked() {
    let mut bench = bench("");
    bench.sandbox.act("base", says(StageExit::Status(0), OLD_INDEXES));
    assert_eq!(bench.build_well().await.reviewed(), ["base suspect"]);

    let mut blocked = self::bench("");
    blocked.head = "gate = \"block\"".into();
    blocked.options.recover = Recover::Off;
    blocked.sandbox.act("base", says(StageExit::Status(0), OLD_INDEXES));
    let failed = blocked.build().await;
    assert!(
        failed.error().to_string().contains("its review says that its result is damaged"),
        "{}",
        failed.error()
    );
    assert_eq!((failed.error().exit_code(), blocked.stored().len()), (1, 0));

    bench.head = "review = \"off\"".into();
    bench.edit(&script("more", "one"));
    assert_eq!(bench.build_well().await.reviewed(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_stage_is_run_again_like_one_that_failed() {
    let mut bench = bench("");
    bench.head = "gate = \"block\"".into();
    bench.sandbox.acts("base", vec![says(StageExit::Status(0), OLD_INDEXES), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!((finished.ran().len(), finished.recoveries().len()), (2, 1));
    assert_eq!(finished.stored(), ["base"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_helped_is_remembered_across_runs() {
    let mut bench = bench("");
    // The first cure does not help, the second does.
    bench.sandbox.acts("base", vec![fails(HASH_SUM), fails(HASH_SUM), Act::default()]);
    let first = bench.build_well().await.recoveries();
    assert_eq!(first.len(), 2);
    bench.edit(&script("other", "x"));
    bench.options.from = Some("base".parse().unwrap());
    bench.sandbox.acts("base", vec![fails(HASH_SUM), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), [first[1].clone()], "what has helped comes first");
    let memory =
        fs::read_to_string(finished.folder.join("coordination/ai_memory/learnings/learnings.json")).unwrap();
    let memory: Value = serde_json::from_str(&memory).unwrap();
    let action = first[1].strip_prefix("base ").unwrap();
    let helped = memory.as_object().unwrap().values().any(|of| of[action]["helped"] == 2);
    assert!(helped, "{memory}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_comes_back_is_gone_on_with() {
    let bench = bench(&(script("desktop", "one") + &script("last", "two")));
    let gone = || SandboxError::HungUp { action: "run".into(), reason: "connection reset".into() };
    bench.sandbox.fail_with(Point::RunStage, 2, gone());
    bench.sandbox.fail_with(Point::Again, 1, gone());
    let finished = bench.build_well().await;
    assert_eq!(finished.ran(), ["base", "desktop", "desktop", "last"]);
    assert_eq!(finished.count(Point::Again), 2);
    assert!(finished.warnings().iter().any(|warning| warning.contains("waiting for it to come back")));
    bench.assert_store_is_whole();

    let mut never = self::bench("");
    never.sandbox.fail_with(Point::RunStage, 1, gone());
    for nth in 1..200 {
        never.sandbox.fail_with(Point::Again, nth, gone());
    }
    let failed = never.build().await;
    assert_eq!(failed.error().exit_code(), 3);
    never.options.recover = Recover::Off;
    never.sandbox.recover();
    never.sandbox.fail_with(Point::RunStage, 1, gone());
    assert_eq!(never.build().await.count(Point::Again), 0);
}

#[tokio::test]
async fn hooks_run_around_stages_and_only_required_ones_fail_them() {
    let mut bench = bench("");
    let hooks = bench.path("hooks");
    fs::create_dir(&hooks).unwrap();
    for name in ["pre-phase", "post-phase", "emergency-recovery"] {
        let script = format!("echo {name} \"$*\" >>{}\n", bench.path("heard").display());
        fs::write(hooks.join(format!("{name}.sh")), script).unwrap();
    }
    bench.sandbox.acts("base", vec![says(StageExit::Lost, ""), Act::default()]);
    let finished = bench.build_well().await;
    let heard = fs::read_to_string(bench.path("heard")).unwrap();
    assert_eq!(
        heard,
        "pre-phase base Make a root file system from a package archive\n\
         post-phase base failure 0\n\
         emergency-recovery base 137\n\
         pre-phase base Make a root file system from a package archive\n\
         post-phase base success 0\n"
    );
    assert!(finished.folder.join("coordination/hooks/post-phase.sh").is_file());

    fs::write(hooks.join("pre-phase.sh"), "echo no >&2; exit 3\n").unwrap();
    bench.edit(&script("more", "one"));
    let finished = bench.build_well().await;
    assert!(
        finished.warnings()[0].contains("pre-phase.sh ended with exit status: 3"),
        "{:?}",
        finished.warnings()
    );
    let log = finished.folder.join("coordination/hooks/pre-phase.log");
    assert_eq!(fs::read_to_string(log).unwrap(), "no\n");

    bench.stages_with_hooks("required = [\"pre-phase\"]", &script("other", "two"));
    let failed = bench.build().await;
    assert!(
        failed.error().to_string().contains("pre-phase.sh ended with exit status: 3"),
        "{}",
        failed.error()
    );
    assert_eq!((failed.error().exit_code(), failed.ran().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_stop_ends_the_pause_before_a_stage_runs_again() {
    for wish in [Cancel::Gracefully, Cancel::Now] {
        let bench = bench("");
        bench.sandbox.act("base", says(StageExit::Lost, ""));
        let wishing = async {
            bench.seen.told(|event| matches!(event, Event::StageRecovering { .. })).await;
            bench.cancel.send_replace(wish);
        };
        let (cancelled, ()) = tokio::join!(bench.build(), wishing);
        assert_eq!((cancelled.error().exit_code(), cancelled.ran().len()), (130, 1), "{wish:?}");
    }
}

#[tokio::test]
async fn a_wish_to_stop_gently_lets_a_hook_end_but_no_stage_begin() {
    let bench = bench("");
    fs::create_dir(bench.path("hooks")).unwrap();
    let begun = bench.path("begun");
    fs::write(bench.path("hooks/pre-phase.sh"), format!("touch {}; sleep 1; echo end\n", begun.display()))
        .unwrap();
    let wishing = async {
        while !begun.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bench.cancel.send_replace(Cancel::Gracefully);
    };
    let (cancelled, ()) = tokio::join!(bench.build(), wishing);
    assert_eq!((cancelled.error().exit_code(), cancelled.ran().len()), (130, 0));
    let log = fs::read_to_string(cancelled.folder.join("coordination/hooks/pre-phase.log")).unwrap();
    assert_eq!(log, "end\n");
}

#[tokio::test]
async fn a_required_hook_does_not_hide_why_a_stage_failed() {
    let mut bench = bench("");
    fs::create_dir(bench.path("hooks")).unwrap();
    fs::write(bench.path("hooks/emergency-recovery.sh"), "exit 4\n").unwrap();
    bench.stages_with_hooks("required = [\"emergency-recovery\"]", "");
    bench.sandbox.act("base", says(StageExit::Lost, ""));
    let failed = bench.build().await;
    assert_eq!(failed.error().to_string(), "stage base failed: its container was killed from outside");
    assert_eq!((failed.ran().len(), failed.recoveries().len()), (1, 0));
    assert!(failed.warnings()[0].contains("emergency-recovery.sh ended with exit status: 4"));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_the_user_went_back_to_is_not_made_anew() {
    let mut bench = bench(&script("desktop", "one"));
    bench.build_well().await;
    bench.pin("base");
    bench.edit(&script("desktop", "two"));
    bench.sandbox.act("desktop", fails(INTERRUPTED));
    let failed = bench.build().await;
    assert_eq!((failed.ran(), failed.recoveries().len()), (vec!["desktop"], 0));
    assert!(bench.checkpoint("base").unwrap().pinned);
}

#[tokio::test(start_paused = true)]
async fn what_was_to_run_again_still_is_after_a_rollback() {
    let stages = script("mid", "one") + &script("top", "two") + &branch("side", "base", "three");
    let mut bench = bench(&stages);
    bench.build_well().await;
    bench.options.from = Some("base".parse().unwrap());
    bench.options.parallel = Some(1);
    // The other branch has not had its turn when `top` rolls back, or it has and is done.
    bench.sandbox.acts("top", vec![fails(INTERRUPTED), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), ["top rollback"]);
    assert!(finished.ran().contains(&"side"), "{:?}", finished.ran());
    // What has helped is learnt, though it took another round.
    let memory =
        fs::read_to_string(finished.folder.join("coordination/ai_memory/learnings/learnings.json")).unwrap();
    assert!(memory.contains("\"rollback\": {\n      \"helped\": 1"), "{memory}");
}

#[tokio::test]
async fn a_wish_to_stop_now_ends_a_hook() {
    let bench = bench("");
    fs::create_dir(bench.path("hooks")).unwrap();
    let begun = bench.path("begun");
    fs::write(bench.path("hooks/pre-phase.sh"), format!("touch {}; sleep 50\n", begun.display())).unwrap();
    let wishing = async {
        while !begun.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bench.cancel.send_replace(Cancel::Now);
    };
    let started = std::time::Instant::now();
    let (cancelled, ()) = tokio::join!(bench.build(), wishing);
    assert_eq!((cancelled.error().exit_code(), cancelled.ran().len()), (130, 0));
    assert!(started.elapsed().as_secs() < 20, "the hook was waited for");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_after_the_next_stands_in_for_both() {
    let bench = bench(&script("more", "one"));
    let state = |name: &str| {
        ArchiveState(vec![ArchiveSuite {
            uri: format!("http://{name}.example.org/debian"),
            suite: "trixie".into(),
            components: vec!["main".into()],
            digest: Digest::of(name),
            date: 1,
        }])
    };
    bench.mirrors.have(vec![state("two"), state("three")]);
    let cause =
        "E: The repository 'http://x.example.org/debian trixie Release' no longer has a Release file.\n";
    bench.sandbox.acts("base", vec![fails(NO_RELEASE), fails(cause), Act::default()]);
    let finished = bench.build_well().await;
    assert_eq!(finished.recoveries(), ["base refresh-mirror", "base refresh-mirror"]);
    let specs = bench.sandbox.specs();
    let script = specs.last().unwrap().files.iter().find(|file| file.path.ends_with("mirrors.sed")).unwrap();
    let script = String::from_utf8_lossy(&script.bytes).into_owned();
    assert!(script.contains("two\\.example") && script.contains("three.example"), "{script}");
}
