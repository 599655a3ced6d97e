//! Slots that go from one node of a cluster to another while they are in use.

use std::ops::RangeInclusive;

use super::{LIMIT, RedisCluster};
use crate::{Redis, eventually};

impl RedisCluster {
    /// Moves so many slots from one node to another, key by key, while they are in use.
    pub fn reshard(&self, from: usize, to: usize, slots: usize) {
        let (from, to) = (self.id(from), self.id(to));
        self.manage(&[
            "reshard",
            &self.address(self.host, 0),
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ]);
    }

    /// Has one node hand slots over to another in one step, if its version can (`CLUSTER MIGRATESLOTS`, Valkey 9.0), and
    /// waits until it has. Says whether it can.
    ///
    /// # Panics
    /// If it can, and does not.
    pub fn migrate(&self, from: usize, to: usize, slots: RangeInclusive<u16>) -> bool {
        let (first, last, to) = (slots.start().to_string(), slots.end().to_string(), self.id(to));
        let from = &self.nodes[from];
        let migrate = [
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            &first,
            &last,
            "NODE",
            &to,
        ];
        let answer = from.cli(&migrate);
        if answer.contains("unknown subcommand") || answer.contains("Unknown subcommand") {
            return false;
        }
        assert_eq!(answer, "OK");
        eventually("slots to be handed over", LIMIT, || {
            let jobs = from.cli(&["CLUSTER", "GETSLOTMIGRATIONS"]);
            assert!(!jobs.contains("\"failed\""), "{jobs}");
            // The last one is told first.
            let state = jobs.split("\"state\"").nth(1).expect("one has begun");
            state
                .split('"')
                .nth(1)
                .is_some_and(|state| state == "success")
                .then_some(())
        });
        true
    }

    /// The slots of those keys of which a node has the slot, with the places of the keys, at most so many.
    ///
    /// # Panics
    /// If the node does not answer.
    pub fn slots_of(&self, node: usize, keys: &[String], most: usize) -> Vec<(usize, u16)> {
        let mut node = self.nodes[node].connection();
        let mut found: Vec<(usize, u16)> = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            let slot = slot_of(&mut node, key);
            // Who has not the slot says who has it.
            let is_there = redis::cmd("EXISTS").arg(key).query::<i64>(&mut node).is_ok();
            if is_there && found.iter().all(|(_, other)| *other != slot) {
                found.push((place, slot));
            }
        }
        found.truncate(most);
        found
    }

    /// Tells these masters that slots are another node's, as an operator does who gives a dead one's away. Their keys stay
    /// where they are, and the one that had the slots is not told: when it is back, the higher epoch is believed, its own
    /// or the new master's ([`bump_epoch`](Self::bump_epoch)).
    ///
    /// # Panics
    /// If a node refuses.
    pub fn give_away(&self, slots: &[u16], to: usize, told: &[usize]) {
        let id = self.id(to);
        for node in told {
            let mut pipe = redis::pipe();
            for slot in slots {
                pipe.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(&id);
            }
            let done: Vec<String> = pipe
                .query(&mut self.nodes[*node].connection())
                .expect("the slots are given away");
            assert!(done.iter().all(|answer| answer == "OK"), "{done:?}");
        }
    }

    /// Gives a master the highest epoch, so that its word on its slots is the last one, and waits until these others know.
    ///
    /// # Panics
    /// If a node refuses, or they do not learn of it.
    pub fn bump_epoch(&self, node: usize, others: &[usize]) {
        let answer = self.nodes[node].cli(&["CLUSTER", "BUMPEPOCH"]);
        let epoch: Option<u64> = answer.split(' ').nth(1).and_then(|epoch| epoch.parse().ok());
        let epoch = epoch.unwrap_or_else(|| panic!("no new epoch: {answer}"));
        self.await_word_of(node, others, |fields| {
            fields.get(6).and_then(|known| known.parse().ok()) >= Some(epoch)
        });
    }

    /// Has a replica take its master's place at once, without a vote, and waits until these nodes know.
    ///
    /// # Panics
    /// If it refuses, or they do not learn of it.
    pub fn take_over(&self, replica: usize, others: &[usize]) {
        let answer = self.nodes[replica].cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        assert_eq!(answer, "OK");
        self.await_word_of(replica, others, |fields| {
            fields.get(2).is_some_and(|flags| flags.contains("master"))
        });
    }

    /// Waits until what each of these others says of a node, the fields of its line of CLUSTER NODES, is as wanted.
    fn await_word_of(&self, node: usize, others: &[usize], is_wanted: impl Fn(&[&str]) -> bool) {
        let id = self.id(node);
        let knows = |other: &Redis| {
            let nodes = other.cli(&["CLUSTER", "NODES"]);
            let line = nodes.lines().find(|line| line.starts_with(&id));
            line.is_some_and(|line| is_wanted(&line.split(' ').collect::<Vec<_>>()))
        };
        eventually("the others to hear of a node", LIMIT, || {
            let mut others = others.iter().map(|other| &self.nodes[*other]);
            others.all(knows).then_some(())
        });
    }

    /// Makes a node that has no slots any more a replica of this master, whomever it has followed until now.
    ///
    /// # Panics
    /// If it refuses.
    pub fn follow(&self, node: usize, master: usize) {
        let id = self.id(master);
        eventually("a node without slots", LIMIT, || {
            let role = self.nodes[node].cli(&["ROLE"]);
            role.contains("\"slave\"").then_some(())
        });
        assert_eq!(self.nodes[node].cli(&["CLUSTER", "REPLICATE", &id]), "OK");
    }

    /// Moves the slot of a key, with all its keys, from one node to another, without a word to the rest: one of them may
    /// be away, and `reshard` wants all.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn move_slot_of(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port();
        let (from_id, to_id) = (self.id(from), self.id(to));
        let (mut from, mut to) = (self.nodes[from].connection(), self.nodes[to].connection());
        let slot = slot_of(&mut from, key);
        let set = |node: &mut redis::Connection, state: &str, id: &str| {
            let mut command = redis::cmd("CLUSTER");
            command.arg("SETSLOT").arg(slot).arg(state).arg(id);
            let set: redis::RedisResult<()> = command.query(node);
            set.unwrap_or_else(|e| panic!("SETSLOT {slot} {state} {id}: {e}"));
        };
        set(&mut to, "IMPORTING", &from_id);
        set(&mut from, "MIGRATING", &to_id);
        loop {
            let mut some = redis::cmd("CLUSTER");
            let keys: Vec<String> = some
                .arg("GETKEYSINSLOT")
                .arg(slot)
                .arg(100)
                .query(&mut from)
                .expect("keys");
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(port)
                .arg("")
                .arg(0)
                .arg(5000)
                .arg("KEYS")
                .arg(keys);
            let _: String = migrate.query(&mut from).expect("the keys go");
        }
        set(&mut to, "NODE", &to_id);
        set(&mut from, "NODE", &to_id);
    }
}

/// The slot of a key, as a node tells it.
fn slot_of(node: &mut redis::Connection, key: &str) -> u16 {
    let mut command = redis::cmd("CLUSTER");
    command.arg("KEYSLOT").arg(key).query(node).expect("a slot")
}
