//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);

/// Waits that double from 50 ms to a limit, each cut by a random part of up to a half, so that lanes do not
/// come back in step. The first attempt after a success does not wait.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    /// The next wait is left out.
    skips: bool,
    random: RandomState,
}

impl Backoff {
    /// The wait before the next attempt, `longest` at most. Counts it as one that will fail, until [`Self::reset`].
    pub fn next(&mut self, longest: Duration) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if std::mem::take(&mut self.skips) || failures == 0 {
            return Duration::ZERO;
        }
        let whole = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(longest);
        // A keyed hash of a counter is random enough to spread attempts.
        let part = (self.random.hash_one(failures) % 1024) as u32;
        whole - whole / 2 * part / 1024
    }

    /// Something went through.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Another place is to be tried, at once. If that is none that has been tried already, it all begins again;
    /// otherwise the waits go on growing if nothing goes through there either.
    pub fn try_elsewhere(&mut self, is_new: bool) {
        if is_new {
            self.reset();
        } else {
            self.skips = true;
        }
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
        for longest in [50, 5_000, 600_000].map(Duration::from_millis) {
            let mut backoff = Backoff::default();
            assert_eq!(backoff.next(longest), Duration::ZERO);
            for n in 0..100 {
                let whole = FIRST.saturating_mul(1 << n.min(16)).min(longest);
                let wait = backoff.next(longest);
                assert!(wait <= whole && wait >= whole / 2, "wait {n} is {wait:?}");
            }
            backoff.try_elsewhere(false);
            assert_eq!(backoff.next(longest), Duration::ZERO);
            assert!(backoff.next(longest) >= longest / 2, "it goes on where it was");
            backoff.try_elsewhere(true);
            assert_eq!(backoff.next(longest), Duration::ZERO);
            assert!(backoff.next(longest) <= FIRST, "it begins again");
            backoff.reset();
            assert_eq!(backoff.next(longest), Duration::ZERO);
        }
    }
}
