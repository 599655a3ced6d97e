//! One Redis server as the worker reaches it: its engine, and what is known of it.
//!
//! What holds for a mapping (its purges, its state) is kept by mapping; what holds for a server is here, so that
//! trouble with one is nobody else's.
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pg_redis_cache_core::redis::{ConnectionFigures, EngineHandle, Event, Note, Request, Server, Ticket};

use super::{
    Worker, heartbeat::Heartbeat, link::Target, marker::Claim, on_its_way::OnItsWay, trouble::Troubles,
};
use crate::gucs;
use crate::shared::{DEFAULT, ServerPlace, Shared, StatusText};

/// How long nothing of a mapping must have been lost before the next loss is news again. On a cluster one node may refuse
/// what the others take, at the same time.
pub const QUIET: Duration = Duration::from_secs(10);

/// How long a server that nothing is left on may take to be left.
const TO_LEAVE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Destination {
    pub shared: Shared,
    /// Its number in shared memory.
    number: usize,
    /// What the settings call it.
    pub name: String,
    /// Whether a mapping has keys there.
    pub is_used: bool,
    /// Whether the settings say where it is.
    pub is_listed: bool,
    pub engine: Option<EngineHandle>,
    /// The settings that the connections were made with.
    pub settings: Target,
    /// When the settings of the connection were looked at last.
    pub looked_at_settings: Instant,
    pub connected: bool,
    /// The server that was reached last.
    pub server: Option<Arc<Server>>,
    /// What this start may know of the past, until the server is reached (rule 8). No purge is sent there meanwhile.
    pub past: Option<Claim>,
    pub heartbeat: Heartbeat,
    /// The note that was answered last, and whether Redis has done it.
    pub noted: Option<(Ticket, bool)>,
    pub troubles: Troubles,
    /// Mappings whose losses have been logged, and when the last one was: until something of theirs is stored again, and
    /// nothing was lost for [`QUIET`].
    pub lossy: HashMap<u16, Instant>,
    /// When mappings are lost once more (`None`: all of the server's), see `lose_again_later`.
    pub again: Vec<(Instant, Option<u16>)>,
    /// Its connections, as the engine has told of them last.
    pub connections: Vec<ConnectionFigures>,
    /// What is on its way there.
    pub on_its_way: OnItsWay,
}

impl Destination {
    pub fn new(shared: Shared, number: usize) -> Self {
        Self {
            shared,
            number,
            name: shared.server_name(number),
            is_used: false,
            is_listed: false,
            engine: None,
            settings: Target::default(),
            looked_at_settings: Instant::now(),
            connected: false,
            server: None,
            past: None,
            heartbeat: Heartbeat::default(),
            noted: None,
            troubles: Troubles::default(),
            lossy: HashMap::new(),
            again: Vec::new(),
            connections: Vec::new(),
            on_its_way: OnItsWay::new(),
        }
    }

    /// What is said of it, with its name unless it is the only one that most have.
    pub fn said(&self, text: &str) -> String {
        if self.number == DEFAULT {
            text.to_owned()
        } else {
            format!("server \"{}\": {text}", self.name)
        }
    }

    /// What the views show of it.
    pub fn shown(&self) -> &ServerPlace {
        self.shared.server(self.number)
    }

    pub fn show_text(&self, which: StatusText, text: &str) {
        self.shared.set_status_text(self.number, which, text);
    }

    pub fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        self.shared.set_connected(self.number, connected);
        self.show_gone();
    }

    /// Nobody waits for one that is not in the list, unless the connections from before are still there.
    pub fn show_gone(&self) {
        self.shared
            .set_gone(self.number, !self.is_listed && !self.connected);
    }

    pub fn shown_text(&self, which: StatusText) -> String {
        self.shared.status_text(self.number, which)
    }

    /// Hands a request to the engine, if there is one.
    pub fn send(&self, request: Request) {
        if let Some(engine) = &self.engine {
            engine.send(request);
        }
    }

    /// What the engine reports next.
    pub fn next_event(&self) -> Option<Event> {
        self.engine.as_ref().and_then(EngineHandle::try_recv)
    }
}

impl Worker {
    /// Brings the destinations in line with what shared memory says of the servers, after mappings have come or gone.
    /// One that nothing is left on is let go of.
    pub(super) fn match_destinations(&mut self) {
        for at in 0..self.destinations.len() {
            let is_used = self.shared.is_used(at);
            if at != DEFAULT && (!is_used || self.destinations[at].name != self.shared.server_name(at)) {
                self.stop_engine(at, Instant::now() + TO_LEAVE);
                self.destinations[at] = Destination::new(self.shared, at);
                self.shared.set_connected(at, false);
                self.shared.set_gone(at, false);
            }
            self.destinations[at].is_used = is_used;
            if is_used {
                let position = self.destinations[at].position(self.feed.position);
                self.shared.set_position(at, position);
            } else {
                self.shared.set_nothing_goes_to(at);
            }
        }
        self.shared.wake_waiters();
        self.show_all_connections();
    }

    /// Connects to each server that has mappings, and always to the one of the setting `url`.
    pub(super) fn connect_all(&mut self) {
        self.tell_of_list();
        for at in 0..self.destinations.len() {
            if at == DEFAULT || self.destinations[at].is_used {
                self.connect(at);
            }
        }
    }

    /// Tells what is wrong with the list of servers, once until it is something else.
    fn tell_of_list(&mut self) {
        let problems = gucs::servers::problems();
        if self.list_problems != problems {
            for problem in &problems {
                self.destinations[DEFAULT].note_error(problem);
                pgrx::log!("pg_redis_cache: {problem}");
            }
            self.list_problems = problems;
        }
    }

    /// Has the engines go by the settings that cost no connection.
    pub(super) fn tune_all(&self) {
        (0..self.destinations.len()).for_each(|at| self.tune(at));
    }

    /// Ends an engine, and takes what it still has to report.
    pub(super) fn stop_engine(&mut self, at: usize, deadline: Instant) {
        let Some(engine) = self.destinations[at].engine.take() else {
            return;
        };
        engine.send(Request::Shutdown {
            within: deadline.saturating_duration_since(Instant::now()),
        });
        while !engine.is_finished() {
            match engine.try_recv() {
                Some(Event::Stopped { .. }) => break,
                Some(event) => self.handle(at, event),
                None => self.wait_set.wait(Duration::from_millis(10)),
            }
        }
        if let Err(error) = engine.join() {
            pgrx::log!("pg_redis_cache: {error}");
        }
    }

    /// Has a note stored, and waits for the answer. Returns whether Redis has done it.
    pub(super) fn note_and_wait(&mut self, at: usize, note: Note, deadline: Instant) -> bool {
        let ticket = note.ticket;
        let destination = &mut self.destinations[at];
        if !destination.connected {
            return false;
        }
        destination.noted = None;
        destination.send(Request::Note(note));
        while !self.engine_ended && Instant::now() < deadline {
            self.take_events();
            match self.destinations[at].noted {
                Some((noted, done)) if noted == ticket => return done,
                _ => self.wait_set.wait(Duration::from_millis(10)),
            }
        }
        false
    }
}
