//! What may change while an engine runs without any connection being given up for it.

use std::time::Duration;

/// See the module. Taken into use by [`Request::Tune`](super::Request::Tune).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// A lane that has had nothing to write for so long gives its connection up until it has; `None`: never. The
    /// control keeps its own.
    pub idle_timeout: Option<Duration>,
    /// A connection that has come to this age, or is short of it by up to an eighth (so that not all are replaced at
    /// once), is replaced when nothing is in flight on it; `None`: never. A purge keeps that of the control longer.
    pub max_lifetime: Option<Duration>,
    /// The longest wait between two attempts to connect.
    pub backoff_max: Duration,
    /// A batch that takes longer from being sent until all of it is answered is told of
    /// ([`Event::SlowPush`](super::Event::SlowPush)); `None`: none.
    pub slow_push: Option<Duration>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            max_lifetime: None,
            backoff_max: Duration::from_secs(5),
            slow_push: None,
        }
    }
}
