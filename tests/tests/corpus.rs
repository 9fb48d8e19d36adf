//! The boot test on ISOs whose behaviour is known: the quick subset of the corpus.

use isokiln_tests::corpus::{Score, Table, Workshop, markdown, run};
use isokiln_tests::repository;

#[test]
fn the_quick_subset_is_judged_rightly() {
    let table = Table::of_repository().unwrap_or_else(|error| panic!("{error}"));
    let workshop = Workshop::open(&table, &repository().join("target/corpus")).expect("a folder");
    let (mut rows, mut score) = (Vec::new(), Score::default());
    for case in &table.cases {
        for expected in case.boots.iter().filter(|boot| boot.quick) {
            rows.push(run(&workshop, case, expected));
            score.add(&rows[rows.len() - 1].judged.differences);
        }
    }
    workshop.tidy().expect("nothing is left in the engine");
    assert!(score.is_good(), "{}", markdown(&rows, &score));
}
