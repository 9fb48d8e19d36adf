//! What holds for any tree of stages, whatever the order in which things happen to end.

use std::collections::{BTreeMap, BTreeSet};

use isokiln_core::names::StageName;
use proptest::prelude::*;
use tokio::runtime::Builder;

use super::bench::{Bench, Finished, branch, chain, leaves};
use super::fake::{Act, Point};
use crate::run::RunError;
use crate::sandbox::{Cancel, StageExit, Tree};

/// A tree of stages `s1`, `s2` … below `base`, and how its builds go about it.
#[derive(Debug, Clone)]
struct Project {
    /// Of each stage but `base`, the number of its parent; `base` is 0.
    parents: Vec<usize>,
    parallel: usize,
    /// How often calls give way to others.
    idle: Vec<u8>,
}

fn project() -> impl Strategy<Value = Project> {
    let parents = (1usize..6).prop_flat_map(|count| (1..=count).map(|stage| 0..stage).collect::<Vec<_>>());
    (parents, 1usize..4, prop::collection::vec(0u8..6, 1..8)).prop_map(|(parents, parallel, idle)| Project {
        parents,
        parallel,
        idle,
    })
}

impl Project {
    fn name(number: usize) -> String {
        if number == 0 { "base".to_owned() } else { format!("s{number}") }
    }

    fn names(&self) -> BTreeSet<String> {
        (0..=self.parents.len()).map(Self::name).collect()
    }

    fn parent(&self, name: &str) -> Option<String> {
        let number: usize = name.strip_prefix('s')?.parse().unwrap();
        Some(Self::name(self.parents[number - 1]))
    }

    /// The stages of the pipeline file. `edition` changes every other script.
    fn stages(&self, edition: usize) -> String {
        let stage = |(index, parent): (usize, &usize)| {
            let edition = if index.is_multiple_of(2) { edition } else { 0 };
            let name = Self::name(index + 1);
            branch(&name, &Self::name(*parent), &format!("make {name} {edition}"))
        };
        self.parents.iter().enumerate().map(stage).collect()
    }

    fn bench(&self) -> Bench {
        let mut bench = Bench::new(&self.stages(0));
        bench.options.parallel = Some(self.parallel);
        self.prepare(&bench);
        bench
    }

    fn prepare(&self, bench: &Bench) {
        bench.sandbox.idle(self.idle.clone());
        bench.sandbox.act("s1", leaves("file", "what s1 leaves"));
    }
}

/// Something that goes wrong in a build, or nothing if the build does not get that far.
#[derive(Debug, Clone)]
enum Trouble {
    Fault(Point, usize),
    Wish(usize, Cancel),
    Exit(usize, StageExit),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let wishes = prop::sample::select(vec![Cancel::Gracefully, Cancel::Now]);
    let exits = vec![StageExit::Status(1), StageExit::TimedOut, StageExit::OutOfMemory, StageExit::Lost];
    prop_oneof![
        (prop::sample::select(Point::ALL.to_vec()), 1usize..4)
            .prop_map(|(point, nth)| Trouble::Fault(point, nth)),
        (1usize..40, wishes).prop_map(|(call, wish)| Trouble::Wish(call, wish)),
        (0usize..4, prop::sample::select(exits)).prop_map(|(stage, exit)| Trouble::Exit(stage, exit)),
    ]
}

impl Trouble {
    fn make(&self, bench: &Bench) {
        match self {
            Self::Fault(point, nth) => bench.sandbox.fail(*point, *nth),
            Self::Wish(call, wish) => bench.sandbox.wish_at(*call, *wish, bench.cancel.clone()),
            Self::Exit(stage, exit) => {
                bench.sandbox.act(&Project::name(*stage), Act { exit: *exit, ..Act::default() });
            }
        }
    }

    fn explains(&self, error: &RunError) -> bool {
        match self {
            Self::Fault(point, _) => {
                chain(error).ends_with(&format!("{point:?} failed in the engine: made to fail"))
            }
            Self::Wish(..) => error.exit_code() == 130,
            Self::Exit(stage, _) => {
                let name: StageName = Project::name(*stage).parse().unwrap();
                matches!(error, RunError::Stage { stage, .. } if *stage == name)
            }
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn names(ran: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = ran.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

/// Each stage that ran had its parent's tree below it, and its parent ran before it if it ran at all.
fn check_order(project: &Project, bench: &Bench, finished: &Finished) {
    let ran = finished.ran();
    let place = |name: &str| ran.iter().position(|stage| *stage == name);
    for spec in bench.sandbox.specs() {
        let Some(parent) = project.parent(spec.stage.as_str()) else {
            assert_eq!(spec.trees, []);
            continue;
        };
        let depth = std::iter::successors(Some(parent.clone()), |name| project.parent(name)).count();
        assert_eq!(spec.trees.len(), depth, "{}", spec.stage);
        match spec.trees.last().unwrap() {
            Tree::Work(stage) => assert_eq!(stage.as_str(), parent),
            Tree::Layer(layer) => assert_eq!(bench.layers()[&parent].last(), Some(layer)),
        }
        if let Some(parents_place) = place(&parent) {
            assert!(parents_place < place(spec.stage.as_str()).unwrap(), "{ran:?}");
        }
    }
    assert!(bench.sandbox.most_running() <= project.parallel);
}

/// The layers that a build without trouble gives.
async fn layers_of(project: &Project, edition: usize) -> BTreeMap<String, Vec<isokiln_core::digest::DiffId>> {
    let mut bench = project.bench();
    bench.edit(&project.stages(edition));
    bench.build_well().await;
    bench.layers()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_stage_runs_once_after_its_parent(project in project()) {
        run(async {
            let bench = project.bench();
            let finished = bench.build_well().await;
            let all: Vec<_> = project.names().into_iter().collect();
            assert_eq!(names(&finished.ran()), all);
            assert_eq!(bench.stored(), all);
            check_order(&project, &bench, &finished);
            let layers = bench.layers();
            for name in &all {
                let (_, below) = layers[name].split_last().unwrap();
                assert_eq!(below, project.parent(name).map_or(&[][..], |parent| &layers[&parent]));
            }
            bench.assert_store_is_whole();
            assert_eq!(bench.build_well().await.calls, [(Point::Destroy, String::new())]);
        });
    }

    #[test]
    fn the_order_of_events_does_not_change_what_is_built(project in project(), other in any::<[u8; 4]>()) {
        run(async {
            let idle = other.iter().map(|number| number % 8).collect();
            let another = Project { parallel: 1, idle, ..project.clone() };
            assert_eq!(layers_of(&project, 1).await, layers_of(&another, 1).await);
        });
    }

    #[test]
    fn the_build_after_any_trouble_does_what_is_missing_and_nothing_else(
        project in project(),
        trouble in trouble(),
        built_before in any::<bool>(),
        volume_lost in any::<bool>(),
    ) {
        run(async {
            let mut bench = project.bench();
            let edition = usize::from(built_before);
            if built_before {
                bench.build_well().await;
                bench.edit(&project.stages(edition));
            }
            if volume_lost {
                bench.sandbox.lose_volume();
            }
            trouble.make(&bench);
            let first = bench.build().await;
            if let Err(error) = &first.result {
                assert!(trouble.explains(error), "{}", chain(error));
            }
            // A wish to stop at once is also fulfilled by destroying what moves bytes, as often as it takes.
            let times = first.count(Point::Destroy);
            assert!(times == 1 || *bench.cancel.borrow() == Cancel::Now && times > 1, "{times}");
            assert_eq!(first.calls.last().unwrap().0, Point::Destroy);
            check_order(&project, &bench, &first);
            bench.assert_store_is_whole();
            let stored_now = |stage: &&String| first.stored().contains(&stage.as_str());
            let done: BTreeSet<_> = project.names().iter().filter(stored_now).cloned().collect();
            let hit: BTreeSet<_> = first.hits().into_iter().map(str::to_owned).collect();

            bench.sandbox.recover();
            project.prepare(&bench);
            bench.cancel.send_replace(Cancel::No);
            let next = bench.build_well().await;
            for stage in next.ran() {
                assert!(!done.contains(stage) && !hit.contains(stage), "{stage} ran again");
            }
            check_order(&project, &bench, &next);
            bench.assert_store_is_whole();
            assert_eq!(bench.layers(), layers_of(&project, edition).await);
            assert_eq!(bench.build_well().await.calls, [(Point::Destroy, String::new())]);
        });
    }
}
