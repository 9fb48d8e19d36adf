//! Exit codes of the program. They are part of its interface: scripts and CI rely on them.

/// Everything asked for was done.
pub const OK: u8 = 0;
/// A stage failed.
pub const STAGE_FAILED: u8 = 1;
/// The command line or the pipeline file is wrong; nothing was started.
pub const USAGE: u8 = 2;
/// The environment is not ready: engine, network, disk, store. `isokiln doctor` says more.
pub const NOT_READY: u8 = 3;
/// A boot test failed.
pub const BOOT_FAILED: u8 = 4;
/// A boot test could not decide.
pub const BOOT_INCONCLUSIVE: u8 = 5;
/// Cancelled by the user.
pub const CANCELLED: u8 = 130;

use crate::boot::Verdict;

/// Exit code of a boot test.
pub fn of_verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => OK,
        Verdict::Inconclusive => BOOT_INCONCLUSIVE,
        Verdict::Infra => NOT_READY,
        Verdict::Fail => BOOT_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_grow_in_gravity_and_each_has_its_code() {
        let order = [Verdict::Pass, Verdict::Inconclusive, Verdict::Infra, Verdict::Fail];
        assert!(order.is_sorted());
        // Numbers, not names: scripts and CI rely on them.
        assert_eq!(order.map(of_verdict), [0, 5, 3, 4]);
    }
}
