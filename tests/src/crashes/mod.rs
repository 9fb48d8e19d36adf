//! Crashes and other faults at random instants of a build, and what is left and lost.
//!
//! A build of a small pipeline is struck by a [`Fault`] in a [`Phase`] of its life. After that the store must verify as
//! it is, the next build must find every checkpoint that was told of and make the very same ISO, and nothing may be left
//! on the machine. The [`Matrix`] counts what came of it.

mod bench;
mod disk;
mod fault;
mod matrix;
mod phase;
mod random;

pub use bench::{Bench, Instant};
pub use disk::{Disk, Snapshot};
pub use fault::{Fault, World};
pub use matrix::Matrix;
pub use phase::Phase;
pub use random::Random;

/// A fault in a phase, struck once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What happens.
    pub fault: Fault,
    /// When.
    pub phase: Phase,
    /// What else is left to chance.
    pub seed: u64,
}

/// So many instants, spread evenly over all faults and phases that go together: every fault comes once before any comes
/// twice, and in each of its phases before it comes twice in one. The same seed gives the same cases.
pub fn cases(count: usize, seed: u64, faults: &[Fault], phases: &[Phase]) -> Vec<Case> {
    let mut random = Random::new(seed);
    let mut queues = vec![Vec::new(); faults.len()];
    let mut cases = Vec::new();
    while cases.len() < count && !(faults.is_empty() || phases.is_empty()) {
        for (fault, queue) in faults.iter().zip(&mut queues) {
            if queue.is_empty() {
                queue.extend(phases.iter().copied().filter(|phase| fault.why_not(*phase).is_none()));
                random.shuffle(queue);
            }
            if let Some(phase) = queue.pop() {
                cases.push(Case { fault: *fault, phase, seed: random.next() });
            }
        }
    }
    cases.truncate(count);
    // Engines and disks are made once for all cases that need them.
    cases.sort_by_key(|case| case.fault.world());
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_are_the_same_for_a_seed_and_cover_every_pair() {
        let pairs =
            |cases: &[Case]| cases.iter().map(|case| (case.fault, case.phase)).collect::<BTreeSet<_>>();
        let of = |seed| cases(300, seed, &Fault::ALL, &Phase::ALL);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let sensible = Fault::ALL.iter().flat_map(|fault| Phase::ALL.map(|phase| (*fault, phase)));
        let sensible: BTreeSet<_> =
            sensible.filter(|(fault, phase)| fault.why_not(*phase).is_none()).collect();
        assert_eq!(pairs(&of(1)), sensible);
        assert!(sensible.len() > 120, "{}", sensible.len());
    }
}
