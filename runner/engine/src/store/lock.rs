//! Who may write to a store when. Builds of different pipelines write side by side, those of the same one after the
//! other, and whoever removes something is alone. The locks are the kernel's, so they end with their process,
//! however that ends.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use isokiln_core::names::PipelineName;

use super::{IoContext, StoreError};
use crate::guard::has_name;

/// The file that all writers lock: builds together, others alone.
const ALL: &str = "lock";
/// Folder of the files that the builds of each pipeline lock.
const PIPELINES: &str = "locks";

/// What a process writes to a store for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// A build adds checkpoints of this pipeline.
    Build(PipelineName),
    /// A command uses checkpoints, which nobody may remove meanwhile; its name.
    Beside(&'static str),
    /// A command removes or repairs something; its name, for whoever has to wait for it.
    Alone(&'static str),
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(pipeline) => write!(f, "build of {pipeline}"),
            Self::Beside(command) | Self::Alone(command) => f.write_str(command),
        }
    }
}

/// Held while a process writes to a store.
#[derive(Debug)]
pub struct WriterLock {
    _files: Vec<File>,
}

impl WriterLock {
    /// Takes the locks in `folder`, which is made if need be, waiting for whoever has them; `waiting` is told who that is,
    /// in words that follow "waiting for".
    pub fn take(folder: &Path, writer: &Writer, mut waiting: impl FnMut(&str)) -> Result<Self, StoreError> {
        let all = folder.join(ALL);
        loop {
            match writer {
                Writer::Alone(_) => {
                    let mut file = open(&all)?;
                    if wait(&file, &all, Share::Alone, || waiting(&holder(folder, &all)))? {
                        sign(&mut file, writer);
                        return Ok(Self { _files: vec![file] });
                    }
                }
                Writer::Beside(_) => {
                    let file = open(&all)?;
                    if wait(&file, &all, Share::Together, || waiting(&holder(folder, &all)))? {
                        return Ok(Self { _files: vec![file] });
                    }
                }
                Writer::Build(pipeline) => {
                    let own = folder.join(PIPELINES).join(pipeline.as_str());
                    let mut queue = open(&own)?;
                    if !wait(&queue, &own, Share::Alone, || waiting(&in_words(signature(&own))))? {
                        continue;
                    }
                    sign(&mut queue, writer);
                    let file = open(&all)?;
                    let is_held = wait(&file, &all, Share::Together, || waiting(&holder(folder, &all)))?;
                    // Whoever had it may have removed the whole folder meanwhile.
                    if is_held && has_name(&queue, &own) {
                        return Ok(Self { _files: vec![queue, file] });
                    }
                }
            }
        }
    }
}

/// How a file is locked.
#[derive(Clone, Copy)]
enum Share {
    Alone,
    Together,
}

/// Locks a file, waiting if need be. False where the file has lost its name meanwhile: such a lock keeps nobody out.
fn wait(file: &File, path: &Path, share: Share, waiting: impl FnOnce()) -> Result<bool, StoreError> {
    let tried = match share {
        Share::Alone => file.try_lock(),
        Share::Together => file.try_lock_shared(),
    };
    match tried {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            waiting();
            match share {
                Share::Alone => file.lock(),
                Share::Together => file.lock_shared(),
            }
            .on("lock", path)?;
        }
        Err(TryLockError::Error(source)) => {
            return Err(StoreError::Io { action: "lock", path: path.to_owned(), source });
        }
    }
    Ok(has_name(file, path))
}

fn open(path: &Path) -> Result<File, StoreError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).on("make", folder)?;
    }
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).on("open", path)
}

/// Leaves word of who has the lock, for the next one who has to wait. It is of no other use, and a full disk has no room
/// for it.
fn sign(file: &mut File, writer: &Writer) {
    let words = format!("{} {writer}\n", std::process::id());
    let signed = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(words.as_bytes()));
    if let Err(error) = signed {
        tracing::debug!("the lock does not say who has it: {error}");
    }
}

/// Who has the lock that all writers share: a build, or whoever has it alone.
fn holder(folder: &Path, all: &Path) -> String {
    let is_alone = |path: &Path| {
        let asked = File::open(path).map(|file| file.try_lock_shared());
        matches!(asked, Ok(Err(TryLockError::WouldBlock)))
    };
    if is_alone(all) {
        return in_words(signature(all));
    }
    let builds = fs::read_dir(folder.join(PIPELINES)).into_iter().flatten().flatten();
    in_words(builds.map(|entry| entry.path()).find(|path| is_alone(path)).and_then(|path| signature(&path)))
}

/// Process and purpose of whoever signed last. A lock is taken a moment before its holder has signed.
fn signature(path: &Path) -> Option<(u32, String)> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    let (pid, purpose) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, purpose.to_owned()))
}

fn in_words(holder: Option<(u32, String)>) -> String {
    match holder {
        Some((pid, purpose)) => format!("process {pid}, which writes to the same store ({purpose})"),
        None => "another process, which writes to the same store".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn build(name: &str) -> Writer {
        Writer::Build(name.parse().unwrap())
    }

    fn at_once(folder: &Path, writer: &Writer) -> WriterLock {
        WriterLock::take(folder, writer, |holder| panic!("{writer:?} waits for {holder}")).unwrap()
    }

    /// Takes a lock that `first` keeps out; gives what was told, once `first` has been let go of.
    #[track_caller]
    fn told(folder: &Path, writer: &Writer, first: WriterLock) -> Vec<String> {
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            let second = scope
                .spawn(|| WriterLock::take(folder, writer, |holder| sender.send(holder.to_owned()).unwrap()));
            let words = receiver.recv().unwrap();
            drop(first);
            second.join().unwrap().unwrap();
            [words].into_iter().chain(receiver.try_iter()).collect()
        })
    }

    fn own(purpose: &str) -> String {
        format!("process {}, which writes to the same store ({purpose})", std::process::id())
    }

    #[test]
    fn builds_of_different_pipelines_write_together_and_those_of_one_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        let one = at_once(&path, &build("one"));
        let _other = at_once(&path, &build("other"));
        assert_eq!(told(&path, &build("one"), one), [own("build of one")]);
    }

    #[test]
    fn who_removes_something_waits_for_every_build_and_builds_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let alone = Writer::Alone("gc");
        let one = at_once(folder.path(), &build("one"));
        assert_eq!(told(folder.path(), &alone, one), [own("build of one")]);
        let gc = at_once(folder.path(), &alone);
        assert_eq!(told(folder.path(), &build("other"), gc), [own("gc")]);
        let gc = at_once(folder.path(), &alone);
        assert_eq!(told(folder.path(), &Writer::Alone("clean"), gc), [own("gc")]);
    }

    #[test]
    fn a_holder_that_has_not_said_who_it_is_is_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let holder = File::create(folder.path().join(ALL)).unwrap();
        holder.lock().unwrap();
        let first = WriterLock { _files: vec![holder] };
        let words = told(folder.path(), &Writer::Alone("gc"), first);
        assert_eq!(words, ["another process, which writes to the same store"]);
    }

    #[test]
    fn locks_that_were_removed_while_waiting_are_taken_anew() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        for writer in [Writer::Alone("gc"), build("one")] {
            let mut first = Some(at_once(&home, &Writer::Alone("clean")));
            let _second = WriterLock::take(&home, &writer, |_| {
                fs::remove_dir_all(&home).unwrap();
                drop(first.take());
            })
            .unwrap();
            // Who comes now has to wait for the second.
            assert!(File::open(home.join(ALL)).unwrap().try_lock().is_err());
            assert_eq!(signature(&home.join(ALL)).is_some(), matches!(writer, Writer::Alone(_)));
            drop(_second);
        }
    }
}
