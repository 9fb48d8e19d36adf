//! What a build is struck by.

use std::fmt;

use super::phase::Phase;

/// Something that happens to a build from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of the process that builds.
    KillSupervisor,
    /// `kill -9` of the process that shows the build, which goes on. A boot test is shown by the process that does it.
    KillViewer,
    /// The process that builds is stopped for a while, and then killed.
    StopAndKill,
    /// Every container of the run is removed by somebody else.
    RemoveContainers,
    /// Every container and the volume with the layers are removed by somebody else.
    RemoveVolume,
    /// The terminal hangs up.
    HangUp,
    /// The terminal is gone, and the program that held it.
    TerminalGone,
    /// Ctrl-C.
    CtrlC,
    /// Ctrl-C, and again.
    CtrlCTwice,
    /// The power is cut; everything that only memory held is lost.
    PowerCut,
    /// Writes to the store hang, then the process is killed, and the disk is as it was when they began to hang.
    Freeze,
    /// There is no room for a byte in the store.
    StoreFull,
    /// There is no room for another file in the store.
    StoreInodes,
    /// There is no room for a byte in the folder of runs.
    RunsFull,
    /// There is no room for another file in the folder of runs.
    RunsInodes,
    /// `kill -9` of the engine, which is started again.
    KillEngine,
    /// The engine is restarted in an orderly way.
    RestartEngine,
    /// There is no room for a byte where the engine keeps its data.
    EngineFull,
    /// There is no room for another file there.
    EngineInodes,
}

/// What a fault needs besides the machine as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum World {
    /// Nothing.
    Plain,
    /// A disk of its own under isokiln's folder.
    OwnDisk,
    /// A disk of its own under the folder of runs.
    OwnRuns,
    /// An engine of its own.
    OwnEngine,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 19] = [
        Self::KillSupervisor,
        Self::KillViewer,
        Self::StopAndKill,
        Self::RemoveContainers,
        Self::RemoveVolume,
        Self::HangUp,
        Self::TerminalGone,
        Self::CtrlC,
        Self::CtrlCTwice,
        Self::PowerCut,
        Self::Freeze,
        Self::StoreFull,
        Self::StoreInodes,
        Self::RunsFull,
        Self::RunsInodes,
        Self::KillEngine,
        Self::RestartEngine,
        Self::EngineFull,
        Self::EngineInodes,
    ];

    /// What it needs.
    pub fn world(self) -> World {
        match self {
            Self::PowerCut | Self::Freeze | Self::StoreFull | Self::StoreInodes => World::OwnDisk,
            Self::RunsFull | Self::RunsInodes => World::OwnRuns,
            Self::KillEngine | Self::RestartEngine | Self::EngineFull | Self::EngineInodes => {
                World::OwnEngine
            }
            _ => World::Plain,
        }
    }

    /// Why it is not tried in a phase; `None` where it is.
    pub fn why_not(self, phase: Phase) -> Option<&'static str> {
        match (self, phase) {
            (Self::RemoveContainers, Phase::Start | Phase::Planning) => Some("there is no container yet"),
            (Self::StoreFull | Self::StoreInodes, Phase::BootTest) => {
                Some("a mere boot test writes nothing to the store")
            }
            _ => None,
        }
    }

    /// Whether whoever builds gets no chance to tidy up.
    pub(super) fn is_sudden(self) -> bool {
        matches!(
            self,
            Self::KillSupervisor | Self::KillViewer | Self::StopAndKill | Self::PowerCut | Self::Freeze
        )
    }

    /// Whether it asks whoever builds to stop, who then leaves nothing.
    pub(super) fn asks_to_stop(self, phase: Phase) -> bool {
        match self {
            Self::CtrlC | Self::CtrlCTwice => true,
            Self::HangUp | Self::TerminalGone => !self.takes_only_the_view(phase),
            _ => false,
        }
    }

    /// Whether a build must go on to its end as if nothing had happened.
    pub(super) fn takes_only_the_view(self, phase: Phase) -> bool {
        phase != Phase::BootTest && matches!(self, Self::HangUp | Self::TerminalGone | Self::KillViewer)
    }

    /// Exit codes that a build may end with that was struck by it and not killed.
    pub(super) fn codes(self, phase: Phase) -> &'static [i32] {
        match self {
            _ if self.asks_to_stop(phase) => &[0, 130],
            // A viewer that was hung up.
            Self::HangUp => &[0, 129],
            // Got over, a stage that failed, something that was not there; a boot test that could not be finished.
            _ => &[0, 1, 3, 5],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillSupervisor => "kill-supervisor",
            Self::KillViewer => "kill-viewer",
            Self::StopAndKill => "stop-and-kill",
            Self::RemoveContainers => "remove-containers",
            Self::RemoveVolume => "remove-volume",
            Self::HangUp => "hang-up",
            Self::TerminalGone => "terminal-gone",
            Self::CtrlC => "ctrl-c",
            Self::CtrlCTwice => "ctrl-c-twice",
            Self::PowerCut => "power-cut",
            Self::Freeze => "freeze",
            Self::StoreFull => "store-full",
            Self::StoreInodes => "store-inodes",
            Self::RunsFull => "runs-full",
            Self::RunsInodes => "runs-inodes",
            Self::KillEngine => "kill-engine",
            Self::RestartEngine => "restart-engine",
            Self::EngineFull => "engine-full",
            Self::EngineInodes => "engine-inodes",
        })
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.to_string() == name);
        let names: Vec<_> = Self::ALL.iter().map(Self::to_string).collect();
        found.ok_or_else(|| format!("there is no fault {name:?}; there are {}", names.join(", ")))
    }
}
