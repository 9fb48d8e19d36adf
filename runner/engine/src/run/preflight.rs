//! Before the first stage runs: what room the build will need, and whether it is there.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use isokiln_core::event::{Event, RoomNeed};
use isokiln_core::names::StageName;
use isokiln_core::plan::{Estimate, History, StepState, plan};
use isokiln_core::units::show_size;

use super::build::Build;
use super::checkpoints::Shelf;
use super::error::RunError;
use super::room::left_at;

/// Earlier runs that are looked at, the newest.
const RUNS: usize = 10;
/// The only events that tell of room, as they stand in a record.
const TELLING: [&str; 5] = ["run-started", "stage-started", "layer-stored", "artifact", "stage-failed"];

impl Build {
    /// Tells what the stages that are to run will need, as earlier runs did, and warns where it is not there. Without earlier
    /// runs nothing is told. It is only an estimate: the build goes on, and tells of what is wrong with anything itself.
    pub(super) async fn preflight(&self) {
        let Ok(stages) = self.to_run() else { return };
        let Some(Estimate { store, engine, stages, unknown }) = self.history(&stages).estimate(stages) else {
            return;
        };
        let store_free = left_at(self.store.root()).map(|(bytes, _)| bytes);
        let engine_free = self.sandbox.free_space().await.ok().map(|(bytes, _)| bytes);
        let store = RoomNeed { needed: store, free: store_free };
        let engine = RoomNeed { needed: engine, free: engine_free };
        self.events.emit(Event::RoomEstimated { stages, unknown, store, engine });
        if store.is_short() {
            self.warn_of_room("store", store, &self.advice_for_store());
        }
        if engine.is_short() {
            self.warn_of_room("engine", engine, &self.advice_for_engine().await);
        }
    }

    fn warn_of_room(&self, place: &str, need: RoomNeed, advice: &str) {
        let free = need.free.map(show_size).unwrap_or_default();
        let needed = show_size(need.needed);
        self.events.warn(format!(
            "the {place} will hardly have room: about {needed} are needed, {free} are free; {advice}"
        ));
    }

    /// Stages that run, or may run if those before them come out differently.
    fn to_run(&self) -> Result<Vec<StageName>, RunError> {
        let wanted = self.wanted_stages()?;
        let forced = self.forced(&wanted)?;
        let shelf = Shelf::load(&self.store)?;
        let planned = plan(&self.project.pipeline, &self.context(), &shelf).stages.into_iter();
        let runs = planned
            .filter(|stage| wanted.iter().any(|wanted| wanted.name == stage.name))
            .filter(|stage| forced.contains(&stage.name) || stage.step.state() == StepState::Miss);
        Ok(runs.map(|stage| stage.name).collect())
    }

    /// What is known of these stages.
    fn history(&self, stages: &[StageName]) -> History {
        let mut history = History::default();
        let folders = self.home.run_folders();
        for folder in folders.iter().rev().filter(|folder| *folder != self.run.path()).take(RUNS) {
            if stages.iter().all(|stage| history.of(stage).is_some()) {
                break;
            }
            history.absorb(&self.project.pipeline.name, events(&folder.join("events.jsonl")));
        }
        history
    }
}

/// The events of a record that tell of room. One that cannot be read tells nothing.
fn events(record: &Path) -> Vec<Event> {
    let Ok(file) = File::open(record) else { return Vec::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let tells = |line: &String| TELLING.iter().any(|name| line.contains(&format!("\"event\":\"{name}\"")));
    lines.filter(tells).filter_map(|line| serde_json::from_str(&line).ok()).collect()
}
