//! A Redis Cluster of three masters with a replica each, every node behind a proxy.

use std::thread::scope;

use pg_redis_cache_tests::{Dice, Load, Proxy, Redis, RedisCluster, Shape, Trial, World, eventually};
use postgres::error::SqlState;

use crate::deployment::{Deployment, Fault, failover, fault};
use crate::lines::{self, Proxied};
use crate::raised::Raised;
use crate::run::{CONNECTIONS, SOON};
use crate::server_faults::pause;
use crate::{postgres_faults, server_faults};

mod away;
mod refusing;

/// How many slots move at a time, of 16,384.
const SLOTS: usize = 300;

/// Enough keys for some of them to be in the slots that move.
const KEYS: i32 = 200;

pub struct Cluster {
    world: World,
    nodes: RedisCluster,
}

impl Cluster {
    pub fn begin() -> Cluster {
        let nodes = RedisCluster::start_proxied(3, true);
        let world = Trial::world_of(shape(), |world| world.url(&nodes.url()));
        Cluster { world, nodes }
    }

    /// Two masters.
    fn pair(&self, dice: &mut Dice) -> (usize, usize) {
        let mut masters = self.nodes.master_numbers();
        let from = masters.swap_remove(dice.below(masters.len() as u64) as usize);
        let to = masters.swap_remove(dice.below(masters.len() as u64) as usize);
        (from, to)
    }

    /// The masters but for this one. To be asked while all answer.
    fn others(&self, master: usize) -> Vec<usize> {
        let mut masters = self.nodes.master_numbers();
        masters.retain(|number| *number != master);
        masters
    }

    /// Writes to all rows, and waits until what these masters have of them is as new, but for the rows `left_out`.
    fn are_fresh(&self, masters: &[usize], left_out: &[i32]) -> Raised {
        let raised = Raised::of(&self.world);
        let mut connections = self.connections(masters);
        eventually("the keys of the others to be fresh", SOON, || {
            raised.are_shown(&mut connections, left_out).then_some(())
        });
        raised
    }

    fn connections(&self, numbers: &[usize]) -> Vec<redis::Connection> {
        numbers
            .iter()
            .map(|number| self.nodes.nodes[*number].connection())
            .collect()
    }

    /// Does something to a master, or to its replica, and waits until that is the master.
    fn replace(&mut self, dice: &mut Dice, what: impl FnOnce(&mut RedisCluster, usize, usize)) {
        let (master, _) = self.pair(dice);
        let replica = self.nodes.replica_of(master);
        what(&mut self.nodes, master, replica);
        eventually("a replica to take over", SOON, || {
            let role = self.nodes.nodes[replica].cli(&["ROLE"]);
            role.contains("\"master\"").then_some(())
        });
    }
}

fn shape() -> Shape {
    Shape {
        keys: KEYS,
        ..Trial::shape()
    }
}

impl Deployment for Cluster {
    fn faults() -> [Vec<Fault<Cluster>>; 2] {
        let own = [
            failover("failover asked for (CLUSTER FAILOVER)", asked_for),
            failover("master killed, replaced, back as a replica", master_killed),
            failover("master frozen, replaced, awake again", master_frozen),
            fault("replica killed, back within a second", replica_killed),
            fault("300 slots moved, and as many back", slots_moved),
            fault(
                "network keeps what it was given while 300 slots move, and as many back",
                late_while_slots_moved,
            ),
            fault(
                "purged while 300 slots moved, and as many back",
                purged_while_slots_moved,
            ),
        ];
        let mut own = Vec::from(own);
        own.extend(away::faults());
        own.extend(refusing::faults());
        let mut shared = server_faults::faults();
        shared.extend(lines::faults());
        shared.extend(postgres_faults::faults());
        [own, shared]
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    fn shape(&self) -> Shape {
        shape()
    }

    fn servers(&self) -> Vec<&Redis> {
        self.nodes.nodes.iter().collect()
    }

    fn masters(&self) -> Vec<&Redis> {
        let numbers = self.nodes.master_numbers();
        numbers
            .into_iter()
            .map(|number| &self.nodes.nodes[number])
            .collect()
    }

    fn restore(&mut self) {
        for node in &mut self.nodes.nodes {
            if !node.is_running() {
                node.start_again();
            }
            node.thaw();
        }
        self.nodes.await_agreement();
    }

    fn assert_rows(&self) {
        Load::assert_all_rows_in(&self.world, &self.nodes);
    }
}

impl Proxied for Cluster {
    fn line(&self, dice: &mut Dice) -> &Proxy {
        let (master, _) = self.pair(dice);
        self.nodes.line(master)
    }
}

fn asked_for(here: &mut Cluster, dice: &mut Dice) {
    here.replace(dice, |nodes, _, replica| {
        assert_eq!(nodes.nodes[replica].cli(&["CLUSTER", "FAILOVER"]), "OK");
    });
}

fn master_killed(here: &mut Cluster, dice: &mut Dice) {
    here.replace(dice, |nodes, master, _| nodes.nodes[master].kill());
}

fn master_frozen(here: &mut Cluster, dice: &mut Dice) {
    here.replace(dice, |nodes, master, _| nodes.nodes[master].freeze());
}

fn replica_killed(here: &mut Cluster, dice: &mut Dice) {
    let (master, _) = here.pair(dice);
    let replica = here.nodes.replica_of(master);
    let replica = &mut here.nodes.nodes[replica];
    replica.kill();
    pause(dice, 1000);
    replica.start_again();
}

/// Moves slots of one master to another, and as many of that one's back.
fn there_and_back(nodes: &RedisCluster, (one, other): (usize, usize)) {
    nodes.reshard(one, other, SLOTS);
    nodes.await_agreement();
    nodes.reshard(other, one, SLOTS);
}

fn slots_moved(here: &mut Cluster, dice: &mut Dice) {
    there_and_back(&here.nodes, here.pair(dice));
}

/// Has the network keep what a master is sent, until there is something.
fn hold(nodes: &RedisCluster, master: usize) -> &Proxy {
    let node = &nodes.nodes[master];
    // A node that has moved keys there keeps the connection for ten seconds, and would wait for an answer.
    node.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("the worker's connections", SOON, || {
        let clients = node.cli(&["CLIENT", "LIST"]);
        (clients.matches("name=pg_redis_cache").count() >= CONNECTIONS).then_some(())
    });
    let line = nodes.line(master);
    line.hold();
    // Nor is its replica's to wait: Valkey moves no slot of a master whose replica has not heard of it.
    node.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    nodes.await_ok();
    eventually("a command that is kept", SOON, || {
        line.keeps_something().then_some(())
    });
    line
}

/// What a master was sent, and has not got, waits while its slots go, are written to elsewhere, and come back.
fn late_while_slots_moved(here: &mut Cluster, dice: &mut Dice) {
    let (one, other) = here.pair(dice);
    let line = hold(&here.nodes, one);
    there_and_back(&here.nodes, (one, other));
    line.release();
}

fn purged_while_slots_moved(here: &mut Cluster, dice: &mut Dice) {
    scope(|threads| {
        let here = &*here;
        let moving = threads.spawn(|| there_and_back(&here.nodes, here.pair(dice)));
        let mut client = here.world.connect();
        while !moving.is_finished() {
            let purged = client.batch_execute("SELECT redis_cache.invalidate_all('doc')");
            // On a machine that has much else to do it may take longer than the function waits.
            let is_late = |e: &postgres::Error| e.code() == Some(&SqlState::CONNECTION_FAILURE);
            assert!(purged.as_ref().err().is_none_or(is_late), "{purged:?}");
        }
    });
}
