//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// The longest wait.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double from 50 ms to 5 s, each cut by a random part of up to a half, so that lanes do not
/// come back in step. The first attempt after a success does not wait.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    random: RandomState,
}

impl Backoff {
    /// The wait before the next attempt. Counts it as one that will fail, until [`Self::reset`].
    pub fn next(&mut self) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return Duration::ZERO;
        }
        let whole = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
        // A keyed hash of a counter is random enough to spread attempts.
        let part = (self.random.hash_one(failures) % 1024) as u32;
        whole - whole / 2 * part / 1024
    }

    /// Something went through.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many attempts there were since something went through.
    pub fn attempts(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_never_vanish() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(), Duration::ZERO);
        for n in 0..100 {
            let whole = FIRST.saturating_mul(1 << n.min(16)).min(LONGEST);
            let wait = backoff.next();
            assert!(wait <= whole && wait >= whole / 2, "wait {n} is {wait:?}");
        }
        backoff.reset();
        assert_eq!(backoff.next(), Duration::ZERO);
    }
}
