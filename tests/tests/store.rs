//! The store: its commands, damage of every kind, collection, rollback.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use isokiln_tests::{Engine, Finished, Project};
use serde_json::Value;

/// Two stages that change the tree, and one that lists it.
const STAGES: &str = r#"
[[stage]]
name = "one"
run = "seq 50000 >/etc/one"

[[stage]]
name = "two"
run = "echo two >/etc/two"

[[stage]]
name = "list"
uses = "listing"
"#;

#[track_caller]
fn built() -> Project {
    let project = Project::tiny(STAGES);
    project.build(&[]).expect_code(0);
    project
}

/// `PIPELINE/STAGE` of every checkpoint, with `!` where it is damaged.
#[track_caller]
fn stages(project: &Project) -> Vec<String> {
    let name = |checkpoint: Value| {
        let mark = if checkpoint["damaged"].is_null() { "" } else { "!" };
        format!("{}{mark}", checkpoint["stage"].as_str().expect("a name"))
    };
    project.checkpoints().into_iter().map(name).collect()
}

/// Blobs are read-only; what damages them does not ask.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).expect("it is there");
    fs::write(path, bytes).expect("it can be written");
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    overwrite(path, &bytes);
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("it is there");
    overwrite(path, &bytes[..bytes.len() / 2]);
}

/// Damages what is not named by its digest in a place where it shows.
fn unbrace(path: &Path) {
    let mut bytes = fs::read(path).expect("it is there");
    bytes[0] ^= 0x10;
    overwrite(path, &bytes);
}

fn lose(path: &Path) {
    fs::remove_file(path).expect("it is there");
}

/// Bytes of everything in the store, and its files.
fn contents(project: &Project) -> (u64, BTreeSet<String>) {
    let entries = fs::read_dir(project.home().join("store/blobs/sha256")).expect("a folder");
    let mut bytes = 0;
    let mut names = BTreeSet::new();
    for entry in entries.flatten() {
        bytes += entry.metadata().expect("facts").len();
        names.insert(entry.file_name().to_string_lossy().into_owned());
    }
    (bytes, names)
}

/// Diff-ids of the layers that lie unpacked in the engine, and of those that checkpoints have.
#[track_caller]
fn layers(project: &Project) -> (BTreeSet<String>, BTreeSet<String>) {
    let volume = project.volume().expect("a volume");
    let there = Engine::connect().volume_names(&volume, "layers").into_iter();
    let needed = project
        .checkpoints()
        .into_iter()
        .flat_map(|checkpoint| checkpoint["diff_ids"].as_array().expect("a list").clone());
    let needed = needed.map(|id| id.as_str().expect("text").trim_start_matches("sha256:").to_owned());
    (there.collect(), needed.collect())
}

#[track_caller]
fn verify(project: &Project, code: i32) -> Value {
    project.isokiln(&["verify", "--format", "json"]).expect_code(code).json()
}

/// The manifest of the artifacts or of the checkpoint (`role`) of a stage, by its digest in the index.
#[track_caller]
fn manifest(project: &Project, role: &str, stage: &str) -> Value {
    let index = fs::read(project.home().join("store/index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let manifests = index["manifests"].as_array().expect("a list");
    let found = manifests.iter().find(|entry| {
        entry["annotations"]["org.isokiln.role"] == role && entry["annotations"]["org.isokiln.stage"] == stage
    });
    found.unwrap_or_else(|| panic!("no {role} of {stage}"))["digest"].clone()
}

/// A digest that a manifest refers to.
fn referred(project: &Project, manifest: &Value, pointer: &str) -> Value {
    let document = fs::read(project.blob(manifest)).expect("a manifest");
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    document.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {document}")).clone()
}

#[test]
fn checkpoints_are_listed_shown_exported_and_removed() {
    let project = built();
    let listed = project.checkpoints();
    assert_eq!(stages(&project), ["base", "one", "two", "list"]);
    for (place, checkpoint) in listed.iter().enumerate() {
        let diff_ids = checkpoint["diff_ids"].as_array().expect("a list");
        assert_eq!(diff_ids.len(), (place + 1).min(3), "{checkpoint}");
        assert!(diff_ids.iter().all(|id| id.as_str().is_some_and(|id| id.starts_with("sha256:"))));
        assert!(checkpoint["size_bytes"].as_u64() > Some(1 << 20), "{checkpoint}");
        assert!(checkpoint["created"].as_str().is_some_and(|time| time.ends_with('Z')), "{checkpoint}");
        assert_eq!(checkpoint["pinned"], false);
    }
    let shown = project.checkpoint("list");
    assert_eq!(shown["digest"], listed[3]["digest"]);
    assert_eq!(shown["artifacts"][0]["name"], "list.txt");
    assert_eq!(shown["inputs"]["stage"], "list");
    project.isokiln(&["checkpoint", "show", "one"]).expect_code(0).prints("Layers, bottom to top:");

    // An older checkpoint is meant by its digest.
    let old = project.checkpoint("one")["digest"].as_str().expect("a digest").to_owned();
    project.edit("pipeline.toml", "seq 50000", "seq 50001");
    project.build(&[]).expect_code(0);
    assert_ne!(project.checkpoint("one")["digest"], old.as_str());
    let exported = project
        .isokiln(&["checkpoint", "export", "one", "oci-archive:one.tar", "--digest", &old])
        .expect_code(0);
    exported.prints("oci-archive:one.tar:tiny-one");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "oci-archive:one.tar"]).current_dir(project.path(""));
    let inspected = Finished::of(&mut skopeo).expect_code(0).json();
    assert_eq!(inspected["Digest"], old.as_str());

    project
        .isokiln(&["checkpoint", "rm", "one", "--digest", &old])
        .expect_code(0)
        .prints("removed 1 checkpoint");
    let unknown = project.isokiln(&["checkpoint", "show", "one", "--digest", &old]).expect_code(2);
    unknown.says("of a stage \"one\"").says("hint: isokiln checkpoint list");
    project.isokiln(&["rollback", "twi"]).expect_code(2).says("did you mean \"two\"?");
    project.isokiln(&["checkpoint", "rm", "two"]).expect_code(0).prints("removed 2 checkpoint(s) of two");
    assert_eq!(stages(&project), ["base", "list", "one", "list"]);
    project.isokiln(&["verify"]).expect_code(0).prints("all as they should be");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two done, list hit");
}

#[test]
fn verify_names_what_is_hurt_and_the_next_build_makes_it_anew() {
    let project = built();
    let layer = |project: &Project| project.checkpoint("one")["layers"][1]["digest"].clone();
    let checkpoint = |project: &Project| manifest(project, "checkpoint", "one");
    let config = |project: &Project| referred(project, &checkpoint(project), "/config/digest");
    let artifacts = |project: &Project| manifest(project, "artifacts", "list");
    let listing = |project: &Project| referred(project, &artifacts(project), "/layers/0/digest");
    type Find<'f> = &'f dyn Fn(&Project) -> Value;
    type Damage = fn(&Path);
    let above: &[&str] = &["tiny/one", "tiny/two", "tiny/list"];
    let wrong = "the bytes are not those of the digest";
    // What it is called, what is damaged and how, what is said of it, who is hurt, what the next build does.
    type Case<'f> = (&'f str, Find<'f>, Damage, &'f str, &'f [&'f str], &'f str);
    let cases: [Case<'_>; 9] = [
        ("flipped layer", &layer, flip, wrong, above, "base hit, one done, two done, list done"),
        ("cut layer", &layer, truncate, wrong, above, "base hit, one done, two done, list done"),
        ("lost layer", &layer, lose, "missing", above, "base hit, one done, two done, list done"),
        (
            "flipped manifest",
            &checkpoint,
            flip,
            wrong,
            &["tiny/one"],
            "base hit, one done, two hit, list hit",
        ),
        (
            "cut manifest",
            &checkpoint,
            truncate,
            wrong,
            &["tiny/one"],
            "base hit, one done, two hit, list hit",
        ),
        (
            "lost manifest",
            &checkpoint,
            lose,
            "missing",
            &["tiny/one"],
            "base hit, one done, two hit, list hit",
        ),
        ("flipped config", &config, flip, wrong, &["tiny/one"], "base hit, one done, two hit, list hit"),
        ("flipped artifact", &listing, flip, wrong, &["tiny/list"], "base hit, one hit, two hit, list done"),
        (
            "lost artifacts",
            &artifacts,
            lose,
            "missing",
            &["tiny/list"],
            "base hit, one hit, two hit, list done",
        ),
    ];
    for (name, find, damage, problem, hurt, outcome) in cases {
        let blob = find(&project);
        damage(&project.blob(&blob));
        let report = verify(&project, 3);
        let found = report["damage"].as_array().expect("a list");
        assert_eq!(found.len(), 1, "{name}: {report}");
        assert_eq!(found[0]["blob"], blob, "{name}");
        assert_eq!(found[0]["stages"], Value::from(hurt), "{name}");
        assert!(found[0]["problem"].as_str().is_some_and(|text| text.contains(problem)), "{name}: {report}");
        // Asked again it is still hurt, and said to people too.
        let again = project.isokiln(&["verify"]).expect_code(3).prints("DAMAGED");
        let again = again.prints(&format!("needed by {}", hurt.join(", ")));
        again.prints("the next build makes anew what rests on this");

        let whole = stages(&project);
        assert_eq!(whole.len(), 4, "{name}");
        assert_eq!(whole[0], "base", "{name}: what is not hurt is not marked");
        project.build(&[]).expect_code(0).says("what rests on it is made anew");
        assert_eq!(project.outcome(), outcome, "{name}");
        assert_eq!(verify(&project, 0)["damage"], Value::from([""; 0].as_slice()), "{name}");
        assert!(project.artifact("list.txt").is_file(), "{name}");
        project.build(&[]).expect_code(0).says("0 stages run, 4 from checkpoints");
    }
    // Damaged bytes were only set aside.
    let aside =
        |project: &Project| contents(project).1.iter().filter(|name| name.starts_with(".damaged-")).count();
    assert!(aside(&project) > 0);
    project.isokiln(&["gc"]).expect_code(0);
    assert_eq!(aside(&project), 0);
    project.isokiln(&["verify"]).expect_code(0);
    project.expect_no_residue();
}

#[test]
fn damage_that_a_build_meets_is_made_good_in_the_same_build() {
    let project = built();
    let layer = project.checkpoint("one")["layers"][1]["digest"].clone();
    for damage in
        [flip, |path: &Path| overwrite(path, &vec![0x55; fs::metadata(path).unwrap().len() as usize])]
    {
        // Only an engine without the layers has to read them.
        project.isokiln(&["clean"]).expect_code(0);
        damage(&project.blob(&layer));
        let build = project.build(&["--from", "two"]).expect_code(0);
        build.says(&format!("blob {} in the store is damaged", layer.as_str().unwrap_or_default()));
        assert_eq!(project.outcome(), "base hit, one done, two done, list done");
        project.isokiln(&["verify"]).expect_code(0);
    }
    // A file that a build hands out again.
    let file = project.checkpoint("list")["artifacts"][0]["digest"].clone();
    flip(&project.blob(&file));
    project.build(&[]).expect_code(0).says("in the store is damaged");
    assert_eq!(project.outcome(), "base hit, one hit, two hit, list done");
    assert_eq!(project.record()["artifacts"].as_array().map(Vec::len), Some(1));
    project.isokiln(&["verify"]).expect_code(0);
    project.expect_no_residue();
}

#[test]
fn the_next_build_takes_away_what_a_killed_one_was_writing() {
    let project = built();
    for path in ["store/blobs/sha256/.tmp-1-0", "store/.tmp-1-1"] {
        fs::write(project.home().join(path), "half a layer").expect("a file");
    }
    project.expect_whole_store();
    project.build(&[]).expect_code(0).says("0 stages run, 4 from checkpoints");
    project.expect_no_residue();
}

#[test]
fn a_damaged_checkpoint_can_be_listed_and_removed_and_collected() {
    let project = built();
    flip(&project.blob(&manifest(&project, "checkpoint", "two")));
    assert_eq!(stages(&project), ["base", "one", "two!", "list"]);
    project.isokiln(&["checkpoint", "list"]).expect_code(0).prints("DAMAGED: blob sha256:");
    project.isokiln(&["checkpoint", "show", "one"]).expect_code(0);
    let shown = project.isokiln(&["checkpoint", "show", "two"]).expect_code(3).says("is damaged");
    shown.says("isokiln verify says which checkpoints are damaged; isokiln build makes them anew");
    let export = ["checkpoint", "export", "two", "oci-archive:two.tar"];
    project.isokiln(&export).expect_code(3).says("is damaged");
    assert!(!project.path("two.tar").exists(), "no archive that ends early is left");
    project.isokiln(&["checkpoint", "rm", "two"]).expect_code(0).prints("removed 1 checkpoint(s) of two");
    assert_eq!(stages(&project), ["base", "one", "list"]);

    flip(&project.blob(&manifest(&project, "checkpoint", "one")));
    // The good checkpoint of a stage is not given up for a damaged one.
    project.isokiln(&["gc", "--keep", "1"]).expect_code(0);
    assert_eq!(stages(&project), ["base", "list"]);
    project.isokiln(&["verify"]).expect_code(0);
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one done, two done, list hit");
}

#[test]
fn a_lost_index_is_written_anew_from_the_manifests() {
    let project = built();
    let index = project.home().join("store/index.json");
    let before: Vec<_> = project.checkpoints().iter().map(|one| one["digest"].clone()).collect();
    for (damage, words) in
        [(lose as fn(&Path), "it is missing"), (truncate, "is damaged"), (unbrace, "is damaged")]
    {
        damage(&index);
        let blobs = contents(&project);
        for command in [&["checkpoint", "list"][..], &["gc"], &["build", "pipeline.toml", "--no-test"]] {
            let refused = project.isokiln(command).expect_code(3).says("index.json is damaged: ").says(words);
            refused.says("hint: isokiln verify writes the index anew");
        }
        assert_eq!(contents(&project), blobs, "nothing is collected for want of an index");
        let verified =
            project.isokiln(&["verify"]).expect_code(3).prints("DAMAGED").prints("index.json is damaged");
        verified.prints("written anew from the manifests");
        assert_eq!(verify(&project, 0)["manifests"], 12);
        let mut after: Vec<_> = project.checkpoints().iter().map(|one| one["digest"].clone()).collect();
        after.sort_by_key(|digest| before.iter().position(|one| one == digest));
        assert_eq!(after, before);
        project.build(&[]).expect_code(0).says("0 stages run, 4 from checkpoints");
        assert!(project.artifact("list.txt").is_file());
    }
}

#[test]
fn a_rollback_holds_until_it_is_ended() {
    let project = built();
    let old = project.checkpoint("one")["digest"].as_str().expect("a digest").to_owned();
    project.edit("pipeline.toml", "seq 50000", "seq 50001");
    project.build(&[]).expect_code(0);
    // As people see it in the list.
    let rollback = ["rollback", "one", "--digest", &old[7..19]];
    let rolled =
        project.isokiln(&rollback).expect_code(0).prints("goes on from one ").prints("forgot two, list");
    rolled.prints("until isokiln checkpoint unpin one, or build --from one");
    assert_eq!(stages(&project), ["base", "one", "one"]);
    // A collection spares what was rolled back to, though there is a newer one.
    project.isokiln(&["gc", "--keep", "1"]).expect_code(0);
    project.isokiln(&["plan", "pipeline.toml"]).expect_code(0).prints("rolled back to");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two done, list done");
    assert_eq!(project.record()["stages"][1]["manifest"], old.as_str());

    // Ended by the command: the checkpoint of the stage as it is now counts again.
    project.isokiln(&["checkpoint", "unpin", "one"]).expect_code(0).prints("runs one if it has changed");
    project.isokiln(&["checkpoint", "unpin", "one"]).expect_code(0).prints("was not rolled back");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two done, list done");
    assert_ne!(project.record()["stages"][1]["manifest"], old.as_str());

    // Ended by running the stage again; without that a change has no effect.
    project.isokiln(&rollback).expect_code(0);
    project.edit("pipeline.toml", "seq 50001", "seq 50002");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two done, list done");
    project.build(&["--from", "one"]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one done, two done, list done");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two hit, list hit");
    assert_ne!(project.record()["stages"][1]["manifest"], old.as_str());
    project.isokiln(&["verify"]).expect_code(0);
}

#[test]
fn a_rollback_to_a_stage_that_reads_forgets_only_what_starts_from_it() {
    let project = built();
    // Another branch with the very layers of the first.
    project.edit(
        "pipeline.toml",
        "uses = \"listing\"\n",
        "uses = \"listing\"\n\n[[stage]]\nname = \"twin\"\nfrom = \"one\"\nrun = \"echo two  >/etc/two\"\n",
    );
    project.build(&[]).expect_code(0);
    assert_eq!(project.checkpoint("twin")["diff_ids"], project.checkpoint("two")["diff_ids"]);
    project.isokiln(&["checkpoint", "rollback", "list"]).expect_code(0).never_says("forgot");
    assert_eq!(stages(&project), ["base", "one", "two", "list", "twin"]);
    let rolled =
        project.isokiln(&["checkpoint", "rollback", "two", "--format", "json"]).expect_code(0).json();
    assert_eq!(rolled["forgotten"], Value::from(["list"].as_slice()));
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two hit, twin hit, list done");
}

#[test]
fn collection_frees_what_is_old_here_and_in_the_engine_and_nothing_else() {
    let project = built();
    let other = built();
    let untouched = (contents(&other), layers(&other));
    for count in ["50001", "50002"] {
        let text = fs::read_to_string(project.path("pipeline.toml")).expect("a file");
        let before = text.split("seq ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
        project.edit("pipeline.toml", &format!("seq {before}"), &format!("seq {count}"));
        project.build(&[]).expect_code(0);
    }
    let (bytes, names) = contents(&project);
    let before = layers(&project);
    assert_eq!(before.0, before.1);
    let dry = project.isokiln(&["gc", "--keep", "1", "--dry-run", "--format", "json"]).expect_code(0).json();
    assert_eq!(contents(&project), (bytes, names), "a dry run removes nothing");
    assert_eq!(layers(&project), before, "nor in the engine");
    let collected = project.isokiln(&["gc", "--keep", "1", "--format", "json"]).expect_code(0).json();
    assert_eq!(dry, collected);
    assert_eq!(collected["runs"].as_array().map(Vec::len), Some(2));
    let freed = collected["bytes"].as_u64().expect("a number");
    assert!(freed > 0);
    assert_eq!(contents(&project).0, bytes - freed);
    assert_eq!(stages(&project), ["base", "one", "two", "list"]);
    let (there, needed) = layers(&project);
    assert_eq!(there, needed, "the engine holds the layers of checkpoints and no others");
    assert!(there.len() < before.0.len());
    project.isokiln(&["verify"]).expect_code(0);
    project.build(&[]).expect_code(0).says("0 stages run, 4 from checkpoints");
    let again = project.isokiln(&["gc", "--keep", "1", "--format", "json"]).expect_code(0).json();
    assert_eq!(again["files"], 0);

    // The same engine serves another folder, which has not noticed.
    project.isokiln(&["clean"]).expect_code(0);
    assert_eq!((contents(&other), layers(&other)), untouched);
    other.build(&["--from", "two"]).expect_code(0).never_says("unpacking layer");
    assert_eq!(other.outcome(), "base hit, one hit, two done, list done");
}

#[test]
fn a_stage_with_another_name_leaves_artifacts_of_that_name() {
    let project = built();
    project.edit("pipeline.toml", "\"list\"", "\"inventory\"");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, one hit, two hit, inventory done");
    assert!(project.artifact("inventory.txt").is_file());
    assert!(!project.artifact("list.txt").exists());
    // A stage that changes the tree runs too, but what starts from it does not.
    project.edit("pipeline.toml", "\"one\"", "\"first\"");
    project.build(&[]).expect_code(0);
    assert_eq!(project.outcome(), "base hit, first done, two hit, inventory hit");
}

#[test]
fn runs_that_are_young_enough_stay() {
    let project = Project::tiny("");
    for _ in 0..3 {
        project.build(&[]).expect_code(0);
    }
    project.isokiln(&["gc", "--keep", "1", "--keep-for", "1d"]).expect_code(0).prints(" 0 runs (");
    assert_eq!(project.runs().len(), 3);
    project.isokiln(&["gc", "--keep", "1"]).expect_code(0).prints(" 2 runs (");
    assert_eq!(project.runs().len(), 1);
}
