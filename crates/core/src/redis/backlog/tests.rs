//! A lane in memory, on a cluster whose masters go away and come back, whose slots move meanwhile, and where what was
//! sent through a lost connection runs whenever it likes until its client is killed: no key goes back, in the end each
//! holds what was written last, and what can be sent is not held up.

use std::collections::{HashMap, HashSet};

use ::redis::{Arg, Cmd, Value};

use super::*;
use crate::redis::batch::{Answers, Redirected};
use crate::redis::chunk::{Chunk, Expiry, Target};
use crate::redis::dice::Dice;
use crate::redis::event::{self, Event, EventReader};
use crate::redis::slots::SLOTS;

const MASTERS: usize = 3;
/// Some share a slot.
const KEYS: [&str; 8] = ["{a}1", "{a}2", "{b}1", "{b}2", "c", "d", "e", "f"];

/// A SET that a master was sent.
type Set = (String, u64);

struct World {
    dice: Dice,
    owners: HashMap<u16, usize>,
    /// A slot's keys go with it.
    keys: HashMap<String, u64>,
    is_away: [bool; MASTERS],
    /// The client of the lane's line to each master.
    lines: [Option<u64>; MASTERS],
    next_client: u64,
    /// What lost connections have left, by master and client.
    undead: Vec<(usize, u64, VecDeque<Set>)>,
    table: Rc<Table>,
    /// Nothing happens by chance.
    is_quiet: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut table = Table::new(MASTERS, 1);
        (0..SLOTS).for_each(|slot| table.give(slot, 0));
        let mut owners = HashMap::new();
        for key in KEYS {
            let number = slot(key.as_bytes());
            let owner = *owners.entry(number).or_insert_with(|| dice.below(MASTERS));
            table.give(number, owner);
        }
        Self {
            dice,
            owners,
            keys: HashMap::new(),
            is_away: [false; MASTERS],
            lines: [None; MASTERS],
            next_client: 1,
            undead: Vec::new(),
            table: Rc::new(table),
            is_quiet: false,
        }
    }

    fn run(&mut self, at: usize, (key, version): &Set) -> Result<(), String> {
        let number = slot(key.as_bytes());
        let owner = self.owners[&number];
        if owner != at {
            return Err(format!("MOVED {number} host:{owner}"));
        }
        let held = self.keys.entry(key.clone()).or_default();
        assert!(*version >= *held, "{key} goes back from {held} to {version}");
        *held = *version;
        Ok(())
    }

    /// Something that is not the lane's doing.
    fn change(&mut self) {
        if self.is_quiet {
            return;
        }
        match self.dice.below(4) {
            0 => {
                let at = self.dice.below(MASTERS);
                self.is_away[at] = !self.is_away[at];
            }
            1 | 2 => {
                let number = slot(KEYS[self.dice.below(KEYS.len())].as_bytes());
                let to = self.dice.below(MASTERS);
                self.owners.insert(number, to);
                if self.dice.one_in(2) {
                    Rc::make_mut(&mut self.table).give(number, to);
                }
            }
            _ if self.undead.is_empty() => {}
            _ => {
                let place = self.dice.below(self.undead.len());
                let (at, _, sets) = &mut self.undead[place];
                let at = *at;
                if let Some(set) = sets.pop_front() {
                    let _ = self.run(at, &set);
                }
            }
        }
    }

    /// Opens the lines that can be had, and buries what can be buried.
    fn connect(&mut self, backlog: &mut Backlog) {
        for at in 0..MASTERS {
            if self.lines[at].is_none() && !self.is_away[at] && self.dice.one_in(2) {
                self.lines[at] = Some(self.next_client);
                self.next_client += 1;
            }
        }
        let mut place = 0;
        while let Some((client, _)) = backlog.doubted(place) {
            let at: usize = client.run_id.parse().unwrap();
            if self.lines[at].is_some() {
                self.undead.retain(|(_, id, _)| *id != client.id);
                backlog.believe(place);
            } else {
                place += 1;
            }
        }
        backlog.set_reach(Reach {
            table: Some(self.table.clone()),
            open: self.lines.map(|line| line.is_some()).to_vec(),
        });
    }

    /// Sends the parts of a batch. A line that is lost leaves what has not run behind.
    fn exchange(&mut self, batch: &Batch, backlog: &mut Backlog) -> Vec<Answers> {
        let word = |command: &Cmd, place: usize| match command.args_iter().nth(place) {
            Some(Arg::Simple(word)) => String::from_utf8(word.to_vec()).unwrap(),
            _ => panic!("no word"),
        };
        let set = |command: &Cmd| (word(command, 1), word(command, 2).parse().unwrap());
        let sent: Vec<VecDeque<Set>> = batch
            .parts()
            .map(|(commands, _)| commands.cmd_iter().map(set).collect())
            .collect();
        let mut answers = Vec::new();
        for (at, mut sets) in sent.into_iter().enumerate() {
            if sets.is_empty() {
                answers.push(None);
                continue;
            }
            let client = self.lines[at].expect("nothing is sent where there is no line");
            let mut replies = Vec::new();
            let is_lost = self.is_away[at] || !self.is_quiet && self.dice.one_in(8);
            let runs = if is_lost {
                self.dice.below(sets.len() + 1)
            } else {
                sets.len()
            };
            let runs = if self.is_away[at] { 0 } else { runs };
            for set in sets.drain(..runs) {
                replies.push(match self.run(at, &set) {
                    Ok(()) => Value::Okay,
                    Err(error) => error_reply(&error),
                });
            }
            if is_lost {
                self.lines[at] = None;
                self.undead.push((at, client, sets));
                let run_id = at.to_string();
                backlog.doubt(Client { run_id, id: client }, batch.in_part(at));
                answers.push(None);
            } else {
                answers.push(Some(replies));
            }
        }
        answers
    }
}

fn error_reply(text: &str) -> Value {
    ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap()
}

/// A lane that does as `Lane` does.
struct Lane {
    world: World,
    queue: Queue,
    backlog: Backlog,
    next: Batch,
    ledger: Ledger,
    events: Events,
    reader: EventReader,
    version: u64,
    wanted: HashMap<&'static str, u64>,
    chunks: u64,
}

impl Lane {
    fn new(seed: u64) -> Self {
        let (events, reader) = event::channel(Box::new(|| {}));
        Self {
            world: World::new(seed),
            queue: Queue::default(),
            backlog: Backlog::default(),
            next: Batch::new(|_, _| None),
            ledger: Ledger::default(),
            events,
            reader,
            version: 0,
            wanted: HashMap::new(),
            chunks: 0,
        }
    }

    fn write(&mut self, keys: &[&'static str]) {
        self.chunks += 1;
        let mut chunk = Chunk::with_capacity(self.chunks, 0, 0);
        for key in keys {
            self.version += 1;
            let target = Target {
                mapping: 0,
                hash: 0,
                key: key.as_bytes(),
            };
            chunk.store_text(target, self.version.to_string().as_bytes(), Expiry::Never, false);
            self.wanted.insert(key, self.version);
        }
        let pending = self.ledger.enter(chunk);
        let ops = (0..pending.chunk.len() as u32).collect();
        self.queue.push(&pending, ops);
    }

    fn gather(&mut self) {
        let (ledger, events) = (&self.ledger, &self.events);
        self.backlog.gather(&self.queue, &mut self.next, ledger, events);
    }

    /// Has stranded batches wait, as if an ASK had led nowhere, or go on.
    fn have_some_wait(&mut self) {
        for work in &mut self.backlog.stranded {
            let is_over = self.world.is_quiet || self.world.dice.one_in(2);
            let wait = if is_over {
                Duration::ZERO
            } else {
                ASK_AGAIN * 10_000
            };
            work.not_before = Some(Instant::now() + wait);
        }
    }

    /// Returns whether there was anything to do.
    fn step(&mut self) -> bool {
        self.world.connect(&mut self.backlog);
        self.have_some_wait();
        let (place, mut work) = match self.backlog.resume() {
            Some(found) => found,
            None => {
                self.next.route_by(Some(&self.world.table));
                self.backlog.take_back(&mut self.next, &self.ledger);
                self.gather();
                if self.next.is_empty() {
                    return false;
                }
                let batch = std::mem::replace(&mut self.next, Batch::new(|_, _| None));
                (self.backlog.youngest(), Work::new(batch))
            }
        };
        if self.put_through(place, &mut work) {
            work.batch.settle(&self.ledger, &self.events);
        } else {
            self.backlog.strand(place, work, &self.ledger);
        }
        true
    }

    fn put_through(&mut self, place: usize, work: &mut Work) -> bool {
        loop {
            if work.batch.is_through() {
                return true;
            }
            let table = self.world.table.clone();
            work.batch.route_by(Some(&table));
            self.next.route_by(Some(&table));
            self.world.connect(&mut self.backlog);
            let most = if self.world.dice.one_in(3) { 1 } else { usize::MAX };
            if !self.backlog.lets_send(place, &mut work.batch, most) {
                return false;
            }
            let answers = self.world.exchange(&work.batch, &mut self.backlog);
            if !self.world.is_quiet && self.world.dice.one_in(2) {
                self.write_some();
                self.gather();
            }
            if self.world.dice.one_in(2) {
                self.world.change();
            }
            let table = &mut self.world.table;
            work.batch.judge(&answers, most, &mut |said: Redirected<'_>| {
                let (slot, place) = said.to.split_once(' ').unwrap();
                let number = place.strip_prefix("host:").unwrap().parse().unwrap();
                Rc::make_mut(table).give(slot.parse().unwrap(), number);
                None
            });
        }
    }

    fn write_some(&mut self) {
        let count = 1 + self.world.dice.below(5);
        let keys: Vec<&str> = (0..count)
            .map(|_| KEYS[self.world.dice.below(KEYS.len())])
            .collect();
        self.write(&keys);
    }
}

fn try_out(seed: u64) {
    let mut lane = Lane::new(seed);
    for _ in 0..40 {
        if lane.world.dice.one_in(2) {
            lane.write_some();
        }
        lane.world.change();
        lane.step();
    }
    // All are back, and stay where they are.
    lane.world.is_away = [false; MASTERS];
    lane.world.is_quiet = true;
    for _ in 0..10_000 {
        if !lane.step() && lane.ledger.is_empty() {
            break;
        }
    }
    assert!(lane.ledger.is_empty(), "it does not come to an end");
    for (key, version) in &lane.wanted {
        assert_eq!(lane.world.keys.get(*key), Some(version), "{key}");
    }
    let mut acknowledged = 0;
    let mut held_up = HashSet::new();
    while let Some(event) = lane.reader.try_recv() {
        match event {
            Event::Acknowledged { chunk, .. } => {
                assert_eq!(chunk, acknowledged + 1);
                acknowledged = chunk;
            }
            Event::HeldUp { chunk } => {
                assert!(chunk > acknowledged, "{chunk} is acknowledged");
                assert!(held_up.insert(chunk), "{chunk} was told twice");
            }
            _ => {}
        }
    }
    assert_eq!(acknowledged, lane.chunks);
}

#[test]
fn whichever_masters_are_away_no_key_goes_back() {
    for seed in 0..1000 {
        if let Err(panic) = std::panic::catch_unwind(|| try_out(seed)) {
            eprintln!("with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

mod cases;
