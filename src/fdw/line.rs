//! A statement's line to Redis: to one server, or to a cluster.
use std::{cell::RefCell, rc::Rc};

use pg_redis_cache_core::{
    fdw::{Commands, Reply},
    redis::Address,
};

use super::{
    cluster::{Cluster, ClusterLine},
    connection::{Credentials, Figures, Shared, Wire},
    error,
};

/// Where a server's commands go, kept for the next statement.
#[derive(Clone)]
pub enum Route {
    One(Shared),
    Cluster(Rc<RefCell<Cluster>>),
}

impl Route {
    /// Connects to the first of the addresses that can be reached, and asks it for its cluster unless it is said to have
    /// none; raises if none can be reached.
    pub fn open(addresses: Vec<Address>, credentials: &Credentials, clustered: Option<bool>) -> Self {
        // Behind sentinels there is one master.
        let is_service = addresses.iter().any(|address| address.service().is_some());
        let clustered = if is_service { Some(false) } else { clustered };
        let connection = Shared::open(&addresses, credentials);
        if clustered != Some(false)
            && let Some(cluster) = Cluster::of(&connection, addresses, credentials, clustered == Some(true))
        {
            return Self::Cluster(Rc::new(RefCell::new(cluster)));
        }
        Self::One(connection)
    }

    /// A line for one statement.
    pub fn line(&self) -> Line {
        match self {
            Self::One(connection) => Line::One(connection.wire()),
            Self::Cluster(cluster) => Line::Cluster(Box::new(ClusterLine::new(Rc::clone(cluster)))),
        }
    }

    /// Whether the next statement can use it. A cluster is: of its connections those that are not are let go.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::One(connection) => connection.is_usable(),
            Self::Cluster(cluster) => {
                cluster.borrow_mut().keep(Shared::is_usable);
                true
            }
        }
    }

    /// Whether it leads where its address says: to a service's master, as long as that is it. May wait for sentinels.
    pub fn leads_to_master(&self) -> bool {
        match self {
            Self::One(connection) => connection.is_master_still(),
            Self::Cluster(_) => true,
        }
    }

    /// Lets go of connections on which something is on its way. Returns whether the route can still be used.
    pub fn drop_busy(&self) -> bool {
        match self {
            Self::One(connection) => !connection.is_busy(),
            Self::Cluster(cluster) => match cluster.try_borrow_mut() {
                Ok(mut cluster) => {
                    cluster.keep(|connection| !connection.is_busy());
                    true
                }
                Err(_) => false,
            },
        }
    }
}

/// See the module.
pub enum Line {
    One(Wire),
    Cluster(Box<ClusterLine>),
}

impl Line {
    /// Sends commands; each will have one answer.
    pub fn send(&mut self, commands: &Commands) {
        match self {
            Self::One(wire) => wire.send(commands),
            Self::Cluster(cluster) => cluster.send(commands),
        }
    }

    /// Sends a transaction, MULTI to EXEC. Raises before anything is sent if no one server can carry all of it out.
    pub fn send_as_one(&mut self, commands: &Commands) {
        match self {
            Self::One(wire) => wire.send(commands),
            Self::Cluster(cluster) => cluster.send_as_one(commands),
        }
    }

    /// The next answer to what this line has sent.
    pub fn receive(&mut self) -> Reply {
        match self {
            Self::One(wire) => wire.receive(),
            Self::Cluster(cluster) => cluster.receive(),
        }
    }

    /// The same. While only a part of it has come, `foresee` may be shown that part and append commands, which are sent at
    /// once; not of a cluster, whose next command may be for another node.
    pub fn receive_foreseeing(&mut self, foresee: impl FnMut(&[Reply], &mut Commands)) -> Reply {
        match self {
            Self::One(wire) => wire.receive_foreseeing(foresee),
            Self::Cluster(cluster) => cluster.receive(),
        }
    }

    /// The next answer, as [`Self::receive`]; raises if Redis has refused the command.
    pub fn answer(&mut self) -> Reply {
        let reply = self.receive();
        match reply.error() {
            Some(text) => error::refused(text),
            None => reply,
        }
    }

    /// Sends one command and returns its answer, as [`Self::answer`].
    pub fn ask(&mut self, words: &[&[u8]]) -> Reply {
        let mut commands = Commands::default();
        commands.push(words);
        self.send(&commands);
        self.answer()
    }

    /// What it has done.
    pub fn figures(&self) -> Figures {
        match self {
            Self::One(wire) => wire.figures,
            Self::Cluster(cluster) => cluster.figures(),
        }
    }

    /// Where it leads to, without a password; of a cluster, one of its nodes.
    pub fn address(&self) -> String {
        match self {
            Self::One(wire) => wire.address(),
            Self::Cluster(cluster) => cluster.address(),
        }
    }
}
