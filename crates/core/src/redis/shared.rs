//! What the tasks of the engine have in common: settings, masters, their identity, the events.
//!
//! All of it lives on the engine's one thread; nothing is borrowed across an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::Notify;

use super::address::HostPort;
use super::client_name::{engine_name, is_predecessor};
use super::engine::{Settings, Setup};
use super::event::{Client, Events, PoolState, Server};
use super::fault::Cause;
use super::gauge::{ConnectionState, Gauge};
use super::ledger::Ledger;
use super::line::Line;
use super::master::Master;
use super::routes::Routes;
use super::sentinel::Sentinels;
use super::tuning::Tuning;

mod meeting;
mod place;
mod telling;

pub(super) struct Shared {
    pub setup: Setup,
    pub events: Events,
    pub ledger: Ledger,
    /// Wakes whoever waits on a connection, when the settings or the server have changed.
    pub changed: Notify,
    /// Wakes lanes in which something waits, when slots have another master.
    pub rerouted: Notify,
    /// Has the control look at the cluster before it is time.
    pub survey: Notify,
    settings: RefCell<Rc<Settings>>,
    routes: RefCell<Rc<Routes>>,
    /// The master that sentinels have named last, if the settings name a service.
    master: RefCell<Option<HostPort>>,
    /// The one that the reader of the events was told last.
    told_master: RefCell<Option<HostPort>>,
    sentinels: RefCell<Option<Rc<Sentinels>>>,
    tuning: Cell<Tuning>,
    /// One for each line that a lane or the control has, or wants.
    gauges: RefCell<Vec<Weak<Gauge>>>,
    /// Lanes that have given their lines up for want of work.
    resting: Cell<usize>,
    /// Counts the settings, and under each the masters that sentinels have named.
    generation: Cell<u64>,
    /// Counts what lets hope that something goes through now; see [`Self::prospects`].
    prospects: Cell<u64>,
    /// See [`Self::revision`].
    revision: Cell<u64>,
    /// The masters that sentinels have named since one was met last.
    named: RefCell<Vec<HostPort>>,
    /// Counts the lists of masters of a cluster that there have been.
    numberings: Cell<u64>,
    /// Who the reader of the events was told is there.
    server: RefCell<Option<Arc<Server>>>,
    /// The marker that was taken, until it is told of.
    marker: RefCell<Option<Vec<u8>>>,
    /// Clients of this engine on servers that it has left, whose commands may still run there.
    left_behind: RefCell<VecDeque<Client>>,
    /// The trouble that the reader of the events was told last, until all lines are open again.
    trouble: RefCell<Option<Cause>>,
    /// The settings under which that was.
    trouble_under: Cell<u64>,
    refusing: Cell<bool>,
    pool_state: Cell<PoolState>,
}

impl Shared {
    pub fn new(setup: Setup, settings: Settings, events: Events) -> Result<Self, Cause> {
        let (routes, sentinels) = (Routes::of(&settings, setup.lanes + 1)?, Sentinels::of(&settings)?);
        Ok(Self {
            setup,
            events,
            ledger: Ledger::default(),
            changed: Notify::new(),
            rerouted: Notify::new(),
            survey: Notify::new(),
            settings: RefCell::new(Rc::new(settings)),
            routes: RefCell::new(Rc::new(routes)),
            master: RefCell::new(None),
            told_master: RefCell::new(None),
            sentinels: RefCell::new(sentinels.map(Rc::new)),
            tuning: Cell::default(),
            gauges: RefCell::default(),
            resting: Cell::new(0),
            generation: Cell::new(0),
            prospects: Cell::new(0),
            revision: Cell::new(0),
            named: RefCell::default(),
            numberings: Cell::new(0),
            server: RefCell::new(None),
            marker: RefCell::new(None),
            left_behind: RefCell::new(VecDeque::new()),
            trouble: RefCell::new(None),
            trouble_under: Cell::new(0),
            refusing: Cell::new(false),
            pool_state: Cell::new(PoolState::default()),
        })
    }

    /// Takes new settings: every line is then out of date and is opened anew.
    pub fn reconfigure(&self, settings: Settings) {
        let routes = Routes::of(&settings, self.setup.lanes + 1);
        match routes.and_then(|routes| Ok((routes, Sentinels::of(&settings)?))) {
            Ok((routes, sentinels)) => {
                self.set_routes(routes);
                self.sentinels.replace(sentinels.map(Rc::new));
                self.settings.replace(Rc::new(settings));
                self.marker.replace(None);
                self.master.replace(None);
                self.named.take();
                self.has_prospects();
                self.outdate_lines();
            }
            Err(cause) => self.tell_trouble(self.fault(cause)),
        }
    }

    /// Goes by other figures, also where somebody waits by the old ones.
    pub fn tune(&self, tuning: Tuning) {
        self.tuning.set(tuning);
        self.changed.notify_waiters();
    }

    pub fn tuning(&self) -> Tuning {
        self.tuning.get()
    }

    /// What is to be told of a line of the lane or control of this name, as long as it keeps it.
    pub fn gauge(&self, role: &str, address: String) -> Rc<Gauge> {
        let gauge = Rc::new(Gauge::new(role, address));
        self.gauges.borrow_mut().push(Rc::downgrade(&gauge));
        gauge
    }

    pub fn gauges(&self) -> Vec<Rc<Gauge>> {
        let mut gauges = self.gauges.borrow_mut();
        gauges.retain(|gauge| gauge.strong_count() > 0);
        gauges.iter().filter_map(Weak::upgrade).collect()
    }

    /// The masters as they are known now.
    pub fn routes(&self) -> Rc<Routes> {
        self.routes.borrow().clone()
    }

    pub fn set_routes(&self, routes: Routes) {
        self.routes.replace(Rc::new(routes));
        self.revision.set(self.revision.get() + 1);
        self.rerouted.notify_waiters();
    }

    /// A number that no list of masters has had.
    pub fn next_numbering(&self) -> u64 {
        self.numberings.set(self.numberings.get() + 1);
        self.numberings.get()
    }

    pub fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Which settings they are, counted.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Counts the settings, the lists of a cluster's masters, and the masters that sentinels have named, those not that
    /// they had named before without one having been met since: sentinels that disagree must not keep everybody from
    /// waiting.
    pub fn prospects(&self) -> u64 {
        self.prospects.get()
    }

    /// Counts the lists of masters, with their slots, and the processes met there: while it stays, lines that are current
    /// stay so.
    pub fn revision(&self) -> u64 {
        self.revision.get()
    }

    /// There is something that has not been tried yet.
    pub fn has_prospects(&self) {
        self.prospects.set(self.prospects.get() + 1);
    }

    /// Opens a line to a master for a lane or the control, and tells who is at the other end.
    pub async fn open(&self, master: &Rc<Master>, gauge: &Rc<Gauge>) -> Result<Line, Cause> {
        match self.open_to(master, gauge).await {
            Ok(line) => {
                gauge.connected(line.id);
                master.open.set(master.open.get() + 1);
                master.opened.send_replace(());
                self.tell_pool();
                Ok(line)
            }
            Err(cause) => {
                // What is wrong with one that has left the list meanwhile is no trouble, and nothing would end it.
                let is_wanted = self.routes().has(master);
                let cause = if is_wanted { cause } else { Cause::Reconfigured };
                self.note_end(master, gauge, &cause);
                Err(cause)
            }
        }
    }

    async fn open_to(&self, master: &Rc<Master>, gauge: &Rc<Gauge>) -> Result<Line, Cause> {
        let unnamed = match self.ask_sentinels(master).await {
            Ok(()) => None,
            Err(cause) if self.is_silence(&cause) => Some(cause),
            Err(cause) => return Err(cause),
        };
        let name = self.client_name(gauge.role());
        gauge.connecting(master.address());
        let (pool, settings) = (master.pool()?, &master.settings);
        let mut line = match Line::open(pool, settings, &name, master.topology(), gauge).await {
            Ok(line) => line,
            Err(cause) => {
                if let Some(sentinels) = &*self.sentinels.borrow() {
                    sentinels.doubt();
                }
                return Err(unnamed.unwrap_or(cause));
            }
        };
        if let Some(unnamed) = unnamed.filter(|_| !master.has_met(&line.server)) {
            line.close();
            return Err(unnamed);
        }
        match self.meet(master, &mut line).await {
            Ok(()) => Ok(line),
            Err(cause) => {
                line.close();
                Err(cause)
            }
        }
    }

    pub fn client_name(&self, role: &str) -> String {
        let setup = &self.setup;
        engine_name(&setup.name, role, &setup.label, &setup.owner, &setup.instance)
    }

    /// Whether a client of this name belongs to another engine of this program, of whatever version, and
    /// this owner.
    pub fn is_predecessor(&self, name: &str) -> bool {
        is_predecessor(name, &self.setup.name, &self.setup.owner, &self.setup.instance)
    }

    /// Closes a line for good, and tells why.
    pub fn lose(&self, master: &Master, line: Line, cause: Cause) {
        let gauge = line.gauge().clone();
        self.close(master, line);
        self.note_end(master, &gauge, &cause);
    }

    /// Closes a line on which nothing is in flight, and which is replaced at once.
    pub fn replace(&self, master: &Master, line: Line) {
        line.gauge().gone(ConnectionState::Connecting);
        self.close(master, line);
    }

    /// Closes the lines of a lane that has nothing to write; [`Self::wake`] when it has.
    pub fn put_to_rest(&self, lines: impl IntoIterator<Item = (Rc<Master>, Line)>) {
        self.resting.set(self.resting.get() + 1);
        for (master, line) in lines {
            line.gauge().gone(ConnectionState::Idle);
            self.close(&master, line);
        }
    }

    /// A lane that was put to rest wants its lines.
    pub fn wake(&self) {
        self.resting.set(self.resting.get() - 1);
    }

    fn close(&self, master: &Master, line: Line) {
        line.close();
        master.open.set(master.open.get() - 1);
        self.tell_pool();
    }

    fn note_end(&self, master: &Master, gauge: &Gauge, cause: &Cause) {
        gauge.gone(ConnectionState::Waiting);
        if *cause != Cause::Reconfigured {
            self.survey.notify_one();
            gauge.trouble(cause.kind());
            self.tell_trouble(self.fault_at(master, cause.clone()));
        }
    }

    /// How many lines to each master there should be.
    fn wanted(&self) -> usize {
        self.setup.lanes + 1 - self.resting.get()
    }

    /// Whether the line goes to a master as the settings and the cluster say now, to the process seen there last.
    pub fn is_current(&self, master: &Rc<Master>, line: &Line) -> bool {
        self.is_same(master, &line.server)
    }

    /// Whether a line opened to this server is current.
    pub fn is_same(&self, master: &Rc<Master>, server: &Server) -> bool {
        self.routes.borrow().has(master) && master.is_process(server)
    }
}
