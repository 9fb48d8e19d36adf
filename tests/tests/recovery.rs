//! Faults in real stages: the quick part of what `cargo run --package isokiln-tests --bin faults` tries.

use std::fs;

use isokiln_tests::faults::{Bench, Score, all, is_forbidden, markdown};
use isokiln_tests::repository;

#[test]
fn the_quick_faults_are_taken_rightly() {
    let bench = Bench::open(None).unwrap_or_else(|error| panic!("{error}"));
    let (mut rows, mut score) = (Vec::new(), Score::default());
    for fault in all().iter().filter(|fault| fault.quick) {
        rows.push(bench.run(fault));
        score.add(&rows[rows.len() - 1]);
    }
    assert!(score.is_good() && rows.iter().all(|row| row.is_good()), "{}", markdown(&rows, &score));
}

#[test]
fn nothing_that_runs_in_containers_weakens_a_check_or_breaks_a_lock() {
    let mut folders = vec![repository().join("images/stage"), repository().join("pipelines/stages")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            let text = String::from_utf8_lossy(&fs::read(entry.path()).expect("a file")).into_owned();
            let wrong: Vec<_> = text.lines().filter(|line| is_forbidden(line.trim_start())).collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", entry.path().display());
        }
    }
    assert!(files > 20, "{files} files");
}
