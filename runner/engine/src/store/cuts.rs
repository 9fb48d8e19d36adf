//! Power cuts: the store on a disk that may lose whatever it was not told to keep.
//!
//! [`CutDisk`] writes for real, so that the store reads what it has written, and keeps a record of everything that it was
//! asked to do. From any beginning of that record a disk is made as a power cut at that moment may leave it: data that was
//! not synced is missing, torn or garbage, and every name in a folder that was not synced is the old one or any later one,
//! each for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use isokiln_core::digest::Digest;
use isokiln_core::image::{ARTIFACTS_TYPE, Artifact, Entry, LayerBlob, Role, attachment_documents};

use super::tests::{add, newest, note};
use super::*;

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// Something that the disk was asked to do.
#[derive(Debug, Clone)]
enum Deed {
    Name(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Write(usize, Vec<u8>),
    Sync(usize),
    SyncFolder(PathBuf),
    /// The bytes of a file that rest on the disk change by themselves.
    Rot(PathBuf, Vec<u8>),
}

#[derive(Default)]
struct Record {
    deeds: Vec<Deed>,
    files: usize,
    /// Deeds that are still done before the process is killed; `None` where it is not.
    left: Option<usize>,
}

impl Record {
    fn note(&mut self, deed: Deed) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
        }
        self.deeds.push(deed);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct CutDisk(Arc<Mutex<Record>>);

impl CutDisk {
    fn note(&self, deed: Deed) -> io::Result<()> {
        self.0.lock().unwrap().note(deed)
    }

    fn deeds(&self) -> Vec<Deed> {
        self.0.lock().unwrap().deeds.clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().deeds.len()
    }
}

struct CutFile {
    disk: CutDisk,
    number: usize,
    file: fs::File,
}

impl Disk for CutDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.note(Deed::Name(path.to_owned(), Node::Folder))?;
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut record = self.0.lock().unwrap();
        let number = record.files;
        record.note(Deed::Name(path.to_owned(), Node::File(number)))?;
        record.files += 1;
        let file = fs::File::create_new(path)?;
        Ok(Box::new(CutFile { disk: self.clone(), number, file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Deed::Rename(from.to_owned(), to.to_owned()))?;
        fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.note(Deed::SyncFolder(path.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !path.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.note(Deed::Remove(path.to_owned()))?;
        fs::remove_file(path)
    }
}

impl Write for CutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.note(Deed::Write(self.number, bytes.to_vec()))?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for CutFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.note(Deed::Sync(self.number))
    }
}

/// Bytes of a file: those that are safe, and those that were written since.
#[derive(Default, Clone)]
struct Data {
    safe: Vec<u8>,
    loose: Vec<u8>,
}

impl Data {
    /// What is found after the cut.
    fn after_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut found = self.safe.clone();
        if !self.loose.is_empty() {
            match dice.below(5) {
                0 => {}
                1 => found.extend(&self.loose[..dice.below(self.loose.len())]),
                2 => found.extend(vec![0; self.loose.len()]),
                3 => found.extend(self.loose.iter().map(|byte| byte ^ 0x5a)),
                _ => found.extend(&self.loose),
            }
        }
        found
    }
}

/// Makes what a power cut after `deeds` may leave of `from` in `to`.
fn cut(deeds: &[Deed], from: &Path, to: &Path, dice: &mut Dice) {
    let mut data: BTreeMap<usize, Data> = BTreeMap::new();
    // What each name may stand for: what is safe first, then what came since.
    let mut names: BTreeMap<PathBuf, Vec<Option<Node>>> = BTreeMap::new();
    let set = |names: &mut BTreeMap<PathBuf, Vec<Option<Node>>>, path: &Path, node| {
        names.entry(path.to_owned()).or_insert_with(|| vec![None]).push(node);
    };
    let now = |names: &BTreeMap<PathBuf, Vec<Option<Node>>>, path: &Path| *names[path].last().unwrap();
    for deed in deeds {
        match deed {
            Deed::Name(path, node) => set(&mut names, path, Some(*node)),
            Deed::Rename(old, new) => {
                let node = now(&names, old);
                set(&mut names, new, node);
                set(&mut names, old, None);
            }
            Deed::Remove(path) => set(&mut names, path, None),
            Deed::Write(file, bytes) => data.entry(*file).or_default().loose.extend(bytes),
            Deed::Sync(file) => {
                let data = data.entry(*file).or_default();
                data.safe.append(&mut data.loose);
            }
            Deed::SyncFolder(folder) => {
                for (path, nodes) in &mut names {
                    if path.parent() == Some(folder) {
                        nodes.drain(..nodes.len() - 1);
                    }
                }
            }
            Deed::Rot(path, bytes) => {
                if let Some(Node::File(file)) = now(&names, path) {
                    data.insert(file, Data { safe: bytes.clone(), loose: Vec::new() });
                }
            }
        }
    }
    // Folders come before what is in them.
    for (path, nodes) in &names {
        let place = to.join(path.strip_prefix(from).unwrap());
        if !place.parent().unwrap().is_dir() {
            continue;
        }
        match dice.pick(nodes) {
            None => {}
            Some(Node::Folder) => fs::create_dir(&place).unwrap(),
            Some(Node::File(file)) => {
                fs::write(&place, data.get(file).cloned().unwrap_or_default().after_cut(dice)).unwrap();
            }
        }
    }
}

/// What the index said, and how many deeds the disk had done by then.
struct Moment {
    deeds: usize,
    entries: Vec<Entry>,
    /// Whether the store had said that it is so.
    acknowledged: bool,
    /// Blobs that had rotted at some time.
    rotten: BTreeSet<Digest>,
}

/// A store that is used, and what it had promised when.
struct Life {
    folder: tempfile::TempDir,
    disk: CutDisk,
    dice: Dice,
    moments: Vec<Moment>,
    rotten: BTreeSet<Digest>,
    keys: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut life = Self {
            folder: tempfile::tempdir().unwrap(),
            disk: CutDisk::default(),
            dice: Dice(seed),
            moments: vec![Moment {
                deeds: 0,
                entries: Vec::new(),
                acknowledged: true,
                rotten: BTreeSet::new(),
            }],
            rotten: BTreeSet::new(),
            keys: 0,
        };
        life.store();
        life
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn store(&mut self) -> Store {
        Store::open_on(self.root(), Arc::new(self.disk.clone())).unwrap()
    }

    /// Notes what the index says now.
    fn note(&mut self, acknowledged: bool) {
        let read = fs::read(self.root().join("index.json")).ok();
        let entries = read.and_then(|index| Entry::read_index(&index).ok()).unwrap_or_default();
        let (deeds, rotten) = (self.disk.count(), self.rotten.clone());
        self.moments.push(Moment { deeds, entries, acknowledged, rotten });
    }

    fn chain(&mut self) -> Vec<LayerBlob> {
        let store = self.store();
        let checkpoints = store.checkpoints().unwrap();
        if checkpoints.is_empty() || self.dice.below(3) == 0 {
            return Vec::new();
        }
        self.dice.pick(&checkpoints).layers.clone()
    }

    fn add(&mut self) -> Result<(), StoreError> {
        self.keys += 1;
        // Some stages come out as before, from other inputs.
        let key = format!("key {}", if self.dice.below(4) == 0 { self.keys / 2 } else { self.keys });
        let stage = *self.dice.pick(&["base", "desktop", "iso"]);
        let below = self.chain();
        add(&self.store(), stage, &key, &below)?;
        self.note(true);
        Ok(())
    }

    fn add_artifact(&mut self) -> Result<(), StoreError> {
        self.keys += 1;
        let store = self.store();
        let (digest, size) = store.put_stream(format!("file {}", self.keys / 2).repeat(100).as_bytes())?;
        let file = Artifact { name: "file".to_owned(), digest, size };
        let documents = attachment_documents(ARTIFACTS_TYPE, &[file], None).unwrap();
        store.add(&documents, note(Role::Artifacts, "iso", &format!("key {}", self.keys)))?;
        self.note(true);
        Ok(())
    }

    /// Does one of the things that stores are used for.
    fn act(&mut self) -> Result<(), StoreError> {
        let choice = self.dice.below(12);
        let store = self.store();
        match choice {
            0..=3 => return self.add(),
            4 => return self.add_artifact(),
            5 => store.edit(|entry| entry.note.pinned = !entry.note.pinned)?,
            6 => drop(store.retain(|entry| entry.note.stage.as_str() != "desktop")?),
            7 => drop(store.collect(newest(1), false)?),
            8 => {
                let rule = KeepRule { newest: 9, since: None, max_bytes: Some(1000) };
                drop(store.collect(rule, false)?);
            }
            9 => {
                let report = store.verify(|_| ())?;
                store.repair(&report)?;
            }
            10 => drop(store.forget_damaged()?),
            _ => {
                let blobs = store.blobs()?;
                if blobs.is_empty() {
                    return Ok(());
                }
                let digest = self.dice.pick(&blobs).0;
                let path = store.blob_path(digest);
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::remove_file(&path).unwrap();
                fs::write(&path, &bytes).unwrap();
                self.disk.0.lock().unwrap().deeds.push(Deed::Rot(path, bytes));
                self.rotten.insert(digest);
            }
        }
        self.note(true);
        Ok(())
    }

    /// The same, by a process that is killed on the way.
    fn act_and_die(&mut self) {
        let left = self.dice.below(14);
        self.disk.0.lock().unwrap().left = Some(left);
        drop(self.act());
        self.disk.0.lock().unwrap().left = None;
        self.note(false);
    }

    /// What the index may say after a cut there: what was last promised, or anything that came after it.
    fn may_say(&self, deeds: usize) -> (Vec<&[Entry]>, BTreeSet<Digest>) {
        let promised = self.moments.iter().rposition(|m| m.acknowledged && m.deeds <= deeds).unwrap();
        let after = self.moments.iter().skip(promised + 1).position(|m| m.acknowledged && m.deeds > deeds);
        let last = after.map_or(self.moments.len() - 1, |after| promised + 1 + after);
        let moments = &self.moments[promised..=last];
        let rotten = moments.iter().flat_map(|moment| moment.rotten.iter().copied()).collect();
        (moments.iter().map(|moment| moment.entries.as_slice()).collect(), rotten)
    }
}

/// Cuts the power there and looks at what is left; gives what is wrong with it.
fn check(life: &mut Life, deeds: &[Deed], count: usize) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    cut(deeds, life.folder.path(), folder.path(), &mut life.dice);
    let (may_say, rotten) = life.may_say(count);
    let told = |error: StoreError| error.to_string();
    let quick = Arc::new(CutDisk::default());
    let store = Store::open_on(folder.path().join("store"), quick).map_err(told)?;
    let entries = store.entries().map_err(told)?;
    if !may_say.contains(&entries.as_slice()) {
        return Err(format!("the index says {entries:#?}"));
    }
    let report = store.verify(|_| ()).map_err(told)?;
    if let Some(damage) = report.damage.iter().find(|damage| !rotten.contains(&damage.blob)) {
        return Err(format!("{damage:#?}"));
    }
    store.repair(&report).map_err(told)?;
    store.forget_damaged().map_err(told)?;
    store.collect(newest(9), false).map_err(told)?;
    let mut names = fs::read_dir(store.blob_folder()).unwrap().map(|file| file.unwrap().file_name());
    if let Some(left) = names.find(|name| name.to_string_lossy().starts_with('.')) {
        return Err(format!("{left:?} is left"));
    }
    add(&store, "next", "next", &[]).map_err(told)?;
    let report = store.verify(|_| ()).map_err(told)?;
    if report.is_clean() { Ok(()) } else { Err(format!("at last: {report:#?}")) }
}

/// Uses a store, and cuts its power at so many moments; `forgets` says what the disk does not do though it is asked to.
/// Gives what went wrong.
fn live_and_cut(seed: u64, cuts: usize, forgets: impl Fn(&Path, &Deed) -> bool) -> Vec<String> {
    let mut life = Life::new(seed);
    for _ in 0..10 {
        if life.dice.below(4) == 0 {
            life.act_and_die();
        } else if let Err(error) = life.act() {
            panic!("seed {seed}: {error}");
        }
    }
    let deeds = life.disk.deeds();
    let mut wrong = Vec::new();
    for nth in 0..cuts {
        // The last one comes when everything has been acknowledged.
        let point = if nth + 1 == cuts { deeds.len() } else { life.dice.below(deeds.len() + 1) };
        let root = life.folder.path().to_owned();
        let done: Vec<_> = deeds[..point].iter().filter(|deed| !forgets(&root, deed)).cloned().collect();
        if let Err(what) = check(&mut life, &done, point) {
            wrong.push(format!("seed {seed}, cut after {point} of {} deeds: {what}", deeds.len()));
        }
    }
    wrong
}

#[test]
fn a_power_cut_at_any_moment_costs_nothing_that_was_acknowledged() {
    let wrong: Vec<_> = (1..=14).flat_map(|seed| live_and_cut(seed, 30, |_, _| false)).collect();
    assert!(wrong.is_empty(), "{} of 420: {}", wrong.len(), wrong[0]);
}

/// Whether one of some stores shows that the disk forgets something.
fn is_found_out(forgets: impl Fn(&Path, &Deed) -> bool) -> bool {
    (1..=20).any(|seed| !live_and_cut(seed, 10, &forgets).is_empty())
}

#[test]
fn these_cuts_find_every_sync_that_is_left_out() {
    assert!(is_found_out(|_, deed| matches!(deed, Deed::Sync(_))), "bytes");
    for folder in ["", "store", "store/blobs", "store/blobs/sha256"] {
        let is_it =
            |root: &Path, deed: &Deed| matches!(deed, Deed::SyncFolder(it) if *it == root.join(folder));
        assert!(is_found_out(is_it), "names in {folder:?}");
    }
}
