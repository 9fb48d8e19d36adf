//! Builds that are struck at random instants: the quick part of what `cargo run --package isokiln-tests --bin crashes`
//! tries.

use isokiln_tests::crashes::{Bench, Fault, Matrix, Phase, cases};

/// Those that need no engine of their own, which takes long to start: `recovery.rs` tries some of these.
const FAULTS: [Fault; 9] = [
    Fault::KillSupervisor,
    Fault::KillViewer,
    Fault::StopAndKill,
    Fault::RemoveContainers,
    Fault::RemoveVolume,
    Fault::TerminalGone,
    Fault::PowerCut,
    Fault::Freeze,
    Fault::StoreFull,
];
const INSTANTS: usize = 12;

#[test]
fn nothing_is_lost_and_nothing_is_left_whenever_a_build_is_struck() {
    // Another instant each day, and the same one when a failure is looked into on that day.
    let day = std::time::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs() / 86_400;
    let bench = Bench::open();
    let mut matrix = Matrix::default();
    for case in cases(INSTANTS, day, &FAULTS, &Phase::ALL) {
        matrix.add(&bench.strike(case));
    }
    assert!(matrix.is_good(), "day {day}\n{matrix}");
    assert!(matrix.struck() >= INSTANTS / 2, "most came too late\n{matrix}");
}
