//! A disk of a test's own: an ext4 file system in a file, whose power can be cut.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::footprint::Trace;

/// An ext4 file system in a file, mounted on a folder until it is dropped. Needs root, loop devices and e2fsprogs.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    device: String,
}

/// What was on a disk at one instant.
#[derive(Debug)]
pub struct Snapshot(PathBuf);

const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing but isokiln's own syncs is to bring anything onto the disk: the journal is not written for its own sake, and
/// a rename over a file does not write out what the new one holds.
const OPTIONS: &str = "loop,commit=600,noauto_da_alloc";
/// What a full disk is filled with.
const FILLER: &str = "filler";

impl Disk {
    /// Makes a file system of so many bytes and inodes, and mounts it.
    #[track_caller]
    pub fn new(image: PathBuf, mount: PathBuf, bytes: u64, inodes: u32) -> Self {
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("room for a disk");
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .args(["-m", "0", "-N", &inodes.to_string()])
            .arg(&image));
        Self::mount(image, mount)
    }

    #[track_caller]
    fn mount(image: PathBuf, mount: PathBuf) -> Self {
        fs::create_dir_all(&mount).expect("a folder");
        run(Command::new("mount").args(["-t", "ext4", "-o", OPTIONS]).arg(&image).arg(&mount));
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mut lines = mounts.lines().rev().map(|line| line.split(' ').collect::<Vec<_>>());
        let device = lines.find(|words| Path::new(words[1]) == mount).map(|words| words[0].to_owned());
        let device = device.expect("it is mounted").trim_start_matches("/dev/").to_owned();
        drop(fs::remove_dir(mount.join("lost+found")));
        Self { image, mount, device }
    }

    /// Whether something is there because of this disk.
    pub fn is_behind(&self, trace: &Trace) -> bool {
        let names = |path: &Path| trace.name.contains(&*path.to_string_lossy());
        match trace.kind {
            "mount" => names(&self.mount),
            "loop device" => names(&self.image),
            _ => false,
        }
    }

    /// Brings everything onto the disk.
    pub fn sync(&self) {
        run(Command::new("sync").arg("--file-system").arg(&self.mount));
    }

    /// What is on the disk now, without what only memory holds. Whoever writes to it should be stopped: it is copied again
    /// and again until the device was not written to meanwhile.
    #[track_caller]
    pub fn snapshot(&self) -> Snapshot {
        let copy = self.image.with_extension("cut");
        let counters = format!("/sys/block/{}/stat", self.device);
        // Writes finished, and requests in flight.
        let counts = || {
            let text = fs::read_to_string(&counters).expect("the device counts");
            let counts: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            (counts[4], counts[8])
        };
        let since = Instant::now();
        loop {
            let before = counts();
            run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&copy));
            if before.1 == 0 && counts() == before {
                return Snapshot(copy);
            }
            assert!(since.elapsed() < PATIENCE, "somebody writes to {} all the time", self.mount.display());
        }
    }

    /// Goes back to what was on the disk then, as a machine does that has power again.
    #[track_caller]
    pub fn go_back(self, snapshot: Snapshot) -> Self {
        let (image, mount) = (self.image.clone(), self.mount.clone());
        drop(self);
        fs::rename(&snapshot.0, &image).expect("the snapshot is there");
        let disk = Self::mount(image, mount);
        run(Command::new("sync").arg("--file-system").arg(&disk.mount));
        disk
    }

    /// Holds every write until it is thawed.
    pub fn freeze(&self) {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.mount));
    }

    /// Lets writes go on.
    pub fn thaw(&self) {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.mount));
    }

    /// Leaves no room for a byte.
    pub fn fill(&self) {
        fill(&self.mount);
    }

    /// Leaves no room for another file, however small.
    pub fn use_inodes_up(&self) {
        let folder = self.mount.join(FILLER);
        fs::create_dir(&folder).expect("room for a folder");
        let mut count = 0;
        while File::create(folder.join(count.to_string())).is_ok() {
            count += 1;
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        free(&self.mount);
    }
}

/// Leaves no room for a byte on the file system of a folder.
pub(super) fn fill(folder: &Path) {
    let mut file = File::create(folder.join(FILLER)).expect("a file");
    let mut piece = vec![0x55; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}

/// Gives the room back.
pub(super) fn free(folder: &Path) {
    let filler = folder.join(FILLER);
    drop(fs::remove_file(&filler));
    drop(fs::remove_dir_all(&filler));
}

impl Drop for Disk {
    fn drop(&mut self) {
        let since = Instant::now();
        // Whoever was killed may need a moment to let go of it.
        while !Command::new("umount").arg(&self.mount).output().is_ok_and(|done| done.status.success()) {
            if since.elapsed() > PATIENCE {
                drop(Command::new("umount").arg("--lazy").arg(&self.mount).status());
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(fs::remove_file(&self.image));
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let done = command.output();
    let said = match &done {
        Ok(done) if done.status.success() => return,
        Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!("{command:?} failed: {said}; a disk of one's own needs root, loop devices and e2fsprogs");
}
