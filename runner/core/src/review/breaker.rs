//! When a provider that fails is left alone.

use std::time::Duration;

/// Failures in a row that open the circuit.
const FAILURES: u32 = 3;
/// How long an open circuit stays so before one call tries it.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether a provider may be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Go,
    /// Not before this time is over.
    Wait(Duration),
    /// Not in this build.
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// Left alone until then; the first call after it tries alone.
    Open { until: Duration },
    /// One call is on its way to see whether the provider is back.
    HalfOpen { since: Duration },
    /// Nothing will help in this build: a wrong key, a quota of the day.
    Shut,
}

/// The circuit breaker of one provider. Time is what passed since the build began, given with each call.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    state: State,
    failures: u32,
    /// The provider asked not to be called before.
    hold: Duration,
}

impl Breaker {
    /// Whether a call may be made now; a call that tries an open circuit is made by whoever asks first.
    pub fn permit(&mut self, now: Duration) -> Permit {
        if self.state == State::Shut {
            return Permit::Never;
        }
        if now < self.hold {
            return Permit::Wait(self.hold - now);
        }
        match self.state {
            State::Open { until } if now < until => Permit::Wait(until - now),
            // A call that never told how it ended must not keep the circuit half open for ever.
            State::HalfOpen { since } if now < since + PAUSE => Permit::Wait(since + PAUSE - now),
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { since: now };
                Permit::Go
            }
            State::Closed | State::Shut => Permit::Go,
        }
    }

    /// What [`Breaker::permit`] would say, without the call being made.
    pub fn peek(&self, now: Duration) -> Permit {
        self.clone().permit(now)
    }

    /// A call was answered.
    pub fn succeeded(&mut self) {
        if self.state != State::Shut {
            self.state = State::Closed;
            self.failures = 0;
        }
    }

    /// A call failed in a way that may pass.
    pub fn failed(&mut self, now: Duration) {
        self.failures += 1;
        match self.state {
            State::Shut => {}
            State::HalfOpen { .. } => self.state = State::Open { until: now + PAUSE },
            _ if self.failures >= FAILURES => self.state = State::Open { until: now + PAUSE },
            _ => {}
        }
    }

    /// A call failed in a way that does not pass: none is made any more.
    pub fn shut(&mut self) {
        self.state = State::Shut;
    }

    /// The provider asked to be left alone for a while.
    pub fn hold(&mut self, now: Duration, after: Duration) {
        self.hold = self.hold.max(now + after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn opens_after_three_failures_and_lets_one_try() {
        let mut breaker = Breaker::default();
        breaker.failed(s(1));
        breaker.failed(s(2));
        assert_eq!(breaker.permit(s(2)), Permit::Go);
        breaker.failed(s(3));
        assert_eq!(breaker.permit(s(13)), Permit::Wait(s(20)));
        assert_eq!(breaker.peek(s(33)), Permit::Go, "to look is not to try");
        assert_eq!(breaker.permit(s(33)), Permit::Go, "one tries");
        assert_eq!(breaker.permit(s(33)), Permit::Wait(s(30)), "alone");
        breaker.failed(s(34));
        assert_eq!(breaker.permit(s(35)), Permit::Wait(s(29)));
        assert_eq!(breaker.permit(s(64)), Permit::Go);
        breaker.succeeded();
        assert_eq!((breaker.permit(s(64)), breaker.permit(s(64))), (Permit::Go, Permit::Go));
    }

    #[test]
    fn a_success_between_failures_counts() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(s(1));
            breaker.failed(s(1));
            breaker.succeeded();
        }
        assert_eq!(breaker.permit(s(1)), Permit::Go);
    }

    #[test]
    fn a_try_that_got_lost_does_not_block_for_ever() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| breaker.failed(s(0)));
        assert_eq!(breaker.permit(s(30)), Permit::Go);
        assert_eq!(breaker.permit(s(60)), Permit::Go);
    }

    #[test]
    fn what_does_not_pass_shuts_and_a_delay_is_kept() {
        let mut breaker = Breaker::default();
        breaker.hold(s(0), s(7));
        breaker.hold(s(1), s(2));
        breaker.succeeded();
        assert_eq!(breaker.permit(s(5)), Permit::Wait(s(2)));
        assert_eq!(breaker.permit(s(7)), Permit::Go);
        breaker.shut();
        breaker.succeeded();
        breaker.failed(s(8));
        assert_eq!(breaker.permit(s(900)), Permit::Never);
    }
}
