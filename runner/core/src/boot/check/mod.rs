//! Checks: what must hold in the booted system. Most are a script for the probe and a judgement of its answer; asking
//! again until it holds or time is up is the engine's part. `screen` is seen from outside.

mod boot;
mod command;
mod definition;
mod network_manager;
mod screen;
mod spec;
mod wlan;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use definition::CheckDefinition;
pub use screen::{OnScreen, Reference};
pub use spec::{CheckCatalog, UnknownCheck};

use super::cause::Cause;
use super::profile::{Firmware, MachineProfile};
use super::screen::{Area, Frame};
use super::verdict::{CheckResult, Inventory, Verdict};

/// A check and its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckSpec {
    /// What must hold.
    pub what: Check,
    /// Name for the report; `None` for the check's own.
    pub label: Option<String>,
    /// How long to keep asking, on the reference machine; `None` for the check's own patience.
    pub within: Option<Duration>,
}

/// What must hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// Multi-user target reached, no failed unit.
    Boot,
    /// NetworkManager runs and has connected a device.
    NetworkManager,
    /// Every WLAN module of the ISO loads and has its firmware; NetworkManager joins a simulated access point.
    Wlan,
    /// A command ends with a given status.
    Command {
        /// Shell command, run by root.
        run: String,
        /// Exit status expected.
        status: i32,
    },
    /// A check that is data.
    Defined {
        /// The definition.
        definition: Arc<CheckDefinition>,
        /// What it is given.
        argument: Option<String>,
    },
    /// Something is seen on the screen.
    Screen(OnScreen),
}

/// What the probe said after running a check's script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit status of the script; 124 where its time ran out.
    pub status: i32,
    /// What it printed, errors included; at most 1 MB.
    pub output: String,
}

/// What an answer proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing more will change.
    Settled(Finding),
    /// Not yet; this is what the check ends with if time runs out.
    NotYet(Finding),
}

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How the check ends.
    pub verdict: Verdict,
    /// One line for people.
    pub summary: String,
    /// Lines of the answer that the verdict rests on.
    pub evidence: Vec<String>,
    /// Why it does not hold, where that is more than a check that fails.
    pub cause: Option<Cause>,
}

impl Finding {
    pub(super) fn pass(summary: impl Into<String>, evidence: Vec<String>) -> Self {
        Self { verdict: Verdict::Pass, summary: summary.into(), evidence, cause: None }
    }

    pub(super) fn because(self, cause: Cause) -> Self {
        Self { cause: Some(cause), ..self }
    }

    pub(super) fn fail(summary: impl Into<String>, evidence: Vec<String>) -> Self {
        Self { verdict: Verdict::Fail, summary: summary.into(), evidence, cause: None }
    }
}

impl From<Check> for CheckSpec {
    fn from(what: Check) -> Self {
        Self { what, label: None, within: None }
    }
}

/// The agent's status of a script that it could not write (`qemu/probe/agent.sh`).
const NOT_RUN: i32 = -1;

impl CheckSpec {
    /// The check that every boot test begins with.
    pub fn boot() -> Self {
        Check::Boot.into()
    }

    /// The same, where the path of a picture is one from this folder; the name stays.
    #[must_use]
    pub fn beside(mut self, folder: &Path) -> Self {
        if let Check::Screen(OnScreen::Picture(reference)) = &mut self.what {
            let path = folder.join(&reference.path).to_string_lossy().into_owned();
            let given = std::mem::replace(&mut reference.path, path);
            self.label.get_or_insert(given);
        }
        self
    }

    /// Name in reports.
    pub fn name(&self) -> String {
        match &self.what {
            Check::Boot => "boot".to_owned(),
            Check::NetworkManager => "network-manager".to_owned(),
            Check::Wlan => "wlan".to_owned(),
            Check::Command { run, .. } => {
                let first = || run.lines().next().unwrap_or_default().to_owned();
                format!("command: {}", self.label.clone().unwrap_or_else(first))
            }
            Check::Defined { definition, argument } => match (&self.label, argument) {
                (Some(label), _) => format!("{}: {label}", definition.name),
                (None, Some(argument)) => format!("{}: {argument}", definition.name),
                (None, None) => definition.name.clone(),
            },
            Check::Screen(on) => {
                let own = match on {
                    OnScreen::Words(words) => words,
                    OnScreen::Picture(reference) => &reference.path,
                };
                format!("screen: {}", self.label.as_ref().unwrap_or(own))
            }
        }
    }

    /// Its name, where one of the others has it too: results are told apart by it.
    pub fn name_among(&self, others: &[Self]) -> Option<String> {
        let name = self.name();
        others.iter().any(|other| other.name() == name).then_some(name)
    }

    /// What must be seen on the screen; `None` where the probe is asked instead.
    pub fn on_screen(&self) -> Option<&OnScreen> {
        match &self.what {
            Check::Screen(on) => Some(on),
            _ => None,
        }
    }

    /// Whether it can be asked on a machine.
    pub fn suits(&self, profile: &MachineProfile) -> bool {
        match &self.what {
            Check::Defined { definition, .. } if definition.secure_boot => {
                matches!(profile.firmware, Firmware::Uefi { secure_boot: true })
            }
            _ => true,
        }
    }

    /// Whether what the screen shows at its end belongs to its evidence.
    pub fn is_graphical(&self) -> bool {
        matches!(&self.what, Check::Defined { definition, .. } if definition.graphical)
    }

    /// Shell script for the probe, which may be run again; `None` where the screen is looked at instead.
    pub fn script(&self) -> Option<String> {
        Some(match &self.what {
            Check::Boot => boot::SCRIPT.to_owned(),
            Check::NetworkManager => network_manager::SCRIPT.to_owned(),
            Check::Wlan => wlan::SCRIPT.to_owned(),
            Check::Command { run, .. } => run.clone(),
            Check::Defined { definition, argument } => definition.script_for(argument.as_deref()),
            Check::Screen(_) => return None,
        })
    }

    /// What an answer to its script proves.
    pub fn judge(&self, answer: &Answer) -> Judgement {
        if answer.status == NOT_RUN {
            return Judgement::Settled(Finding {
                verdict: Verdict::Inconclusive,
                summary:
                    "the check's script did not arrive whole, or could not be written to /run: is it full?"
                        .to_owned(),
                evidence: Vec::new(),
                cause: None,
            });
        }
        match &self.what {
            Check::Boot => boot::judge(answer),
            Check::NetworkManager => network_manager::judge(answer),
            Check::Wlan => wlan::judge(answer),
            Check::Command { status, .. } => command::judge(*status, answer, self.within.is_some()),
            Check::Defined { .. } => definition::judge(answer),
            Check::Screen(_) => Judgement::NotYet(Finding::fail("not seen on the screen", lines(answer))),
        }
    }

    /// How long to keep asking on a machine of reference speed: from the first time of asking, for the screen from the
    /// start of the machine.
    pub fn patience(&self) -> Duration {
        self.within.unwrap_or_else(|| match &self.what {
            Check::Boot => Duration::from_secs(240),
            Check::NetworkManager => Duration::from_secs(60),
            Check::Wlan => Duration::from_secs(120),
            Check::Command { .. } => Duration::ZERO,
            Check::Defined { definition, .. } => definition.patience,
            Check::Screen(_) => Duration::from_secs(300),
        })
    }
}

impl CheckResult {
    /// What holds inside and is not to be seen on the screen does not hold.
    pub fn must_be_seen_on(&mut self, frame: &Frame) {
        if self.verdict == Verdict::Pass && frame.is_plain(self.place().unwrap_or_else(|| frame.area())) {
            self.verdict = Verdict::Fail;
            self.summary.push_str(", but the screen shows nothing there");
        }
    }

    /// Where on the screen the evidence says that there is something to see: its line `look at X,Y WIDTHxHEIGHT`.
    fn place(&self) -> Option<Area> {
        let place = self.evidence.iter().find_map(|line| line.strip_prefix("look at "))?;
        let (corner, size) = place.split_once(' ')?;
        let ((x, y), (width, height)) = (corner.split_once(',')?, size.split_once('x')?);
        // What a window has beyond the left and upper edge cannot be seen.
        let start =
            |text: &str| text.parse::<i64>().ok().map(|at| u32::try_from(at.max(0)).unwrap_or(u32::MAX));
        Some(Area { x: start(x)?, y: start(y)?, width: width.parse().ok()?, height: height.parse().ok()? })
    }
}

impl Inventory {
    /// Script for the probe.
    pub const SCRIPT: &str = "echo \"kernel $(uname -r)\"\n\
        systemctl list-units --failed --plain --no-legend --no-pager | while read -r unit _; do echo \"failed $unit\"; done\n\
        while read -r module _; do echo \"module $module\"; done </proc/modules\n\
        exit 0\n";

    /// Reads the answer to the script; `None` where it was not run to its end.
    pub fn read(answer: &Answer) -> Option<Self> {
        if answer.status != 0 {
            return None;
        }
        let owned = |key| values(answer, key).into_iter().map(str::to_owned).collect();
        let mut modules: Vec<String> = owned("module");
        modules.sort();
        Some(Self { kernel: values(answer, "kernel").join(" "), failed_units: owned("failed"), modules })
    }
}

/// The values of the answer's lines `KEY VALUE` for one key.
fn values<'a>(answer: &'a Answer, key: &str) -> Vec<&'a str> {
    answer
        .output
        .lines()
        .filter_map(|line| line.split_once(' ').filter(|(k, _)| *k == key).map(|(_, value)| value.trim()))
        .collect()
}

fn lines(answer: &Answer) -> Vec<String> {
    answer.output.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::verdict::testing;

    #[test]
    fn what_is_said_to_be_open_must_be_seen() {
        // Black, with a white line in its sixth row.
        let mut ppm = b"P6 100 100 255\n".to_vec();
        ppm.extend((0..100).flat_map(|y| (0..300).map(move |_| if y == 5 { 255 } else { 0 })));
        let frame = Frame::from_ppm(&ppm).unwrap();
        let seen = |verdict: Verdict, evidence: &str| {
            let mut result = testing::check("calamares", verdict);
            result.evidence = vec!["window".to_owned(), evidence.to_owned()];
            result.must_be_seen_on(&frame);
            result.verdict
        };
        assert_eq!(seen(Verdict::Pass, "look at -4,0 60x20"), Verdict::Pass);
        assert_eq!(seen(Verdict::Pass, "look at 10,40 60x20"), Verdict::Fail);
        assert_eq!(seen(Verdict::Pass, "look at nothing"), Verdict::Pass, "the whole screen counts");
        assert_eq!(seen(Verdict::Inconclusive, "look at 10,40 60x20"), Verdict::Inconclusive);
    }
}
