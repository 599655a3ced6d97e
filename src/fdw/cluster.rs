//! A Redis Cluster: its nodes' connections, its slots, and lines that lead to all of them.
//!
//! A command goes to the master of its key's slot. Where that says that the slot is another's (MOVED, ASK) the command
//! is sent there, and the slots are asked for anew; while the cluster sorts itself out (TRYAGAIN, CLUSTERDOWN) it is
//! tried again until `pg_redis_cache.command_timeout` is over. What is done to one key is done in the order in which
//! it was sent: all commands of a slot are redirected from the first on.
//!
//! A cursor of HSCAN, SSCAN or ZSCAN is one node's own: if the key's slot moves in the middle, it is an ERROR.
//! A SCAN of all masters misses keys that move meanwhile from one that is still to come to one that is through. So the
//! slots are looked at before and after it: if they have moved, or are on their way, it is an ERROR.
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    fdw::{
        Commands, Reply,
        cluster::{self, Merge, Part, To},
    },
    redis::{
        Address,
        slots::{Node, Redirection, Slots},
    },
};
use pgrx::PgSqlErrorCode;

use super::{
    connection::{Credentials, Figures, Shared, Wire},
    error,
};
use crate::{gucs, socket::pause, sql::raise};

/// How long to wait before a cluster that cannot tell is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What is known of a cluster.
pub struct Cluster {
    /// The addresses that the server's options name.
    seeds: Vec<Address>,
    credentials: Credentials,
    slots: Slots,
    nodes: Vec<(Node, Shared)>,
}

impl Cluster {
    /// The cluster that a server belongs to, if it does. One that does not let its slots be asked for is taken for none,
    /// unless it must be one: then it raises.
    pub fn of(
        connection: &Shared,
        seeds: Vec<Address>,
        credentials: &Credentials,
        required: bool,
    ) -> Option<Self> {
        let mut wire = connection.wire();
        let reply = question(&mut wire, &[b"CLUSTER", b"SLOTS"]);
        if let Reply::Error(text) = &reply
            && (!required || text.contains("cluster support disabled"))
        {
            return None;
        }
        let slots = read_slots(reply, &wire);
        Some(Self {
            seeds,
            credentials: credentials.clone(),
            slots,
            nodes: Vec::new(),
        })
    }

    /// Lets go of the connections of which `usable` is not true.
    pub fn keep(&mut self, usable: impl Fn(&Shared) -> bool) {
        self.nodes.retain(|(_, connection)| usable(connection));
    }

    /// The master of a slot, or raises.
    fn master(&mut self, slot: u16) -> Node {
        if let Some(node) = self.slots.master(slot) {
            return node.clone();
        }
        self.learn();
        match self.slots.master(slot) {
            Some(node) => node.clone(),
            None => error::refused("CLUSTERDOWN Hash slot not served"),
        }
    }

    /// The connection to a node, or raises. One that cannot be reached may have lost its slots to another: they are
    /// asked for, for the next time.
    fn connection(&mut self, node: &Node) -> Shared {
        if let Some(place) = self.nodes.iter().position(|(known, _)| known == node) {
            if self.nodes[place].1.is_usable() {
                return self.nodes[place].1.clone();
            }
            self.nodes.remove(place);
        }
        let address = self.address_of(node);
        match Shared::connect(&address, &self.credentials) {
            Ok(connection) => {
                self.nodes.push((node.clone(), connection.clone()));
                connection
            }
            Err(problem) => {
                self.learn();
                error::unreachable_server(&address.masked(), &problem)
            }
        }
    }

    fn address_of(&self, node: &Node) -> Address {
        // There is a seed: the server's options have named one.
        self.seeds[0].clone().at(node.host.clone(), node.port)
    }

    /// Asks for the slots: any node that can be reached, or raises.
    fn learn(&mut self) {
        let mut connections = self.nodes.iter().map(|(_, connection)| connection);
        let connection = match connections.find(|connection| connection.is_usable()) {
            Some(connection) => connection.clone(),
            None => {
                let known = self.slots.masters().iter().map(|node| self.address_of(node));
                let mut addresses: Vec<Address> = known.collect();
                addresses.extend(self.seeds.iter().cloned());
                Shared::open(&addresses, &self.credentials)
            }
        };
        let mut wire = connection.wire();
        let reply = question(&mut wire, &[b"CLUSTER", b"SLOTS"]);
        self.slots = read_slots(reply, &wire);
    }

    /// Raises unless all masters say that the slots are where they were, and none is on its way. One that was handed over
    /// in one step (Valkey's CLUSTER MIGRATESLOTS) is on its way at no time, and the node asked first may not know yet.
    fn check_still(&mut self, before: &Slots) {
        self.learn();
        let mut still = self.slots == *before;
        for node in self.slots.masters().to_vec() {
            let mut wire = self.connection(&node).wire();
            match question(&mut wire, &[b"CLUSTER", b"NODES"]) {
                Reply::Bulk(nodes) => still &= !cluster::is_resharding(&nodes),
                Reply::Error(text) => error::refused(&text),
                _ => error::garbled(&wire.address()),
            }
            let reply = question(&mut wire, &[b"CLUSTER", b"SLOTS"]);
            still &= read_slots(reply, &wire) == *before;
        }
        if !still {
            moved();
        }
    }
}

/// Slots have moved under a scan.
fn moved() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "the cluster's slots have moved while they were scanned",
        "What moves meanwhile can be missed.",
        "Try again when the cluster has been resharded.",
    )
}

fn question(wire: &mut Wire, words: &[&[u8]]) -> Reply {
    let mut commands = Commands::default();
    commands.push(words);
    wire.send(&commands);
    wire.receive()
}

/// The answer to CLUSTER SLOTS, or raises.
fn read_slots(reply: Reply, wire: &Wire) -> Slots {
    if let Reply::Error(text) = &reply {
        error::refused(text);
    }
    cluster::read_slots(reply, &wire.host()).unwrap_or_else(|_| error::garbled(&wire.address()))
}

/// A command that has been sent.
struct Asked {
    parts: Vec<(Node, Part)>,
    merge: Merge,
}

/// A line to all nodes.
pub struct ClusterLine {
    cluster: Rc<RefCell<Cluster>>,
    wires: Vec<(Node, Wire)>,
    asked: VecDeque<Asked>,
    /// The slots at the beginning of a SCAN.
    scanned: Slots,
    /// Where the keys of a slot are stepped through.
    stepped: HashMap<u16, Node>,
    round_trips: u64,
    /// What wires have done that are gone.
    spent: Figures,
}

impl ClusterLine {
    /// One to this cluster.
    pub fn new(cluster: Rc<RefCell<Cluster>>) -> Self {
        Self {
            cluster,
            wires: Vec::new(),
            asked: VecDeque::new(),
            scanned: Slots::default(),
            stepped: HashMap::new(),
            round_trips: 0,
            spent: Figures::default(),
        }
    }

    /// As [`super::line::Line::send`].
    pub fn send(&mut self, commands: &Commands) {
        if commands.count == 0 {
            return;
        }
        let mut gathered: Vec<(Node, Commands)> = Vec::new();
        for routed in cluster::route(commands) {
            let mut parts = Vec::with_capacity(routed.parts.len());
            for (node, part) in routed.parts.into_iter().flat_map(|part| self.nodes(part)) {
                match gathered.iter_mut().find(|(other, _)| *other == node) {
                    Some((_, commands)) => commands.append(&part.command),
                    None => {
                        let mut commands = Commands::default();
                        commands.append(&part.command);
                        gathered.push((node.clone(), commands));
                    }
                }
                parts.push((node, part));
            }
            let merge = routed.merge;
            self.asked.push_back(Asked { parts, merge });
        }
        self.round_trips += 1;
        for (node, commands) in gathered {
            self.wire(&node).send(&commands);
        }
    }

    /// As [`super::line::Line::send_as_one`].
    pub fn send_as_one(&mut self, commands: &Commands) {
        let node = match cluster::slots_of(commands)[..] {
            [] => self.node(To::Any),
            [slot] => self.cluster.borrow_mut().master(slot),
            _ => raise(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "a transaction can change keys of one hash slot only, through tables with transactional 'on'",
                "The server is a Redis Cluster.",
                "Keys with the same text in braces, as user:{42}:name, have the same slot.",
            ),
        };
        for routed in cluster::route(commands) {
            let parts = routed.parts.into_iter().map(|part| (node.clone(), part));
            self.asked.push_back(Asked {
                parts: parts.collect(),
                merge: Merge::Sent,
            });
        }
        self.round_trips += 1;
        self.wire(&node).send(commands);
    }

    /// As [`super::line::Line::receive`].
    pub fn receive(&mut self) -> Reply {
        let Some(Asked { parts, merge }) = self.asked.pop_front() else {
            error::garbled(&self.address());
        };
        if merge == Merge::Sent {
            return parts
                .first()
                .map_or(Reply::Nil, |(node, _)| self.wire(node).receive());
        }
        let replies = parts
            .into_iter()
            .map(|(node, part)| self.answer_of(node, &part))
            .collect();
        let reply = merge.apply(replies, self.scanned.masters().len());
        if merge.ends_scan(&reply) {
            let before = self.scanned.clone();
            self.cluster.borrow_mut().check_still(&before);
        }
        reply
    }

    /// The answer to a part, wherever that is sent on to.
    fn answer_of(&mut self, mut node: Node, part: &Part) -> Reply {
        let mut reply = self.wire(&node).receive();
        let deadline = Instant::now() + gucs::command_timeout();
        while let (To::Slot(slot), Reply::Error(text)) = (part.to, &reply) {
            let Some(redirection) = Redirection::of(text, &node.host) else {
                break;
            };
            if Instant::now() > deadline {
                break;
            }
            let asking = matches!(redirection, Redirection::Ask(_));
            if part.step == Some(false) && redirection != Redirection::Later {
                moved();
            }
            node = match redirection {
                Redirection::Ask(node) => node,
                Redirection::Moved(node) => {
                    let mut cluster = self.cluster.borrow_mut();
                    if cluster.slots.master(slot) != Some(&node) {
                        cluster.learn();
                    }
                    node
                }
                Redirection::Later => {
                    pause(PAUSE);
                    let mut cluster = self.cluster.borrow_mut();
                    cluster.learn();
                    cluster.master(slot)
                }
            };
            if part.step.is_some() {
                self.stepped.insert(slot, node.clone());
            }
            reply = self.send_again(&node, part, asking);
        }
        reply
    }

    /// Sends a part by itself: its answer is not behind those that are still to come.
    fn send_again(&mut self, node: &Node, part: &Part, asking: bool) -> Reply {
        let mut wire = self.cluster.borrow_mut().connection(node).wire();
        let mut commands = Commands::default();
        if asking {
            commands.push(&[b"ASKING"]);
        }
        commands.append(&part.command);
        wire.send(&commands);
        if asking {
            wire.receive();
        }
        let reply = wire.receive();
        self.spent.add(wire.figures);
        self.round_trips += 1;
        reply
    }

    /// The nodes that a part goes to.
    fn nodes(&mut self, part: Part) -> Vec<(Node, Part)> {
        if part.to != To::Every {
            let node = self.node(part.to);
            if let (To::Slot(slot), Some(_)) = (part.to, part.step)
                && *self.stepped.entry(slot).or_insert_with(|| node.clone()) != node
            {
                moved();
            }
            return vec![(node, part)];
        }
        let masters = self.cluster.borrow().slots.masters().to_vec();
        masters.into_iter().map(|node| (node, part.clone())).collect()
    }

    fn node(&mut self, to: To) -> Node {
        let mut cluster = self.cluster.borrow_mut();
        match to {
            To::Slot(slot) => cluster.master(slot),
            To::Any | To::Every => cluster.master(0),
            To::Scanned { master, begins } => {
                if begins {
                    cluster.learn();
                    self.scanned = cluster.slots.clone();
                }
                match self.scanned.masters().get(master) {
                    Some(node) => node.clone(),
                    None => cluster.master(0),
                }
            }
        }
    }

    fn wire(&mut self, node: &Node) -> &mut Wire {
        let place = match self.wires.iter().position(|(known, _)| known == node) {
            Some(place) => place,
            None => {
                let wire = self.cluster.borrow_mut().connection(node).wire();
                self.wires.push((node.clone(), wire));
                self.wires.len() - 1
            }
        };
        &mut self.wires[place].1
    }

    /// What it has done. Commands that go out together to several nodes are one round trip.
    pub fn figures(&self) -> Figures {
        let mut figures = self.spent;
        self.wires.iter().for_each(|(_, wire)| figures.add(wire.figures));
        figures.round_trips = self.round_trips;
        figures
    }

    /// A node's, without a password.
    pub fn address(&self) -> String {
        match self.wires.first() {
            Some((_, wire)) => wire.address(),
            None => self.cluster.borrow().seeds[0].masked(),
        }
    }
}
