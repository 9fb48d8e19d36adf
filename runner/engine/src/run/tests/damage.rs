//! Builds on a store that has been damaged.

use std::fs;
use std::path::Path;

use isokiln_core::image::{Entry, Role};

use super::bench::{Bench, ISO, leaves, script};
use super::fake::Point;

/// A project that was built, and whose engine has lost its layers.
async fn built() -> Bench {
    let bench = Bench::new(&stages("echo one"));
    bench.sandbox.act("iso", leaves("demo.iso", "an iso"));
    bench.build_well().await;
    bench.sandbox.lose_volume();
    bench
}

fn stages(tweak: &str) -> String {
    script("desktop", "install desktop") + &script("tweaks", tweak) + ISO
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn entry(bench: &Bench, role: Role, stage: &str) -> Entry {
    let entries = bench.store().entries().unwrap();
    entries.into_iter().find(|entry| entry.note.role == role && entry.note.stage.as_str() == stage).unwrap()
}

#[tokio::test]
async fn a_damaged_layer_is_noticed_when_it_is_needed_and_made_anew_in_the_same_build() {
    let mut bench = built().await;
    let before = bench.layers();
    let damaged = bench.checkpoint("desktop").unwrap().layers[1].clone();
    flip(&bench.blob(damaged.digest));
    bench.edit(&stages("echo two"));
    let finished = bench.build_well().await;
    assert_eq!(finished.ran(), ["desktop", "tweaks", "iso"]);
    assert!(finished.warnings().iter().any(|text| text.contains(&damaged.digest.to_string())));
    let settled = finished.subjects(Point::Settle);
    assert_eq!(settled, [before["base"][0].0.short()], "what is damaged does not become a layer");
    assert_eq!(finished.count(Point::Destroy), 1);
    assert_eq!(bench.layers()["desktop"], before["desktop"]);
    bench.assert_store_is_whole();
}

#[tokio::test]
async fn a_missing_layer_is_noticed_at_once_and_made_anew_in_the_same_build() {
    let bench = built().await;
    let missing = bench.checkpoint("desktop").unwrap().layers[1].digest;
    fs::remove_file(bench.blob(missing)).unwrap();
    let finished = bench.build_well().await;
    assert_eq!((finished.hits(), finished.ran()), (vec!["base"], vec!["desktop", "tweaks", "iso"]));
    let words = format!(
        "blob {missing} is missing from the store; what rests on it is made anew: desktop, tweaks, iso"
    );
    assert_eq!(finished.warnings(), [words], "once, though three checkpoints rest on it");
    bench.assert_store_is_whole();
}

#[tokio::test]
async fn a_damaged_manifest_or_configuration_is_made_anew_in_the_same_build() {
    for configuration in [false, true] {
        let bench = built().await;
        let mut digest = entry(&bench, Role::Checkpoint, "tweaks").manifest;
        if configuration {
            digest = Entry::references(&bench.store().get(digest).unwrap()).unwrap()[0].0;
        }
        flip(&bench.blob(digest));
        let finished = bench.build_well().await;
        // The layer comes out as before, so what follows is a hit.
        assert_eq!((finished.hits(), finished.ran()), (vec!["base", "desktop", "iso"], vec!["tweaks"]));
        assert_eq!(finished.warnings().len(), 1, "{:?}", finished.warnings());
        bench.assert_store_is_whole();
    }
}

#[tokio::test]
async fn a_damaged_or_missing_artifact_is_never_delivered_and_made_anew_in_the_same_build() {
    for missing in [false, true] {
        for manifest in [false, true] {
            let bench = built().await;
            let mut digest = entry(&bench, Role::Artifacts, "iso").manifest;
            if !manifest {
                digest = bench.store().files(&entry(&bench, Role::Artifacts, "iso")).unwrap()[0].digest;
            }
            if missing {
                fs::remove_file(bench.blob(digest)).unwrap()
            } else {
                flip(&bench.blob(digest))
            }
            let finished = bench.build_well().await;
            assert_eq!(finished.ran(), ["iso"], "missing: {missing}, manifest: {manifest}");
            assert_eq!(fs::read_to_string(finished.folder.join("artifacts/demo.iso")).unwrap(), "an iso");
            bench.assert_store_is_whole();
        }
    }
}

#[tokio::test]
async fn a_stage_whose_artifacts_were_forgotten_runs_again() {
    let bench = built().await;
    bench.store().retain(|entry| entry.note.role == Role::Checkpoint).unwrap();
    let finished = bench.build_well().await;
    // No stage can be trusted to have left nothing.
    assert_eq!(finished.ran(), ["base", "desktop", "tweaks", "iso"]);
    assert_eq!(bench.build_well().await.ran(), [""; 0]);
}

#[tokio::test]
async fn an_index_that_makes_no_sense_ends_the_build_before_anything_runs() {
    let bench = built().await;
    fs::write(bench.store().root().join("index.json"), "{").unwrap();
    let failed = bench.build().await;
    assert_eq!((failed.error().exit_code(), failed.count(Point::RunStage)), (3, 0));
    assert!(failed.error().hint().unwrap().contains("isokiln verify"));
}
