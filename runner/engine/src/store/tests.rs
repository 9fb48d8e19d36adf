//! The store on real and on failing disks.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use isokiln_core::digest::Digest;
use isokiln_core::image::{
    ARTIFACTS_TYPE, Artifact, EntryNote, LayerBlob, Role, attachment_documents, checkpoint_documents,
};
use isokiln_core::plan::StageInputs;
use tar::{Builder, Header};

use super::*;

/// The tar of a made-up upper directory: one file with that text.
pub(super) fn tar_of(text: &str) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", text.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

pub(super) fn note(role: Role, stage: &str, key: &str) -> EntryNote {
    EntryNote {
        role,
        key: Digest::of(key),
        pipeline: "demo".parse().unwrap(),
        stage: stage.parse().unwrap(),
        run: "r1".parse().unwrap(),
        created: 1,
        pinned: false,
    }
}

/// Adds a checkpoint on top of `layers`; gives its layers.
pub(super) fn add(
    store: &Store,
    stage: &str,
    key: &str,
    below: &[LayerBlob],
) -> Result<Vec<LayerBlob>, StoreError> {
    let stored = store.add_layer(tar_of(key).as_slice(), Compression::Zstd)?;
    let mut layers = below.to_vec();
    layers.push(stored.blob);
    let note = note(Role::Checkpoint, stage, key);
    let chain = [(note.stage.clone(), true)];
    let documents =
        checkpoint_documents(&note.pipeline, &chain, &StageInputs::default(), &layers, 0).unwrap();
    store.add(&documents, note)?;
    Ok(layers)
}

fn restore(store: &Store, layer: &LayerBlob) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    store.restore_layer(layer, &mut bytes).map(|_| bytes)
}

fn problems(store: &Store) -> Vec<String> {
    store.verify(|_| ()).unwrap().damage.into_iter().map(|damage| damage.problem).collect()
}

/// Keeps so many checkpoints of each stage.
pub(super) fn newest(newest: usize) -> KeepRule {
    KeepRule { newest, ..KeepRule::default() }
}

/// Overwrites a byte in the middle of a blob.
fn flip(store: &Store, digest: Digest) {
    let path = store.blob_path(digest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    overwrite(&path, &bytes);
}

/// Blobs are read-only; what damages them does not ask.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_a_dead_writer_has_left_is_dropped_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let blob = store.put(b"whole").unwrap();
    let left = [store.blob_folder().join(".tmp-1-1"), folder.path().join(".tmp-1-2")];
    for path in &left {
        fs::write(path, "half").unwrap();
    }
    let aside = store.blob_folder().join(".damaged-1");
    fs::write(&aside, "set aside").unwrap();
    store.drop_unfinished().unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    assert!(aside.exists() && folder.path().join("index.json").exists());
    assert_eq!(store.get(blob).unwrap(), b"whole");
}

#[test]
fn layers_come_back_whole_in_either_compression() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let text = "contents ".repeat(400_000);
    let zstd = store.add_layer(tar_of(&text).as_slice(), Compression::Zstd).unwrap();
    let gzip = store.add_layer(tar_of(&text).as_slice(), Compression::Gzip).unwrap();
    assert_eq!(zstd.blob.diff_id, gzip.blob.diff_id, "the identity does not depend on the compression");
    assert_ne!(zstd.blob.digest, gzip.blob.digest);
    assert_eq!(restore(&store, &zstd.blob).unwrap(), restore(&store, &gzip.blob).unwrap());
    assert_eq!(zstd.unpacked, zstd.census.members * 512 + text.len().div_ceil(512) as u64 * 512 + 1024);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn checkpoints_are_found_by_key_and_by_stage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "one", &[]).unwrap();
    add(&store, "desktop", "two", &base).unwrap();
    let found = store.find(Role::Checkpoint, Digest::of("two")).unwrap().unwrap();
    assert_eq!(store.checkpoint(&found).unwrap().layers.len(), 2);
    let newest = store.newest(None, &"base".parse().unwrap()).unwrap().unwrap();
    assert_eq!(newest.layers, base);
    assert!(store.newest(None, &"iso".parse().unwrap()).unwrap().is_none());
    let reopened = Store::open(folder.path()).unwrap();
    assert_eq!(reopened.checkpoints().unwrap(), store.checkpoints().unwrap());
}

#[test]
fn a_flipped_bit_is_found_on_reading_and_by_verify() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "one", &[]).unwrap();
    add(&store, "desktop", "two", &base).unwrap();
    flip(&store, base[0].digest);
    let error = restore(&store, &base[0]).unwrap_err();
    assert_eq!(error.broken_blob(), Some(base[0].digest), "{error}");
    let report = store.verify(|_| ()).unwrap();
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].stages, ["demo/base", "demo/desktop"]);
}

#[test]
fn a_truncated_and_a_missing_blob_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "one", &[]).unwrap();
    let path = store.blob_path(base[0].digest);
    for length in [0, 2, 10, fs::metadata(&path).unwrap().len() - 1] {
        let whole = fs::read(&path).unwrap();
        overwrite(&path, &whole[..length as usize]);
        let error = restore(&store, &base[0]).unwrap_err();
        assert_eq!(error.broken_blob(), Some(base[0].digest), "cut to {length}: {error}");
        assert_eq!(problems(&store).len(), 1);
        overwrite(&path, &whole);
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(restore(&store, &base[0]), Err(StoreError::Missing { .. })));
    assert_eq!(problems(&store), ["the blob is missing"]);
}

#[test]
fn what_rests_on_a_broken_blob_is_forgotten_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "one", &[]).unwrap();
    let desktop = add(&store, "desktop", "two", &base).unwrap();
    flip(&store, desktop[1].digest);
    store.set_aside(desktop[1].digest).unwrap();
    let gone = store.forget_damaged().unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(store.checkpoints().unwrap().len(), 1);
    assert_eq!(problems(&store), [""; 0]);
    // Made anew, it is whole again.
    add(&store, "desktop", "two", &base).unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_document_that_is_damaged_is_whole_when_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    add(&store, "base", "one", &[]).unwrap();
    let manifest = store.entries().unwrap()[0].manifest;
    flip(&store, manifest);
    assert_eq!(problems(&store).len(), 1);
    add(&store, "base", "one", &[]).unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_store_that_has_lost_its_index_takes_no_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "one", &[]).unwrap();
    fs::remove_file(store.index_path()).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert!(matches!(store.collect(newest(1), false), Err(StoreError::BadIndex { .. })));
    let report = store.verify(|_| ()).unwrap();
    assert!(report.index.is_some() && report.damage.is_empty());
    store.repair(&report).unwrap();
    assert_eq!(store.checkpoints().unwrap()[0].layers, base);
    assert!(store.verify(|_| ()).unwrap().is_clean());
}

#[test]
fn a_new_checkpoint_ends_the_rollback_of_its_stage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    add(&store, "base", "one", &[]).unwrap();
    add(&store, "other", "x", &[]).unwrap();
    store.edit(|entry| entry.note.pinned = true).unwrap();
    add(&store, "base", "two", &[]).unwrap();
    let pinned = store.entries().unwrap().into_iter().filter(|entry| entry.note.pinned);
    assert_eq!(pinned.map(|entry| entry.note.stage.to_string()).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn collection_keeps_the_newest_the_pinned_and_what_they_rest_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let first = add(&store, "base", "one", &[]).unwrap();
    let second = add(&store, "base", "two", &[]).unwrap();
    let third = add(&store, "base", "three", &[]).unwrap();
    store.edit(|entry| entry.note.pinned = entry.note.key == Digest::of("one")).unwrap();
    fs::write(store.blob_folder().join(".tmp-1-1"), "left behind").unwrap();

    let plan = store.collect(newest(1), true).unwrap();
    assert!(store.blob_path(second[0].digest).is_file(), "a dry run removes nothing");
    let report = store.collect(newest(1), false).unwrap();
    assert_eq!(plan, report);
    assert_eq!(report.entries, ["demo/base"]);
    assert!(!store.blob_path(second[0].digest).is_file());
    assert!(store.blob_path(first[0].digest).is_file() && store.blob_path(third[0].digest).is_file());
    assert!(!store.blob_folder().join(".tmp-1-1").exists());
    assert_eq!(problems(&store), [""; 0]);
    let again = store.collect(newest(1), false).unwrap();
    assert_eq!(again, GcReport { kept_bytes: report.kept_bytes, ..GcReport::default() });
}

#[test]
fn a_size_limit_takes_the_oldest_first_and_never_the_newest_or_what_it_rests_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "base", &[]).unwrap();
    // Nothing of the newest base is in what rests on the older one.
    for key in ["one", "two", "three"] {
        add(&store, "desktop", key, &base).unwrap();
    }
    add(&store, "base", "other base", &[]).unwrap();
    store.edit(|entry| entry.note.pinned = entry.note.key == Digest::of("one")).unwrap();
    let sum = || store.blobs().unwrap().iter().map(|(_, size)| size).sum::<u64>();
    let keys = || {
        let entries = store.entries().unwrap().into_iter();
        let names = ["base", "one", "two", "three", "other base"];
        let name = |key| names.into_iter().find(|name| Digest::of(name) == key).unwrap();
        entries.map(|entry| name(entry.note.key)).collect::<Vec<_>>()
    };
    let limit = |bytes| KeepRule { newest: 9, since: Some(0), max_bytes: Some(bytes) };
    let all = sum();
    assert_eq!(store.collect(limit(all), false).unwrap().files, 0);

    let report = store.collect(limit(all - 1), false).unwrap();
    assert_eq!(report.held_by, []);
    assert_eq!(keys(), ["one", "two", "three", "other base"], "its layer stays, for the others rest on it");
    assert!(store.blob_path(base[0].digest).is_file());
    let report = store.collect(limit(1), false).unwrap();
    assert_eq!(keys(), ["one", "three", "other base"], "the newest and the pinned stay");
    assert_eq!(report.kept_bytes, sum());
    assert_eq!(report.held_by.iter().map(|holding| holding.bytes).sum::<u64>(), sum());
    assert_eq!(report.held_by[0].stage, "demo/desktop");
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn what_is_young_stays_whatever_the_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for (key, created) in [("one", 10), ("two", 20), ("three", 30)] {
        add(&store, "base", key, &[]).unwrap();
        store
            .edit(|entry| {
                if entry.note.key == Digest::of(key) {
                    entry.note.created = created
                }
            })
            .unwrap();
    }
    let times = || store.entries().unwrap().iter().map(|entry| entry.note.created).collect::<Vec<_>>();
    let rule = KeepRule { newest: 1, since: Some(20), max_bytes: None };
    store.collect(rule, false).unwrap();
    assert_eq!(times(), [20, 30]);
    store.collect(newest(1), false).unwrap();
    assert_eq!(times(), [30]);
}

#[test]
fn two_who_add_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let folder = folder.path();
            scope.spawn(move || {
                // Each opens the store by itself, which none has made yet.
                let store = Store::open(folder).unwrap();
                for count in 0..5 {
                    // All store the same layer, each enters it under a key of its own.
                    let stored = store.add_layer(tar_of("same").as_slice(), Compression::Gzip).unwrap();
                    let note =
                        note(Role::Checkpoint, &format!("stage{writer}"), &format!("{writer} {count}"));
                    let chain = [(note.stage.clone(), true)];
                    let documents = checkpoint_documents(
                        &note.pipeline,
                        &chain,
                        &StageInputs::default(),
                        &[stored.blob],
                        0,
                    );
                    store.add(&documents.unwrap(), note).unwrap();
                }
            });
        }
    });
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.entries().unwrap().len(), 20);
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn a_name_that_a_killed_writer_has_left_is_not_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // In a container every first process has the same id.
    for count in 0..1000 {
        fs::write(store.blob_folder().join(format!(".tmp-{}-{count}", std::process::id())), "left").unwrap();
    }
    add(&store, "base", "one", &[]).unwrap();
    assert_eq!(problems(&store), [""; 0]);
}

#[test]
fn attachments_are_stored_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (digest, size) = store.put_stream(b"an iso".as_slice()).unwrap();
    let file = Artifact { name: "demo.iso".into(), digest, size };
    let documents = attachment_documents(ARTIFACTS_TYPE, std::slice::from_ref(&file), None).unwrap();
    let entry = store.add(&documents, note(Role::Artifacts, "iso", "k")).unwrap();
    assert_eq!(store.files(&entry).unwrap(), [file]);
    let mut text = String::new();
    store.reader(digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "an iso");
}

#[test]
fn an_export_holds_one_checkpoint_and_is_refused_when_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let base = add(&store, "base", "one", &[]).unwrap();
    add(&store, "desktop", "two", &base).unwrap();
    let manifest = store.newest(None, &"base".parse().unwrap()).unwrap().unwrap().manifest;
    let mut archive = Vec::new();
    store.export(manifest, &mut archive).unwrap();
    let mut archive = tar::Archive::new(archive.as_slice());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names.len(), 7, "layout, index, two folders, manifest, config and one layer: {names:?}");
    flip(&store, base[0].digest);
    let error = store.export(manifest, io::sink()).unwrap_err();
    assert_eq!(error.broken_blob(), Some(base[0].digest), "{error}");
}

/// A disk on which the n-th operation fails, and every one after it: a full disk, or a crash.
struct FailingDisk {
    left: Arc<AtomicUsize>,
}

struct FailingFile {
    left: Arc<AtomicUsize>,
    file: Box<dyn DiskFile>,
}

fn spend(left: &AtomicUsize) -> io::Result<()> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::ErrorKind::StorageFull.into()),
    }
}

impl Disk for FailingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        spend(&self.left)?;
        Ok(Box::new(FailingFile { left: self.left.clone(), file: RealDisk.create(path)? }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.rename(from, to)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.sync_folder(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        spend(&self.left)?;
        RealDisk.remove(path)
    }
}

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        spend(&self.left)?;
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DiskFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        spend(&self.left)?;
        self.file.sync()
    }
}

#[test]
fn whichever_operation_fails_the_store_verifies_and_earlier_checkpoints_stay() {
    let (mut survived, mut entered) = (0, 0);
    for operations in 0.. {
        let folder = tempfile::tempdir().unwrap();
        add(&Store::open(folder.path()).unwrap(), "base", "one", &[]).unwrap();
        let left = Arc::new(AtomicUsize::new(operations));
        let failing = Store::open_on(folder.path(), Arc::new(FailingDisk { left })).unwrap();
        let result = add(&failing, "desktop", "two", &[]);

        let store = Store::open(folder.path()).unwrap();
        assert_eq!(problems(&store), [""; 0], "after {operations} operations");
        let stages: Vec<_> = store.checkpoints().unwrap().iter().map(|c| c.stage.to_string()).collect();
        match result {
            Ok(_) => {
                assert_eq!(stages, ["base", "desktop"]);
                break;
            }
            Err(error) => {
                assert!(error.is_disk_full(), "after {operations} operations: {error:?}");
                // What failed last of all is to make sure that the name of the index survives a power cut.
                assert_eq!(stages[0], "base", "after {operations} operations");
                entered += usize::from(stages == ["base", "desktop"]);
                survived += 1;
            }
        }
        // The next build continues from there, and the collector takes what was left.
        add(&store, "desktop", "two", &[]).unwrap();
        store.collect(newest(9), false).unwrap();
        let names = fs::read_dir(store.blob_folder()).unwrap();
        assert!(names.map(|f| f.unwrap().file_name()).all(|n| !n.to_string_lossy().starts_with('.')));
    }
    assert!(survived > 8, "only {survived} operations were made to fail");
    assert!(entered <= 1, "{entered} checkpoints were entered by what failed");
}
