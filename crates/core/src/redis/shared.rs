//! What the tasks of the engine have in common: settings, pool, the server's identity, the events.
//!
//! All of it lives on the engine's one thread; nothing is borrowed across an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Mutex, Notify};

use super::client_name::{engine_name, is_predecessor};
use super::engine::{Settings, Setup};
use super::event::{Client, Event, Events, LossReason, PoolState, Server};
use super::fault::{Cause, Fault};
use super::ledger::Ledger;
use super::line::{self, Line, Pool};

/// How many clients on servers that were left are remembered. There is at most one for each lane and change of
/// the server.
const LEFT_BEHIND: usize = 1024;

pub(super) struct Shared {
    pub setup: Setup,
    /// Tells this engine from others of its owner.
    instance: String,
    pub events: Events,
    pub ledger: Ledger,
    /// Wakes whoever waits on a connection, when the settings or the server have changed.
    pub changed: Notify,
    settings: RefCell<Rc<Settings>>,
    pool: RefCell<Pool>,
    /// Counts the settings that there have been: a line opened under older ones is out of date.
    generation: Cell<u64>,
    server: RefCell<Option<Arc<Server>>>,
    /// The settings' generation under which that server's marker was taken.
    marker_taken: Cell<Option<u64>>,
    /// The settings' generation and the server process (`run_id`) for which that was done last: no earlier client
    /// can run a command there any more.
    swept: RefCell<Option<(u64, String)>>,
    /// Clients of this engine on servers that it has left, whose commands may still run there.
    left_behind: RefCell<VecDeque<Client>>,
    /// Held by whoever meets a server: the first line to it sweeps and takes its marker, the others then know it.
    meeting: Mutex<()>,
    /// Lines that are open, of the lanes and the control.
    open: Cell<usize>,
    /// The trouble that the reader of the events was told last, until all lines are open again.
    trouble: RefCell<Option<Cause>>,
    refusing: Cell<bool>,
    pool_state: Cell<PoolState>,
}

impl Shared {
    pub fn new(setup: Setup, settings: Settings, events: Events) -> Result<Self, Cause> {
        let pool = line::pool(&settings, setup.lanes + 1)?;
        Ok(Self {
            setup,
            instance: instance(),
            events,
            ledger: Ledger::default(),
            changed: Notify::new(),
            settings: RefCell::new(Rc::new(settings)),
            pool: RefCell::new(pool),
            generation: Cell::new(0),
            server: RefCell::new(None),
            marker_taken: Cell::new(None),
            swept: RefCell::new(None),
            left_behind: RefCell::new(VecDeque::new()),
            meeting: Mutex::new(()),
            open: Cell::new(0),
            trouble: RefCell::new(None),
            refusing: Cell::new(false),
            pool_state: Cell::new(PoolState::default()),
        })
    }

    /// Takes new settings: every line is then out of date and is opened anew.
    pub fn reconfigure(&self, settings: Settings) {
        match line::pool(&settings, self.setup.lanes + 1) {
            Ok(pool) => {
                self.pool.replace(pool);
                self.settings.replace(Rc::new(settings));
                self.generation.set(self.generation.get() + 1);
                self.changed.notify_waiters();
            }
            Err(cause) => self.tell_trouble(cause),
        }
    }

    /// Opens a line for the lane or control of this name, and tells who is at the other end.
    pub async fn open(&self, role: &str) -> Result<Line, Cause> {
        let (settings, pool) = (self.settings.borrow().clone(), self.pool.borrow().clone());
        let generation = self.generation.get();
        let name = self.client_name(role);
        let opened = match Line::open(&pool, &settings, &name, generation).await {
            Ok(mut line) => match self.meet(&mut line).await {
                Ok(()) => Ok(line),
                Err(cause) => {
                    line.close();
                    Err(cause)
                }
            },
            Err(cause) => Err(cause),
        };
        match opened {
            Ok(line) => {
                self.open.set(self.open.get() + 1);
                self.tell_pool();
                Ok(line)
            }
            Err(cause) => {
                if cause != Cause::Reconfigured {
                    self.tell_trouble(cause.clone());
                }
                Err(cause)
            }
        }
    }

    fn client_name(&self, role: &str) -> String {
        let setup = &self.setup;
        engine_name(&setup.name, role, &setup.label, &setup.owner, &self.instance)
    }

    /// Whether a client of this name belongs to another engine of this program, of whatever version, and
    /// this owner.
    pub fn is_predecessor(&self, name: &str) -> bool {
        is_predecessor(name, &self.setup.name, &self.setup.owner, &self.instance)
    }

    /// Closes a line for good, and tells why.
    pub fn lose(&self, line: Line, cause: Cause) {
        line.close();
        self.open.set(self.open.get() - 1);
        self.tell_pool();
        if cause != Cause::Reconfigured {
            self.tell_trouble(cause);
        }
    }

    /// Whether the line goes where the settings say, to the server process seen last.
    pub fn is_current(&self, line: &Line) -> bool {
        self.is_same(line.generation, &line.server)
    }

    /// Whether a line opened under these settings to this server is current.
    pub fn is_same(&self, generation: u64, server: &Server) -> bool {
        generation == self.generation.get()
            && self
                .server
                .borrow()
                .as_ref()
                .is_some_and(|known| known.run_id == server.run_id)
    }

    /// Compares who answers at the end of this line with who did before (rule 8). Before anything is sent to a
    /// server that is new, or under new settings (its database may be another one), what earlier clients may have
    /// left is ended, and its marker is taken. So no purge can be over before an old command runs (rules 5 and 7).
    ///
    /// # Errors
    ///
    /// The clients or the marker may still be there, or the settings have changed: close the line.
    pub async fn meet(&self, line: &mut Line) -> Result<(), Cause> {
        if line.generation != self.generation.get() {
            return Err(Cause::Reconfigured);
        }
        if self.has_met(line) {
            return Ok(());
        }
        let _turn = self.meeting.lock().await;
        if self.has_met(line) {
            return Ok(());
        }
        self.sweep(line).await?;
        let marker = match &self.setup.marker {
            Some(key) => line.take_marker(key).await?,
            None => None,
        };
        if line.generation != self.generation.get() {
            return Err(Cause::Reconfigured);
        }
        self.marker_taken.set(Some(line.generation));
        if !self.is_known(&line.server) {
            self.server.replace(Some(line.server.clone()));
            // Another process may be told from a first one only by its trouble being over.
            self.trouble.replace(None);
            self.events.emit(Event::Connected {
                server: line.server.clone(),
                changed: true,
                marker,
            });
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// Rule 5: kills the clients whose commands may still run on a server that is met. Those of earlier engines of
    /// the same owner (one whose process has died, however it died, may have left commands on their way) are told by
    /// their names, this engine's own by their numbers.
    async fn sweep(&self, line: &mut Line) -> Result<(), Cause> {
        let met = (line.generation, line.server.run_id.clone());
        if self.swept.borrow().as_ref() == Some(&met) {
            return Ok(());
        }
        match line.clients().await? {
            Ok(named) => {
                for (id, name) in named {
                    if self.is_predecessor(&name) {
                        self.kill(line, id).await?;
                    }
                }
            }
            Err(cause) => self.events.emit(Event::Lost {
                mapping: None,
                reason: LossReason::Unlisted { cause },
            }),
        }
        while let Some(id) = self.left_on(&met.1) {
            self.kill(line, id).await?;
            self.left_behind
                .borrow_mut()
                .retain(|client| client.id != id || client.run_id != met.1);
        }
        self.swept.replace(Some(met));
        Ok(())
    }

    async fn kill(&self, line: &mut Line, id: u64) -> Result<(), Cause> {
        if let Some(cause) = line.kill(id).await? {
            // What it had in flight is not known here.
            self.tell_unkillable(id, &cause, None);
        }
        Ok(())
    }

    /// One of this engine's clients that were left behind on a server process.
    fn left_on(&self, run_id: &str) -> Option<u64> {
        let left_behind = self.left_behind.borrow();
        let client = left_behind.iter().find(|client| client.run_id == run_id)?;
        Some(client.id)
    }

    /// Remembers a client of another server than the one that was met last: should that server be met again, the
    /// client is killed there first.
    pub fn leave_behind(&self, client: Client) {
        let mut left_behind = self.left_behind.borrow_mut();
        left_behind.push_back(client);
        if left_behind.len() > LEFT_BEHIND {
            left_behind.pop_front();
        }
    }

    /// A client could not be killed, so what it had sent may still run: the mapping is lost, `None` for all.
    pub fn tell_unkillable(&self, client: u64, cause: &Cause, mapping: Option<u16>) {
        let reason = LossReason::Unkillable {
            client,
            cause: cause.clone(),
        };
        self.events.emit(Event::Lost { mapping, reason });
    }

    fn has_met(&self, line: &Line) -> bool {
        self.marker_taken.get() == Some(line.generation) && self.is_known(&line.server)
    }

    fn is_known(&self, server: &Server) -> bool {
        self.server.borrow().as_ref().is_some_and(|known| {
            known.run_id == server.run_id && known.replication_id == server.replication_id
        })
    }

    /// Something went through this line: the trouble is over once all lines are open.
    pub fn tell_working(&self) {
        self.refusing.set(false);
        if self.open.get() <= self.setup.lanes || self.trouble.borrow().is_none() {
            return;
        }
        if let Some(server) = self.server.borrow().clone() {
            self.trouble.replace(None);
            self.events.emit(Event::Connected {
                server,
                changed: false,
                marker: None,
            });
        }
    }

    /// The server refuses writes for now.
    pub fn tell_refusing(&self, cause: Cause) {
        if !self.refusing.replace(true) {
            self.events.emit(Event::Refusing {
                fault: self.fault(cause),
            });
        }
    }

    /// The server has no memory for writes.
    pub fn tell_full(&self, cause: Cause) {
        self.events.emit(Event::Full {
            fault: self.fault(cause),
        });
    }

    fn tell_trouble(&self, cause: Cause) {
        let is_known = self
            .trouble
            .borrow()
            .as_ref()
            .is_some_and(|known| known.is_like(&cause));
        if !is_known {
            self.trouble.replace(Some(cause.clone()));
            self.events.emit(Event::Disconnected {
                fault: self.fault(cause),
            });
        }
    }

    fn tell_pool(&self) {
        let status = self.pool.borrow().status();
        let state = PoolState {
            size: status.size,
            idle: status.available,
            waiting: (self.setup.lanes + 1).saturating_sub(self.open.get()),
        };
        if self.pool_state.replace(state) != state {
            self.events.emit(Event::Pool(state));
        }
    }

    /// A cause, with the masked address that it has to do with.
    pub fn fault(&self, cause: Cause) -> Fault {
        Fault {
            address: self.settings.borrow().address.masked(),
            cause,
        }
    }
}

/// Another text for each engine: the time of its start, and the process.
fn instance() -> String {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}
