//! What was around a stage when its checkpoint was made, and what its script was given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::kind::{Privilege, RootfsUse};
use crate::names::{RunId, StageName};
use crate::pipeline::Limits;
use crate::review::{Action, Judgement};

/// The record of a checkpoint's making. It differs each time, so it lies beside the checkpoint and not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Circumstances {
    /// The stage.
    pub stage: StageName,
    /// The run that made the checkpoint.
    pub run: RunId,
    /// When, in seconds since 1970.
    pub created: i64,
    /// Digest of the checkpoint's manifest.
    pub manifest: Digest,
    /// The stage's key.
    pub key: Digest,
    /// What was around the script when it ended; absent where the stage did not tell.
    pub surroundings: Option<Surroundings>,
    /// What reviews had come to by then.
    pub review: ReviewMemory,
    /// What the script was given.
    pub setting: Setting,
}

/// What was around a script when it ended, in its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Its variables.
    pub environment: Environment,
    /// What was mounted, in the order of mounting.
    pub mounts: Vec<MountPoint>,
    /// What ran, a daemon that the script had started among it.
    pub processes: Vec<Process>,
}

/// Variables without their values, which may be secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// SHA-256 of `NAME=VALUE` and a zero byte for each, sorted by name.
    pub digest: Digest,
    /// Their names, sorted.
    pub names: Vec<String>,
}

/// Something mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Where.
    pub target: String,
    /// Type of the file system.
    pub kind: String,
    /// What the kernel calls the source: a device, or a word of whoever mounted it.
    pub source: String,
    /// Options of the mount, separated by commas.
    pub options: String,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number in the container.
    pub pid: u32,
    /// Number of its parent.
    pub parent: u32,
    /// Its words, cut short where they are many.
    pub command: String,
}

/// What reviews remembered when a checkpoint was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewMemory {
    /// Digest of what all runs had learnt; absent where they had learnt nothing.
    pub learnings: Option<Digest>,
    /// How many kinds of failure that was about.
    pub signatures: usize,
    /// The stage's own reviews in this run, as far as they had ended; in full they are in the run's folder, in
    /// `coordination/ai_memory/decisions`.
    pub reviews: Vec<StageReview>,
}

/// What one review of a stage came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReview {
    /// Which run of the script in the build, from 1.
    pub attempt: usize,
    /// What it said.
    pub verdict: Judgement,
    /// What was done about it.
    pub action: Option<Action>,
    /// What came of it.
    pub outcome: String,
}

/// What a stage's script is given, but for the tree that it works on and the values of variables, which may be secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// What it does with the root file system.
    pub rootfs: RootfsUse,
    /// What it may do.
    pub privilege: Privilege,
    /// Whether it has a network.
    pub network: bool,
    /// Whether it uses the package archive.
    pub archive: bool,
    /// What it may use.
    pub limits: Limits,
    /// Seconds since 1970 that times are set to.
    pub epoch: i64,
    /// Variables that the pipeline file decides.
    pub variables: BTreeMap<String, String>,
    /// Names of variables that are passed on from whoever builds.
    pub environment: Vec<String>,
    /// Files under `/isokiln`. Those that are no text are left out.
    pub files: Vec<SettingFile>,
    /// Files and folders of the project, by the option that names them.
    pub inputs: BTreeMap<String, PathBuf>,
}

/// A small text file that a script is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingFile {
    /// Absolute path in the container.
    pub path: String,
    /// Whether it can be executed.
    pub executable: bool,
    /// What it says.
    pub text: String,
}

impl Setting {
    /// What stages are given at the least, for checkpoints from before this was recorded.
    pub fn unknown(stage: &StageName) -> Self {
        Self {
            rootfs: RootfsUse::Change,
            privilege: Privilege::Chroot,
            network: false,
            archive: false,
            limits: Limits::default(),
            epoch: 0,
            variables: BTreeMap::from([("STAGE".to_owned(), stage.to_string())]),
            environment: Vec::new(),
            files: vec![SettingFile {
                path: "/isokiln/options.json".to_owned(),
                executable: false,
                text: "{}".to_owned(),
            }],
            inputs: BTreeMap::new(),
        }
    }
}

impl Circumstances {
    /// The file's name beside the checkpoint.
    pub const FILE: &str = "circumstances.json";
}

impl MountPoint {
    /// Everything that a text of the form of `/proc/self/mountinfo` (proc(5)) tells of.
    pub fn parse(mountinfo: &str) -> Vec<Self> {
        mountinfo.lines().filter_map(Self::of_line).collect()
    }

    fn of_line(line: &str) -> Option<Self> {
        // Any number of optional fields ends with a dash.
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let mut file_system = file_system.split(' ');
        Some(Self {
            target: unescaped(mount.next()?),
            options: mount.next()?.to_owned(),
            kind: file_system.next()?.to_owned(),
            source: unescaped(file_system.next()?),
        })
    }
}

/// Text in which the kernel has written blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

impl Process {
    /// Everything that lines of the form `PID PARENT COMMAND` tell of.
    pub fn parse(lines: &str) -> Vec<Self> {
        let process = |line: &str| {
            let mut words = line.splitn(3, ' ');
            Some(Self {
                pid: words.next()?.parse().ok()?,
                parent: words.next()?.parse().ok()?,
                command: words.next().unwrap_or_default().trim().to_owned(),
            })
        };
        lines.lines().filter_map(process).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let text = "22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=0:1\n\
                    36 22 8:1 /x /mnt\\040one/b\\134c rw,nosuid master:1 shared:2 - ext4 /dev/root ro\n\
                    nonsense\n";
        let mounts = MountPoint::parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].target.as_str(), mounts[0].kind.as_str()), ("/", "overlay"));
        let second = MountPoint {
            target: "/mnt one/b\\c".into(),
            kind: "ext4".into(),
            source: "/dev/root".into(),
            options: "rw,nosuid".into(),
        };
        assert_eq!(mounts[1], second);
    }

    #[test]
    fn what_only_looks_like_an_escape_stays() {
        assert_eq!(unescaped("a\\b"), "a\\b");
        assert_eq!(unescaped("\\999\\é"), "\\999\\é");
        assert_eq!(unescaped("\\011"), "\t");
    }

    #[test]
    fn processes_are_lines_of_two_numbers_and_a_command() {
        let processes = Process::parse("1 0 leash  stage \n7 1 daemon\n8 7 \nx y z\n");
        let told: Vec<_> = processes.iter().map(|p| (p.pid, p.parent, p.command.as_str())).collect();
        assert_eq!(told, [(1, 0, "leash  stage"), (7, 1, "daemon"), (8, 7, "")]);
    }
}
