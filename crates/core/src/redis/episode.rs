//! An episode: trouble that comes and goes at its edge, told once.
//!
//! A Redis at its memory limit refuses one write and takes the next, because each refusal deletes a key. One line
//! in the log for each turn would be a flood.

use std::time::{Duration, Instant};

/// How long nothing must have happened for an episode to be over.
const QUIET: Duration = Duration::from_secs(10);

/// Whether something goes on that happens again and again.
#[derive(Debug, Default)]
pub struct Episode {
    last: Option<Instant>,
}

impl Episode {
    /// It has happened. Returns whether that begins an episode.
    pub fn happened(&mut self, now: Instant) -> bool {
        self.last.replace(now).is_none()
    }

    /// The opposite has happened. Returns whether that ends an episode: it has not happened for ten seconds.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.last
            .take_if(|last| now.saturating_duration_since(*last) >= QUIET)
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_one_episode() {
        let (mut episode, start) = (Episode::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!episode.is_over(start), "there was none");
        assert!(episode.happened(start));
        assert!(!episode.is_over(after(9)));
        assert!(!episode.happened(after(9)));
        assert!(!episode.is_over(after(18)));
        assert!(episode.is_over(after(19)));
        assert!(!episode.is_over(after(40)), "it was over already");
        assert!(episode.happened(after(41)));
    }
}
