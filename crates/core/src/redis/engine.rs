//! The engine: its thread, its requests, and the router that hands them to lanes and control.

use std::fmt;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use super::address::{Address, Secret};
use super::chunk::{Chunk, Expiry, HashFields, Ticket};
use super::control::{Control, Errand};
use super::event::{self, Event, EventReader, Server, Waker};
use super::fault::Cause;
use super::gauge;
use super::lane::Lane;
use super::queue::Queue;
use super::sentinel;
use super::shared::Shared;
use super::tls::Tls;
use super::tuning::Tuning;

/// How often a stopping engine looks whether it is done, beside being told.
const DRAIN_CHECK: Duration = Duration::from_millis(1);

/// What an engine is made with and keeps.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Connections for writes to each master, at least 1; one more is opened for the control.
    pub lanes: usize,
    /// What the connections are named after in Redis (`CLIENT LIST`): program and version, as
    /// `program/1.0`, without spaces and colons.
    pub name: String,
    /// What tells a reader of CLIENT LIST whose they are; may be empty.
    pub label: String,
    /// Whose connections they are, without spaces and colons. Those of another engine of this program and
    /// owner are killed before anything is written: its commands might run later (rule 5).
    pub owner: String,
    /// Tells this engine, and those that work beside it, from earlier ones of its owner: see [`new_instance`].
    pub instance: String,
    /// Takes stored hashes apart.
    pub hash_fields: HashFields,
    /// The key of the marker that an earlier life of the worker may have left (rule 8). It is read and deleted
    /// on each server that is new to the engine, before anything else is sent there; see
    /// [`Event::Connected`].
    pub marker: Option<Vec<u8>>,
}

/// Another text each time: the time, and the process.
pub fn new_instance() -> String {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}

/// What may change while an engine runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub address: Address,
    /// A password that takes precedence over the address's.
    pub password: Option<Secret>,
    /// What an address with TLS is opened with.
    pub tls: Option<Tls>,
    /// From the look-up of the name until Redis has told who it is.
    pub connect_timeout: Duration,
    /// Until all answers to a pipeline have come. A pipeline of large values gets more, a second for
    /// every 16 MiB.
    pub command_timeout: Duration,
}

/// What the engine is asked to do.
pub enum Request {
    /// Write these operations.
    Write(Chunk),
    /// Delete a mapping's keys.
    Purge(PurgeJob),
    /// Measure a round trip.
    Ping {
        /// Comes back in [`Event::Pong`].
        ticket: Ticket,
    },
    /// Store or delete a key of the worker's own.
    Note(Note),
    /// Drop all connections and open new ones. What is not acknowledged is sent again, under the rules
    /// for lost connections.
    Reconfigure(Settings),
    /// From here on go by this; at first by what is the default. Connections stay.
    Tune(Tuning),
    /// Stop, as soon as all that was sent is acknowledged, or a lane with something to write cannot
    /// reach the server, or the time is over. Purges that have not been reported are not done.
    Shutdown {
        /// The longest to take.
        within: Duration,
    },
}

/// A key of the worker's own, beside what the mappings store. It goes over the control connection, in no order
/// with what the lanes write, and is tried once.
#[derive(Clone, Debug)]
pub struct Note {
    /// Comes back in [`Event::Noted`].
    pub ticket: Ticket,
    /// The server that it speaks of: the one of the last [`Event::Connected`] that the sender has read. Once another
    /// has been told of it is refused.
    pub server: Arc<Server>,
    /// The key.
    pub key: Vec<u8>,
    /// A string to store there; `None` to delete the key.
    pub value: Option<Vec<u8>>,
    /// How long Redis keeps it.
    pub expiry: Expiry,
}

/// Whether a key is a mapping's own.
pub type Matcher = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// The deletion of a mapping's keys.
#[derive(Clone)]
pub struct PurgeJob {
    /// Comes back in [`Event::Purged`].
    pub mapping: u16,
    /// Comes back in [`Event::Purged`].
    pub epoch: u64,
    /// A pattern of SCAN MATCH that all the mapping's keys match.
    pub glob: Vec<u8>,
    /// Whether a key that matches the pattern is the mapping's own. Runs on the engine's thread.
    pub matches: Matcher,
}

/// Why an engine could not be started, or did not end as it should.
#[derive(Debug)]
pub enum EngineError {
    /// There must be at least one lane.
    NoLanes,
    /// The settings make no client.
    Settings(Cause),
    /// The operating system gave no thread or no event queue.
    Thread(io::Error),
    /// The engine's thread panicked.
    Panicked,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLanes => f.write_str("an engine needs at least one lane"),
            Self::Settings(cause) => write!(f, "the settings make no Redis client: {cause}"),
            Self::Thread(error) => write!(f, "the thread for Redis could not be started: {error}"),
            Self::Panicked => f.write_str("the thread for Redis has panicked"),
        }
    }
}

impl std::error::Error for EngineError {}

/// The asynchronous half of the worker.
pub struct Engine;

impl Engine {
    /// Starts an engine on a thread of its own, which begins to connect at once.
    ///
    /// Block all signals around the call where the process handles some: the engine's threads inherit
    /// the mask. `waker` is called on the engine's thread when there are events to read.
    ///
    /// # Errors
    ///
    /// No lanes, or no thread. That Redis cannot be reached is not an error but an event.
    pub fn start(setup: Setup, settings: Settings, waker: Waker) -> Result<EngineHandle, EngineError> {
        if setup.lanes == 0 {
            return Err(EngineError::NoLanes);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .build()
            .map_err(EngineError::Thread)?;
        let (requests, received) = mpsc::unbounded_channel();
        let (events, reader) = event::channel(waker);
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("redis".to_owned())
            .spawn(move || {
                let shared = match Shared::new(setup, settings, events) {
                    Ok(shared) => Rc::new(shared),
                    Err(cause) => {
                        let _ = ready.send(Err(cause));
                        return;
                    }
                };
                let _ = ready.send(Ok(()));
                run(runtime, shared, received);
            })
            .map_err(EngineError::Thread)?;
        match started.recv() {
            Ok(Ok(())) => Ok(EngineHandle {
                requests,
                reader,
                thread,
            }),
            Ok(Err(cause)) => Err(EngineError::Settings(cause)),
            Err(_) => Err(EngineError::Panicked),
        }
    }
}

/// The main thread's end of an engine. Dropping it stops the engine at once, without waiting for it.
#[derive(Debug)]
pub struct EngineHandle {
    requests: UnboundedSender<Request>,
    reader: EventReader,
    thread: JoinHandle<()>,
}

impl EngineHandle {
    /// Hands a request over; never waits. After [`Event::Stopped`] it goes nowhere.
    pub fn send(&self, request: Request) {
        let _ = self.requests.send(request);
    }

    /// The next event, if there is one. Read until there is none: only then is the next one announced
    /// by the waker.
    pub fn try_recv(&self) -> Option<Event> {
        self.reader.try_recv()
    }

    /// Whether the engine's thread has ended, by a shutdown or a panic. A panic too is reported, by
    /// [`Event::Stopped`]; [`Self::join`] tells which it was.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the engine's thread has ended. Ask for a [`Request::Shutdown`] first and read the
    /// events up to [`Event::Stopped`]: what is unread is lost, and without the request this stops the
    /// engine at once.
    ///
    /// # Errors
    ///
    /// The thread panicked.
    pub fn join(self) -> Result<(), EngineError> {
        drop(self.requests);
        self.thread.join().map_err(|_| EngineError::Panicked)
    }
}

fn run(runtime: Runtime, shared: Rc<Shared>, requests: UnboundedReceiver<Request>) {
    let tasks = LocalSet::new();
    let mut workers = JoinSet::new();
    let queues: Vec<Rc<Queue>> = (0..shared.setup.lanes).map(|_| Rc::default()).collect();
    for (number, queue) in queues.iter().enumerate() {
        workers.spawn_local_on(Lane::new(shared.clone(), queue.clone(), number).run(), &tasks);
    }
    let (errands, received) = mpsc::unbounded_channel();
    workers.spawn_local_on(Control::new(shared.clone(), received).run(), &tasks);
    workers.spawn_local_on(gauge::report(shared.clone()), &tasks);
    workers.spawn_local_on(sentinel::watch(shared.clone()), &tasks);
    let router = Router {
        shared: shared.clone(),
        queues,
        errands,
        requests,
    };
    let outcome = runtime.block_on(tasks.run_until(async {
        tokio::select! {
            drained = router.run() => Ok(drained),
            // Lanes, control, report and watch run for ever: one that ends has panicked, and its keys would wait for ever.
            Some(Err(panic)) = workers.join_next() => Err(panic),
        }
    }));
    drop((workers, tasks));
    // A look-up of a name cannot be cancelled: its thread is left behind.
    runtime.shutdown_background();
    shared.events.emit(Event::Stopped {
        drained: *outcome.as_ref().unwrap_or(&false),
    });
    if let Err(panic) = outcome
        && let Ok(panic) = panic.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Takes requests and hands them on.
struct Router {
    shared: Rc<Shared>,
    queues: Vec<Rc<Queue>>,
    errands: UnboundedSender<Errand>,
    requests: UnboundedReceiver<Request>,
}

impl Router {
    /// Runs until a shutdown is over; returns whether all was acknowledged.
    async fn run(mut self) -> bool {
        while let Some(request) = self.requests.recv().await {
            match request {
                Request::Write(chunk) => self.write(chunk),
                Request::Purge(job) => self.send_errand(Errand::Purge(job)),
                Request::Ping { ticket } => self.send_errand(Errand::Ping(ticket)),
                Request::Note(note) => self.send_errand(Errand::Note(note)),
                Request::Reconfigure(settings) => self.shared.reconfigure(settings),
                Request::Tune(tuning) => self.shared.tune(tuning),
                Request::Shutdown { within } => return self.drain(Instant::now() + within).await,
            }
        }
        self.shared.ledger.is_empty()
    }

    /// Splits a chunk among the lanes.
    fn write(&self, chunk: Chunk) {
        let lanes = self.queues.len();
        let pending = self.shared.ledger.enter(chunk);
        let ops = pending.chunk.ops();
        if ops.is_empty() {
            self.shared.ledger.acknowledge(&self.shared.events);
            return;
        }
        let mut shares: Vec<Vec<u32>> = vec![Vec::new(); lanes];
        for (index, op) in ops.iter().enumerate() {
            shares[lane_of(op.hash, lanes)].push(index as u32);
        }
        for (queue, share) in self.queues.iter().zip(shares) {
            if !share.is_empty() {
                queue.push(&pending, share);
            }
        }
    }

    fn send_errand(&self, errand: Errand) {
        // The control runs as long as the router does.
        let _ = self.errands.send(errand);
    }

    async fn drain(&mut self, deadline: Instant) -> bool {
        let mut deadline = pin!(tokio::time::sleep_until(deadline));
        loop {
            if self.shared.ledger.is_empty() {
                return true;
            }
            let (mut stuck, mut others) = (self.queues.iter(), self.queues.iter());
            if stuck.any(|queue| queue.is_stuck()) && !others.any(|queue| queue.goes_on()) {
                return false;
            }
            tokio::select! {
                () = &mut deadline => return false,
                () = tokio::time::sleep(DRAIN_CHECK) => {}
            }
        }
    }
}

/// The lane of a key: by the upper half of its hash, as the lower one picks its slot.
fn lane_of(hash: u64, lanes: usize) -> usize {
    (hash >> 32) as usize % lanes
}
