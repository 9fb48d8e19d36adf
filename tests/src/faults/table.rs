//! What a fault is.

use super::bench::Scene;
use super::mirror::Tamper;
use super::{archive_faults, base_faults, engine_faults, local_faults};

/// What must come of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The build ends well, and with the same layers as one that nothing disturbs.
    Green,
    /// The build ends well; its layers are others, because it goes without something optional or from another mirror.
    GreenWithout,
    /// The stage fails for good. The last review names one of these rules as its cause; `unknown` where none is
    /// right because nobody can know.
    Stops(&'static [&'static str]),
    /// The build ends with this exit code and says this.
    Ends(i32, &'static str),
}

impl Expected {
    /// Whether isokiln must get over it.
    pub fn is_recoverable(self) -> bool {
        matches!(self, Self::Green | Self::GreenWithout)
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Green => f.write_str("green"),
            Self::GreenWithout => f.write_str("green, other layers"),
            Self::Stops(rules) => write!(f, "stop: {}", rules.join(" or ")),
            Self::Ends(code, _) => write!(f, "end with code {code}"),
        }
    }
}

/// Where a fault's stages run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum World {
    /// On a root file system of Debian, whose archive is two mirrors that can be made to fail.
    Archive,
    /// The same, but the archive is the one of this machine's apt, by its name.
    Named,
    /// On a few programs of the builder image, without any archive.
    Tiny,
    /// The same, in an engine that is this fault's own.
    OwnEngine,
}

/// A stage kind of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// `run.sh`.
    pub run: &'static str,
    /// What `kind.toml` says besides what it says of all.
    pub facts: &'static str,
}

/// What is done to a build while it runs.
pub type Meddle = fn(&mut Scene<'_>);

/// A fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub what: &'static str,
    /// Where.
    pub world: World,
    /// What must come of it.
    pub expected: Expected,
    /// Stages on top of `base`; the last is called `fault`, unless `at` says otherwise.
    pub stages: &'static str,
    /// The stage that the fault is in.
    pub at: &'static str,
    /// Kinds that the stages use besides the bundled ones.
    pub kinds: Vec<Kind>,
    /// What is wrong with the first mirror.
    pub first: Vec<Tamper>,
    /// And with the second.
    pub second: Vec<Tamper>,
    /// What happens besides.
    pub meddle: Option<Meddle>,
    /// Whether it is one of the few that `cargo test` tries.
    pub quick: bool,
}

impl Fault {
    /// A fault that isokiln must get over, in an archive.
    pub fn new(name: &'static str, what: &'static str, world: World, expected: Expected) -> Self {
        Self {
            name,
            what,
            world,
            expected,
            stages: "",
            at: "fault",
            kinds: Vec::new(),
            first: Vec::new(),
            second: Vec::new(),
            meddle: None,
            quick: false,
        }
    }

    pub(super) fn stages(self, stages: &'static str) -> Self {
        Self { stages, ..self }
    }

    pub(super) fn kind(mut self, name: &'static str, facts: &'static str, run: &'static str) -> Self {
        self.kinds.push(Kind { name, run, facts });
        self
    }

    pub(super) fn first(mut self, tamper: Tamper) -> Self {
        self.first.push(tamper);
        self
    }

    pub(super) fn both(mut self, tamper: Tamper) -> Self {
        self.second.push(tamper.clone());
        self.first(tamper)
    }

    pub(super) fn meddle(self, meddle: Meddle) -> Self {
        Self { meddle: Some(meddle), ..self }
    }

    pub(super) fn quick(self) -> Self {
        Self { quick: true, ..self }
    }
}

/// Every fault, those of one world beside each other.
pub fn all() -> Vec<Fault> {
    let mut faults = archive_faults::all();
    faults.extend(local_faults::all());
    faults.extend(base_faults::all());
    faults.extend(engine_faults::all());
    faults.sort_by_key(|fault| fault.world);
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_enough_faults_of_every_sort() {
        let faults = all();
        let names: BTreeSet<_> = faults.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), faults.len(), "every name is there once");
        let recoverable = faults.iter().filter(|fault| fault.expected.is_recoverable()).count();
        assert!(faults.len() >= 40 && recoverable >= 20 && faults.len() - recoverable >= 10);
        let quick = faults.iter().filter(|fault| fault.quick).count();
        assert!((6..=9).contains(&quick), "{quick} are quick");
    }
}
