//! What is told of each connection: its state, and what has gone over it since the engine began.
//!
//! A lane or the control has one [`Gauge`] for each master, whichever line it has there at the time. Counting is adding to integers of the
//! engine's one thread; once a second at most, and only if something has changed, all of them are reported.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::event::Event;
use super::fault::Kind;
use super::master::Master;
use super::shared::Shared;

/// How often figures are reported at most.
const REPORT: Duration = Duration::from_secs(1);

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// It is there.
    Connected,
    /// It is being opened.
    Connecting,
    /// It could not be had or was lost; the next attempt is due after a wait.
    Waiting,
    /// It was given up for want of work, and is opened again with the next operation.
    Idle,
}

impl ConnectionState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
        }
    }
}

/// The figures of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFigures {
    /// Whose it is: `lane-0` and so on, or `control`.
    pub role: String,
    /// Where it leads, with the password masked.
    pub address: String,
    /// How it is.
    pub state: ConnectionState,
    /// Its number in Redis (`CLIENT ID`), while it is connected.
    pub client_id: Option<u64>,
    /// Since when it has been, while it is connected.
    pub since: Option<SystemTime>,
    /// Commands sent and not answered.
    pub in_flight: u64,
    /// Commands sent, over this connection and those before it.
    pub sent: u64,
    /// How often there was trouble, by [`Kind::ALL`].
    pub errors: [u64; Kind::ALL.len()],
    /// From sending a pipeline until all of it was answered: the mean of all that were, and the longest.
    pub times: Option<(Duration, Duration)>,
}

/// See the module.
pub(super) struct Gauge {
    role: String,
    address: RefCell<String>,
    state: Cell<ConnectionState>,
    client: Cell<Option<(u64, SystemTime)>>,
    in_flight: Cell<u64>,
    sent: Cell<u64>,
    answered: Cell<u64>,
    total: Cell<Duration>,
    longest: Cell<Duration>,
    errors: Cell<[u64; Kind::ALL.len()]>,
}

/// Those of a lane or the control, by master.
pub(super) struct Gauges {
    role: String,
    /// With the ids of the masters, if they are those of a cluster.
    known: Vec<(Option<String>, Rc<Gauge>)>,
}

impl Gauges {
    pub fn new(role: String) -> Self {
        Self {
            role,
            known: Vec::new(),
        }
    }

    pub fn role(&self) -> &str {
        &self.role
    }

    /// The gauge for the lines to a master.
    pub fn of(&mut self, shared: &Shared, master: &Master) -> Rc<Gauge> {
        if let Some((_, gauge)) = self.known.iter().find(|(id, _)| id.as_deref() == master.id()) {
            return gauge.clone();
        }
        let gauge = shared.gauge(&self.role, master.address());
        self.known.push((master.id().map(str::to_owned), gauge.clone()));
        gauge
    }

    /// Forgets those for what is no master any more.
    pub fn keep(&mut self, masters: &[Rc<Master>]) {
        self.known
            .retain(|(id, _)| masters.iter().any(|master| master.id() == id.as_deref()));
    }
}

impl Gauge {
    pub fn new(role: &str, address: String) -> Self {
        Self {
            role: role.to_owned(),
            address: RefCell::new(address),
            state: Cell::new(ConnectionState::Connecting),
            client: Cell::default(),
            in_flight: Cell::default(),
            sent: Cell::default(),
            answered: Cell::default(),
            total: Cell::default(),
            longest: Cell::default(),
            errors: Cell::default(),
        }
    }

    pub fn role(&self) -> &str {
        &self.role
    }

    /// Where the connection leads, masked.
    pub fn address(&self) -> String {
        self.address.borrow().clone()
    }

    /// A connection is being opened.
    pub fn connecting(&self, address: String) {
        self.address.replace(address);
        self.state.set(ConnectionState::Connecting);
    }

    /// It is there, and Redis calls it so.
    pub fn connected(&self, client: u64) {
        self.client.set(Some((client, SystemTime::now())));
        self.state.set(ConnectionState::Connected);
    }

    /// It is there no more, or could not be had.
    pub fn gone(&self, state: ConnectionState) {
        self.client.set(None);
        self.in_flight.set(0);
        self.state.set(state);
    }

    pub fn sending(&self, commands: usize) {
        self.in_flight.set(commands as u64);
        self.sent.set(self.sent.get() + commands as u64);
    }

    /// What was sent last is answered.
    pub fn answered(&self, after: Duration) {
        self.in_flight.set(0);
        self.answered.set(self.answered.get() + 1);
        self.total.set(self.total.get() + after);
        self.longest.set(self.longest.get().max(after));
    }

    /// There was trouble of this kind.
    pub fn trouble(&self, kind: Kind) {
        let mut errors = self.errors.get();
        errors[kind as usize] += 1;
        self.errors.set(errors);
    }

    pub fn figures(&self) -> ConnectionFigures {
        let client = self.client.get();
        // A mean of more than 2^32 exchanges is that of fewer.
        let answered = u32::try_from(self.answered.get()).unwrap_or(u32::MAX);
        ConnectionFigures {
            role: self.role.clone(),
            address: self.address(),
            state: self.state.get(),
            client_id: client.map(|(id, _)| id),
            since: client.map(|(_, since)| since),
            in_flight: self.in_flight.get(),
            sent: self.sent.get(),
            errors: self.errors.get(),
            times: (answered > 0).then(|| (self.total.get() / answered.max(1), self.longest.get())),
        }
    }
}

/// Reports the figures of every gauge there is. Runs until the engine stops.
pub(super) async fn report(shared: Rc<Shared>) {
    let mut tick = interval(REPORT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Vec::new();
    loop {
        tick.tick().await;
        let figures: Vec<_> = shared.gauges().iter().map(|gauge| gauge.figures()).collect();
        if figures != told {
            shared.events.emit(Event::Connections(figures.clone()));
            told = figures;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_what_was_answered() {
        let gauge = Gauge::new("lane-0", "redis://h:1/0".to_owned());
        assert_eq!(gauge.figures().times, None);
        for ms in [10, 30] {
            gauge.sending(3);
            assert_eq!(gauge.figures().in_flight, 3);
            gauge.answered(Duration::from_millis(ms));
        }
        gauge.sending(1);
        gauge.gone(ConnectionState::Waiting);
        let figures = gauge.figures();
        let times = (Duration::from_millis(20), Duration::from_millis(30));
        assert_eq!(
            (figures.times, figures.sent, figures.in_flight),
            (Some(times), 7, 0)
        );
    }

    #[test]
    fn trouble_is_counted_by_kind() {
        let gauge = Gauge::new("lane-0", String::new());
        gauge.trouble(Kind::Refused);
        gauge.trouble(Kind::Protocol);
        gauge.trouble(Kind::Protocol);
        let errors = gauge.figures().errors;
        let counted: Vec<_> = Kind::ALL.iter().zip(errors).filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(&Kind::Refused, 1), (&Kind::Protocol, 2)]);
    }
}
