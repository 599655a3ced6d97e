//! A master that is away while slots of its own find another master, and is told when it is back.
//!
//! Given away without asking it, slots leave their keys behind: their new master has none, and the old one shows what it
//! has until it hears of somebody with a higher epoch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Dice, STEADY, eventually};

use super::{Cluster, KEYS, hold};
use crate::deployment::{Fault, failover, fault, outdating};
use crate::run::SOON;
use crate::server_faults::pause;

/// How many slots, with keys in them, find another master.
const SOME: usize = 12;

/// Of how many of them a key is to be among what the network keeps.
const KEPT: usize = 4;

pub fn faults() -> Vec<Fault<Cluster>> {
    vec![
        failover(
            "master frozen, replaced by command, its slots go on, awake again",
            replaced,
        ),
        outdating(
            "master frozen, slots of its own given away, awake again",
            given_away,
        ),
        outdating(
            "master frozen, slots of its own given away, claimed by it when awake again",
            claimed_back,
        ),
        fault(
            "line to a master cut while slots of its own move, and back; what it was given comes late",
            line_cut,
        ),
    ]
}

impl Cluster {
    fn set_everywhere(&self, name: &str, value: &str) {
        for node in &self.nodes.nodes {
            assert_eq!(node.cli(&["CONFIG", "SET", name, value]), "OK");
        }
    }

    /// Some of the rows whose keys a master has, each in another slot, and these slots. Few are written to all the time:
    /// those may be on their way whenever the master goes away.
    fn rows_of(&self, master: usize) -> (Vec<i32>, Vec<u16>) {
        let ids: Vec<i32> = (STEADY / 2..=KEYS).collect();
        let keys: Vec<String> = ids.iter().map(|id| format!("doc:{id}")).collect();
        let found = self.nodes.slots_of(master, &keys, SOME);
        found.into_iter().map(|(place, slot)| (ids[place], slot)).unzip()
    }

    /// Writes to these rows again and again.
    fn write_until(&self, is_over: &AtomicBool, ids: &[i32]) {
        let mut client = self.world.connect();
        let end = Instant::now() + 2 * SOON;
        while !is_over.load(Ordering::Acquire) && Instant::now() < end {
            let sql = "UPDATE doc SET version = version + 1 WHERE id = ANY($1)";
            // It may end in a deadlock with those of the load.
            let _ = client.execute(sql, &[&ids]);
        }
    }

    /// Waits until what these masters had is fresh, and some of what one of them has been given.
    fn write_on(&self, others: &[usize], to: usize, given: &[i32]) {
        let raised = self.are_fresh(others, given);
        let mut to = self.nodes.nodes[to].connection();
        // Not all of it: what the worker has no answer to waits for the master that is away (rule 5).
        eventually("some of what was given away to be fresh", SOON, || {
            raised.is_any_shown(&mut to, given).then_some(())
        });
    }
}

/// The replica takes over, and hands slots on, before the master that it was knows of anything.
fn replaced(here: &mut Cluster, dice: &mut Dice) {
    let (from, to) = here.pair(dice);
    let others = here.others(from);
    let nodes = &here.nodes;
    let replica = nodes.replica_of(from);
    let (ids, _) = here.rows_of(from);
    nodes.nodes[from].freeze();
    nodes.take_over(replica, &others);
    for id in &ids {
        nodes.move_slot_of(&format!("doc:{id}"), replica, to);
    }
    pause(dice, 1000);
    nodes.nodes[from].thaw();
    // It follows whoever has got the last of its slots, by what it hears first.
    nodes.follow(from, replica);
}

fn given_away(here: &mut Cluster, dice: &mut Dice) {
    give_away(here, dice, Heir::Keeps);
}

fn claimed_back(here: &mut Cluster, dice: &mut Dice) {
    give_away(here, dice, Heir::Returns);
}

/// Whether the one that slots are given to has the higher epoch.
#[derive(Clone, Copy, PartialEq)]
enum Heir {
    Keeps,
    Returns,
}

fn give_away(here: &mut Cluster, dice: &mut Dice, heir: Heir) {
    let (from, to) = here.pair(dice);
    let others = here.others(from);
    let loser = match heir {
        Heir::Keeps => from,
        Heir::Returns => to,
    };
    let replica_of_loser = here.nodes.replica_of(loser);
    let nodes = &here.nodes;
    let replica = nodes.replica_of(from);
    here.set_everywhere("cluster-require-full-coverage", "no");
    let may_not_take_over = |yes: &str| {
        let set = ["CONFIG", "SET", "cluster-replica-no-failover", yes];
        assert_eq!(nodes.nodes[replica].cli(&set), "OK");
    };
    may_not_take_over("yes");
    if heir == Heir::Returns {
        nodes.bump_epoch(from, &others);
    }
    let (ids, slots) = here.rows_of(from);
    nodes.nodes[from].freeze();
    match heir {
        Heir::Keeps => {
            nodes.give_away(&slots, to, &others);
            nodes.bump_epoch(to, &others);
            here.write_on(&others, to, &ids);
        }
        Heir::Returns => {
            nodes.give_away(&slots, to, &others);
            // Replicas, which were not told, soon tell the others of the higher epoch: there is nothing to wait for.
            here.are_fresh(&others, &ids);
        }
    }
    nodes.nodes[from].thaw();
    nodes.await_agreement();
    may_not_take_over("no");
    here.set_everywhere("cluster-require-full-coverage", "yes");
    // Who loses slots so deletes their keys. Before Redis 7.2 its replica is not told (redis/redis#10967), and would have
    // them as a master, where nobody can read or delete them: it copies everything anew.
    let replica = &mut here.nodes.nodes[replica_of_loser];
    replica.kill();
    replica.start_again();
}

/// What the master was sent comes to it when the slots are back with newer values, and the worker is not.
fn line_cut(here: &mut Cluster, dice: &mut Dice) {
    let (from, to) = here.pair(dice);
    let others = here.others(from);
    let nodes = &here.nodes;
    let (ids, _) = here.rows_of(from);
    let is_held = AtomicBool::new(false);
    let line = scope(|threads| {
        threads.spawn(|| here.write_until(&is_held, &ids[..ids.len().min(KEPT)]));
        let line = hold(nodes, from);
        // For each lane to have something there.
        sleep(Duration::from_millis(200));
        is_held.store(true, Ordering::Release);
        line
    });
    let replicas = nodes.nodes[from].cli(&["CLIENT", "LIST", "TYPE", "replica"]);
    let ports = replicas.split(" addr=127.0.0.1:").skip(1);
    let ports: Vec<u16> = ports
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    line.shut(&ports);
    let keys: Vec<String> = ids.iter().map(|id| format!("doc:{id}")).collect();
    for key in &keys {
        nodes.move_slot_of(key, from, to);
    }
    // What the slots hold may all be in doubt (rule 5), and then waits for the line.
    here.are_fresh(&others, &ids);
    for key in &keys {
        nodes.move_slot_of(key, to, from);
    }
    line.release();
    pause(dice, 500);
    line.reopen();
}
