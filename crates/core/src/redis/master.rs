//! A master: a server that each lane, and the control, has a connection to.
//!
//! Without a cluster there is one. In a cluster there is one for each node that has slots, or has some on their way to
//! it; see `routes`. One that leaves the list and comes back, at another place or under other settings is a new one,
//! which is met again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::address::Place;
use super::engine::Settings;
use super::event::Server;
use super::fault::Cause;
use super::line::Topology;
use super::pool::{Pool, pool};
use super::slots::Node;

/// See the module.
pub(super) struct Master {
    /// Which node of the cluster it is.
    pub seat: Option<Seat>,
    /// The settings with its own address.
    pub settings: Settings,
    /// None to a service whose master is not known yet.
    pool: Option<Pool>,
    /// Who answered there when it was met last.
    server: RefCell<Option<Arc<Server>>>,
    /// The process (its `run_id`) on which the clients of earlier engines were killed last.
    swept: RefCell<Option<String>>,
    /// Held by whoever meets it: the first line to it sweeps and takes the marker, the others then know it.
    pub meeting: Mutex<()>,
    /// Lines that are open, of the lanes and the control.
    pub open: Cell<usize>,
    /// Tells of each line to it that is opened.
    pub opened: watch::Sender<()>,
}

/// A node's place in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// What the cluster knows it by, for good.
    pub id: String,
    pub node: Node,
}

impl Master {
    /// A server that is none of a cluster.
    pub fn alone(settings: &Settings, size: usize) -> Result<Self, Cause> {
        Self::new(None, settings.clone(), size)
    }

    /// A node of the cluster that the settings mean.
    pub fn of_cluster(seat: Seat, settings: &Settings, size: usize) -> Result<Self, Cause> {
        let mut settings = settings.clone();
        settings.address = settings.address.at(seat.node.host.clone(), seat.node.port);
        Self::new(Some(seat), settings, size)
    }

    fn new(seat: Option<Seat>, settings: Settings, size: usize) -> Result<Self, Cause> {
        Ok(Self {
            seat,
            pool: match settings.address.place() {
                Place::Service(_) => None,
                place => Some(pool(&settings, place, size)?),
            },
            settings,
            server: RefCell::new(None),
            swept: RefCell::new(None),
            meeting: Mutex::new(()),
            open: Cell::new(0),
            opened: watch::Sender::new(()),
        })
    }

    /// Where its connections come from.
    ///
    /// # Errors
    ///
    /// Nobody has said yet where it is.
    pub fn pool(&self) -> Result<&Pool, Cause> {
        self.pool.as_ref().ok_or(Cause::UnknownService)
    }

    /// What its cluster knows it by.
    pub fn id(&self) -> Option<&str> {
        self.seat.as_ref().map(|seat| seat.id.as_str())
    }

    /// Where it is, with the password masked.
    pub fn address(&self) -> String {
        self.settings.address.masked()
    }

    /// What a line to it has to find there.
    pub fn topology(&self) -> Topology {
        match self.seat {
            Some(_) => Topology::Cluster,
            None => Topology::Alone,
        }
    }

    /// The clients of earlier engines on this process are killed, or are known not to be to be told.
    pub fn was_swept(&self, run_id: &str) {
        self.swept.replace(Some(run_id.to_owned()));
    }

    /// Whether they were on this process, also if it could not be met after that.
    pub fn is_swept(&self, run_id: &str) -> bool {
        self.swept.borrow().as_deref() == Some(run_id)
    }

    /// It has been met: its earlier clients and the marker are gone.
    pub fn became(&self, server: Arc<Server>) {
        self.server.replace(Some(server));
    }

    /// Who was met there last.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.server.borrow().clone()
    }

    /// Whether this very server was met there, with this data set.
    pub fn has_met(&self, server: &Server) -> bool {
        self.server.borrow().as_ref().is_some_and(|known| {
            known.run_id == server.run_id && known.replication_id == server.replication_id
        })
    }

    /// Whether this very process was met there.
    pub fn is_process(&self, server: &Server) -> bool {
        self.server
            .borrow()
            .as_ref()
            .is_some_and(|known| known.run_id == server.run_id)
    }
}
