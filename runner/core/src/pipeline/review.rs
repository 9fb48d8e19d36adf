//! `review`, `gate` and `[hooks]`: who looks at the stages' logs, and what is run around stages.

use std::time::Duration;

use serde::Serialize;

use crate::diagnostic::Diagnostics;
use crate::table::{Table, unknown};
use crate::units::parse_duration;

/// `review`: which stages' logs are reviewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewWhen {
    /// All of them.
    #[default]
    EveryStage,
    /// Those of stages that failed.
    OnFailure,
    /// None; nothing is recovered from either.
    Off,
}

/// `gate`: what a review may hold up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Nothing: it is told.
    #[default]
    Advise,
    /// A stage that ended well but whose log says that its result is damaged fails.
    Block,
}

/// A script of the user's that is run around stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Before each stage.
    PrePhase,
    /// After each stage.
    PostPhase,
    /// After a stage that failed, before anything is done about it.
    EmergencyRecovery,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PrePhase, Self::PostPhase, Self::EmergencyRecovery];

    /// Its name; its file is called so, with `.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrePhase => "pre-phase",
            Self::PostPhase => "post-phase",
            Self::EmergencyRecovery => "emergency-recovery",
        }
    }
}

/// `[hooks]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hooks {
    /// Those whose failure fails the stage; each must be there.
    pub required: Vec<Hook>,
    /// Wall time after which one is ended.
    pub time: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { required: Vec::new(), time: Duration::from_secs(60) }
    }
}

pub(super) fn read_review(table: &mut Table<'_>, out: &mut Diagnostics) -> (ReviewWhen, Gate) {
    let whens = [
        ("every-stage", ReviewWhen::EveryStage),
        ("on-failure", ReviewWhen::OnFailure),
        ("off", ReviewWhen::Off),
    ];
    let when = table.choice("review", &whens, out).unwrap_or_default();
    let gate = table.choice("gate", &[("advise", Gate::Advise), ("block", Gate::Block)], out);
    (when, gate.unwrap_or_default())
}

impl Hooks {
    pub(super) fn read(mut table: Table<'_>, out: &mut Diagnostics) -> Self {
        let mut hooks = Self::default();
        for name in table.strings("required", out).unwrap_or_default() {
            match Hook::ALL.into_iter().find(|hook| hook.name() == name.value) {
                Some(hook) if hooks.required.contains(&hook) => {}
                Some(hook) => hooks.required.push(hook),
                None => {
                    let names = Hook::ALL.map(Hook::name);
                    out.push(unknown(&format!("hook {:?}", name.value), &name.value, name.span, &names));
                }
            }
        }
        if let Some(time) = table.read("time", out, parse_duration) {
            hooks.time = time;
        }
        table.finish(out);
        hooks
    }
}
