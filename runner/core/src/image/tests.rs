//! Documents are reproducible and read back as written.

use std::collections::BTreeMap;

use super::*;
use crate::digest::{DiffId, Digest};
use crate::plan::StageInputs;

fn layers() -> Vec<LayerBlob> {
    ["one", "two"]
        .map(|name| LayerBlob {
            diff_id: DiffId(Digest::of(name)),
            digest: Digest::of(format!("{name} compressed")),
            size: 1000,
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
        })
        .to_vec()
}

fn inputs() -> StageInputs {
    StageInputs(BTreeMap::from([("kind".to_owned(), "script".to_owned())]))
}

fn documents() -> Documents {
    let stages = ["base", "tweaks"].map(|name| (name.parse().unwrap(), true));
    checkpoint_documents(&"demo".parse().unwrap(), &stages, &inputs(), &layers(), 1_700_000_000).unwrap()
}

fn entry(stage: &str, created: i64, manifest: Digest) -> Entry {
    Entry {
        manifest,
        size: 7,
        note: EntryNote {
            role: Role::Checkpoint,
            key: Digest::of(stage),
            pipeline: "demo".parse().unwrap(),
            stage: stage.parse().unwrap(),
            run: "r1".parse().unwrap(),
            created,
            pinned: false,
        },
    }
}

#[test]
fn a_checkpoint_reads_back_as_written() {
    let documents = documents();
    let entry = entry("tweaks", 5, Digest::of(&documents.manifest));
    let checkpoint = entry.checkpoint(&documents.manifest, &documents.blobs[0]).unwrap();
    assert_eq!(checkpoint.layers, layers());
    assert_eq!(checkpoint.inputs, inputs());
    assert_eq!(checkpoint.diff_ids()[0], DiffId(Digest::of("one")));
    assert_eq!(checkpoint.size_bytes(), 2000);
    let references = Entry::references(&documents.manifest).unwrap();
    assert_eq!(references.len(), 3);
    assert_eq!(references[0].0, Digest::of(&documents.blobs[0]));
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    for _ in 0..20 {
        assert_eq!(documents().manifest, documents().manifest);
        assert_eq!(documents().blobs, documents().blobs);
    }
}

#[test]
fn the_documents_are_as_the_specification_asks() {
    let documents = documents();
    let pretty = |bytes: &[u8]| {
        serde_json::to_string_pretty(&serde_json::from_slice::<serde_json::Value>(bytes).unwrap()).unwrap()
    };
    let index = Entry::write_index(&[entry("tweaks", 5, Digest::of(&documents.manifest))]);
    insta::assert_snapshot!(
        [pretty(&documents.manifest), pretty(&documents.blobs[0]), pretty(&index)].join("\n---\n")
    );
}

#[test]
fn only_the_newest_checkpoint_of_a_stage_bears_its_name() {
    let entries = [entry("base", 1, Digest::of("old")), entry("base", 2, Digest::of("new"))];
    let index = Entry::write_index(&entries);
    assert_eq!(Entry::read_index(&index).unwrap(), entries);
    let document: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let name =
        |index: usize| &document["manifests"][index]["annotations"]["org.opencontainers.image.ref.name"];
    assert!(name(0).is_null());
    assert_eq!(name(1), "demo-base");
}

#[test]
fn manifests_of_other_tools_are_left_out_and_damage_is_named() {
    let foreign =
        br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1}]}"#;
    assert_eq!(Entry::read_index(foreign), Ok(vec![]));
    assert!(Entry::read_index(b"{").is_err());
    let documents = documents();
    assert!(entry("x", 1, Digest::of("x")).checkpoint(&documents.manifest, b"{}").is_err());
}

#[test]
fn a_file_whose_name_leads_elsewhere_is_refused() {
    for name in ["", ".", "..", "../x", "/etc/passwd", "a/b"] {
        let file = Artifact { name: name.into(), digest: Digest::of("x"), size: 1 };
        let documents = attachment_documents(ARTIFACTS_TYPE, &[file], None).unwrap();
        assert!(Entry::files(&documents.manifest).unwrap_err().contains("no name of a file"), "{name:?}");
    }
}

#[test]
fn attachments_list_their_files_and_their_subject() {
    let file = Artifact { name: "demo.iso".into(), digest: Digest::of("iso"), size: 9 };
    let subject = Digest::of("checkpoint");
    let documents =
        attachment_documents(ARTIFACTS_TYPE, std::slice::from_ref(&file), Some((subject, 5))).unwrap();
    assert_eq!(Entry::files(&documents.manifest).unwrap(), [file]);
    let manifest: serde_json::Value = serde_json::from_slice(&documents.manifest).unwrap();
    assert_eq!(manifest["subject"]["digest"], subject.to_string());
    assert_eq!(manifest["artifactType"], ARTIFACTS_TYPE);
}
