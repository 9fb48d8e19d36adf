//! Random markers and pauses.

use std::time::Duration;

use rustls::crypto::ring;

/// Bytes that nobody can guess.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if ring::default_provider().secure_random.fill(&mut bytes).is_err() {
        // Where the system gives none, the hash maps' keys are what is left; they come from it too, and never fail.
        use std::hash::{BuildHasher, RandomState};
        let half = || RandomState::new().hash_one(0_u8).to_le_bytes();
        bytes[..8].copy_from_slice(&half());
        bytes[8..].copy_from_slice(&half());
    }
    bytes
}

/// A marker to fence a log with: 32 hexadecimal digits.
pub(super) fn marker() -> String {
    random().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pause, a little longer than given: up to a quarter, so that not everybody comes back at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let [low, high, ..] = random();
    let part = f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX);
    pause + pause.mul_f64(part / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_differ_and_pauses_are_never_shorter() {
        assert_ne!(marker(), marker());
        assert_eq!(marker().len(), 32);
        let pause = Duration::from_millis(400);
        for _ in 0..100 {
            assert!((pause..=pause * 5 / 4).contains(&jittered(pause)));
        }
    }
}
