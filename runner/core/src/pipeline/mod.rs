//! Pipeline files: what a person writes, read strictly into what can be planned.

mod boot_test;
mod limits;
mod order;
mod review;
mod stage;
mod system;
#[cfg(test)]
mod tests;

use crate::boot::CheckCatalog;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::kind::KindCatalog;
use crate::names::{PipelineName, ProfileName};
use crate::table::{Table, parse};

pub use boot_test::BootTest;
pub use limits::Limits;
pub use review::{Gate, Hook, Hooks, ReviewWhen};
pub use stage::Stage;
pub use system::{Architecture, Distribution, System};

/// A pipeline whose every name, option and parent is known to exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Its name; also the base name of its ISO.
    pub name: PipelineName,
    /// What is built.
    pub system: System,
    /// In an order in which each stage comes after its parent.
    pub stages: Vec<Stage>,
    /// What is tested when the ISO is made.
    pub boot_test: Option<BootTest>,
    /// Which stages' logs are reviewed.
    pub review: ReviewWhen,
    /// What a review may hold up.
    pub gate: Gate,
    /// What is known of the scripts that are run around stages.
    pub hooks: Hooks,
}

/// The names that a pipeline file may use.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'v> {
    /// Stage kinds.
    pub kinds: &'v KindCatalog,
    /// Machine profiles.
    pub profiles: &'v [ProfileName],
    /// Checks.
    pub checks: &'v CheckCatalog,
}

impl Pipeline {
    /// Reads a pipeline file, or says everything that is wrong with it.
    pub fn parse(text: &str, vocabulary: Vocabulary<'_>) -> Result<Self, Diagnostics> {
        let document = parse(text).map_err(|error| Diagnostics(vec![error]))?;
        let mut out = Diagnostics::default();
        let mut table = Table::new("the pipeline file", document.get_ref(), 0..text.len().min(1));

        let name = table.parsed("name", &mut out);
        if name.is_none() && table.key_span("name").is_none() {
            table.missing("name", "name = \"my-live-system\"", &mut out);
        }
        let system = match table.table("system", &mut out) {
            Some(system) => System::read(system, &mut out),
            None => {
                table.missing("[system]", "[system] with distribution and suite", &mut out);
                None
            }
        };
        let (review, gate) = review::read_review(&mut table, &mut out);
        let hooks =
            table.table("hooks", &mut out).map(|hooks| Hooks::read(hooks, &mut out)).unwrap_or_default();
        let limits = match table.table("limits", &mut out) {
            Some(limits) => Limits::default().read(limits, &mut out),
            None => Limits::default(),
        };
        let stages = match table.any("stage") {
            Some(stages) => stage::read_stages(stages, limits, vocabulary.kinds, &mut out),
            None => {
                table.missing("[[stage]]", "[[stage]] with name and uses", &mut out);
                None
            }
        };
        let boot_test = table
            .table("boot-test", &mut out)
            .and_then(|section| BootTest::read(section, vocabulary, &mut out));
        if boot_test.is_some()
            && let Some(stages) = &stages
            && !stages.iter().any(|stage| stage.makes_artifacts)
        {
            let span = table.key_span("boot-test").unwrap_or(0..0);
            out.push(
                Diagnostic::new("[boot-test] has nothing to boot: no stage makes an ISO", span)
                    .help("add a last stage with uses = \"iso\""),
            );
        }
        table.finish(&mut out);
        out.or(|| {
            Some(Self { name: name?.value, system: system?, stages: stages?, boot_test, review, gate, hooks })
        })
    }

    /// The stage of that name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name.as_str() == name)
    }
}
