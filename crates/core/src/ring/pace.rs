//! How long the worker naps between two rounds while there is traffic.
//!
//! What is committed during a nap goes out in one batch. A round costs the cores about as much as a short
//! transaction does, on both sides of the connection. Where commits come one at a time that buys freshness;
//! where thousands come each second the cores are busy with them, so the naps grow and the rounds become few:
//! a value is then in Redis a fraction of a millisecond later, and commits get the time.
use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_micros(60);
const LONGEST: Duration = Duration::from_millis(1);
/// Up to this many entries a second naps are the shortest,
const DENSE: f64 = 6_000.0;
/// and from this many on the longest.
const DENSEST: f64 = 10_000.0;
/// Traffic is over when nothing has come for this long.
const TRAFFIC: Duration = Duration::from_micros(300);
/// Over this long entries are counted.
const WINDOW: Duration = Duration::from_millis(20);

/// See the module. Times are handed in, so that the decisions can be tested.
#[derive(Debug)]
pub struct Pace {
    window: Instant,
    /// Entries taken since the window began.
    entries: u32,
    last_fed: Instant,
    nap: Duration,
}

impl Pace {
    /// No traffic yet.
    pub fn new(now: Instant) -> Self {
        Self {
            window: now,
            entries: 0,
            last_fed: now,
            nap: SHORTEST,
        }
    }

    /// A round took this many entries.
    pub fn fed(&mut self, entries: u32, now: Instant) {
        if entries > 0 {
            self.last_fed = now;
            self.entries += entries;
        }
        let counted = now.duration_since(self.window);
        if counted >= WINDOW {
            self.nap = nap_at(f64::from(self.entries) / counted.as_secs_f64());
            self.window = now;
            self.entries = 0;
        }
    }

    /// The nap before the next round; `None` if traffic is over, so that the worker sleeps until it is woken.
    /// Where somebody waits for Redis the nap is short.
    pub fn nap(&self, now: Instant, somebody_waits: bool) -> Option<Duration> {
        let nap = if somebody_waits { SHORTEST } else { self.nap };
        (now.duration_since(self.last_fed) < TRAFFIC).then_some(nap)
    }
}

fn nap_at(rate: f64) -> Duration {
    let density = ((rate - DENSE) / (DENSEST - DENSE)).clamp(0.0, 1.0);
    SHORTEST + (LONGEST - SHORTEST).mul_f64(density)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nap after 100 ms of rounds, 60 µs apart, with this many entries a second.
    fn nap_after(rate: f64, somebody_waits: bool) -> Duration {
        let step = Duration::from_micros(60);
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut due = 0.0;
        for _ in 0..1_700 {
            now += step;
            due += rate * step.as_secs_f64();
            pace.fed(due as u32, now);
            due = due.fract();
        }
        pace.fed(1, now);
        pace.nap(now, somebody_waits).expect("there is traffic")
    }

    #[test]
    fn naps_grow_with_the_rate() {
        assert_eq!(nap_after(100.0, false), SHORTEST);
        assert_eq!(nap_after(5_000.0, false), SHORTEST);
        assert!((SHORTEST..LONGEST).contains(&nap_after(8_000.0, false)));
        assert_eq!(nap_after(20_000.0, false), LONGEST);
    }

    #[test]
    fn who_waits_does_not_wait_for_a_long_nap() {
        assert_eq!(nap_after(20_000.0, true), SHORTEST);
    }

    #[test]
    fn without_traffic_there_is_no_nap() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.fed(1, start);
        assert_eq!(pace.nap(start, false), Some(SHORTEST));
        let later = start + TRAFFIC;
        pace.fed(0, later);
        assert_eq!(pace.nap(later, false), None);
    }

    #[test]
    fn naps_shrink_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.fed(1_000, start + WINDOW);
        assert_eq!(pace.nap(start + WINDOW, false), Some(LONGEST));
        pace.fed(1, start + 2 * WINDOW);
        assert_eq!(pace.nap(start + 2 * WINDOW, false), Some(SHORTEST));
    }
}
