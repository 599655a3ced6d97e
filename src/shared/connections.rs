//! The worker's connections as the view `connections` shows them: written by the worker, read by anybody, under the
//! text lock.
use pg_redis_cache_core::redis::{ConnectionFigures, ConnectionState, Kind};

use super::{Shared, blocks::Text, lock};
use crate::gucs;

/// There is room for the connections of `pool_size` lanes and a control to so many servers.
const SERVERS: usize = 16;

/// A connection. All zero is a valid one: none.
#[repr(C)]
pub(super) struct ConnectionPlace {
    server: Text<64>,
    role: Text<32>,
    address: Text<256>,
    /// 0 where there is none, else one more than the number of a [`ConnectionState`].
    state: u32,
    /// 0 while it is not connected.
    client_id: u64,
    /// Microseconds since 2000, as TimestampTz.
    since: i64,
    in_flight: u64,
    sent: u64,
    errors: [u64; Kind::ALL.len()],
    /// Microseconds; the mean is below 0 as long as nothing was answered.
    mean: i64,
    longest: i64,
}

/// What the view shows of a connection.
pub struct ConnectionShown {
    pub server: String,
    pub role: String,
    pub address: String,
    pub state: &'static str,
    pub client_id: Option<u64>,
    /// TimestampTz.
    pub since: Option<i64>,
    pub in_flight: u64,
    pub sent: u64,
    pub errors: [u64; Kind::ALL.len()],
    /// Mean and longest time of an exchange, in microseconds.
    pub times: Option<(i64, i64)>,
}

/// How many places there are.
pub(super) fn places() -> usize {
    (gucs::pool_size() + 1) * SERVERS
}

const STATES: [ConnectionState; 4] = [
    ConnectionState::Connected,
    ConnectionState::Connecting,
    ConnectionState::Waiting,
    ConnectionState::Idle,
];

impl ConnectionPlace {
    fn set(
        &mut self,
        server: &str,
        figures: &ConnectionFigures,
        timestamp: impl Fn(std::time::SystemTime) -> i64,
    ) {
        self.server.set(server);
        self.role.set(&figures.role);
        self.address.set(&figures.address);
        let state = STATES.iter().position(|state| *state == figures.state);
        self.state = state.map_or(0, |number| number as u32 + 1);
        self.client_id = figures.client_id.unwrap_or(0);
        self.since = figures.since.map_or(0, timestamp);
        self.in_flight = figures.in_flight;
        self.sent = figures.sent;
        self.errors = figures.errors;
        let times = figures
            .times
            .map(|(mean, longest)| (mean.as_micros() as i64, longest.as_micros() as i64));
        (self.mean, self.longest) = times.unwrap_or((-1, -1));
    }

    fn shown(&self) -> Option<ConnectionShown> {
        let state = STATES.get((self.state as usize).checked_sub(1)?)?;
        Some(ConnectionShown {
            server: self.server.get(),
            role: self.role.get(),
            address: self.address.get(),
            state: state.name(),
            client_id: Some(self.client_id).filter(|id| *id != 0),
            since: Some(self.since).filter(|since| *since != 0),
            in_flight: self.in_flight,
            sent: self.sent,
            errors: self.errors,
            times: (self.mean >= 0).then_some((self.mean, self.longest)),
        })
    }
}

impl Shared {
    /// Shows these connections, each with its server's name, in place of those shown before. `timestamp` makes a
    /// TimestampTz. Returns how many there was no place for. Called by the worker.
    pub fn set_connections<'a>(
        &self,
        connections: impl IntoIterator<Item = (&'a str, &'a ConnectionFigures)>,
        timestamp: impl Fn(std::time::SystemTime) -> i64,
    ) -> usize {
        let _held = lock(self.text_lock);
        // SAFETY: the text lock is held, which every access to the places takes.
        let places = unsafe { std::slice::from_raw_parts_mut(self.connections, places()) };
        let mut connections = connections.into_iter();
        for place in places {
            match connections.next() {
                Some((server, figures)) => place.set(server, figures, &timestamp),
                None => place.state = 0,
            }
        }
        connections.count()
    }

    /// The connections as they were told last.
    pub fn connections(&self) -> Vec<ConnectionShown> {
        let _held = lock(self.text_lock);
        // SAFETY: as in `set_connections`.
        let places = unsafe { std::slice::from_raw_parts(self.connections, places()) };
        places.iter().filter_map(ConnectionPlace::shown).collect()
    }
}
