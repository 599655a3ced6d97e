//! Batches against a small cluster in memory, whose slots move and whose connections break between any two commands:
//! no key goes back, and in the end each holds what was written last.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;

use ::redis::{Arg, Cmd};

use super::*;
use crate::redis::chunk::{Expiry, Target};
use crate::redis::dice::Dice;
use crate::redis::event;
use crate::redis::slots::slot;

const MASTERS: usize = 3;
/// Some share a slot.
const KEYS: [&str; 6] = ["{a}1", "{a}2", "{b}1", "{b}2", "c", "d"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Text(u64),
    Hash(u64),
}

impl Held {
    fn version(self) -> u64 {
        let (Self::Text(version) | Self::Hash(version)) = self;
        version
    }
}

/// Who has a slot, and to whom it is on its way.
#[derive(Clone, Copy)]
struct Slot {
    owner: usize,
    target: Option<usize>,
    /// It does not set out again before this round: what ASK says means nothing any more if the slot has arrived and
    /// set out once more before that is followed.
    stays_until: u32,
}

impl Slot {
    fn of(owner: usize, target: Option<usize>, stays_until: u32) -> Self {
        Self {
            owner,
            target,
            stays_until,
        }
    }
}

struct World {
    dice: Dice,
    /// Counts what is sent to all masters at a time.
    round: u32,
    slots: HashMap<u16, Slot>,
    masters: Vec<HashMap<String, Held>>,
    newest: HashMap<String, u64>,
    /// What the lane believes.
    table: Rc<Table>,
}

/// The commands to one master that are still to run.
struct Sent {
    commands: VecDeque<Vec<Vec<u8>>>,
    asking: bool,
    replies: Vec<Value>,
    lost: bool,
    /// The master finds no cluster any more, for the rest of it.
    down: bool,
}

fn error(text: &str) -> Value {
    ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut table = Table::new(MASTERS, 1);
        let mut slots = HashMap::new();
        for key in KEYS {
            let owner = dice.below(MASTERS);
            slots
                .entry(slot(key.as_bytes()))
                .or_insert(Slot::of(owner, None, 0));
            // The lane may know nothing, or something else.
            if dice.one_in(2) {
                table.give(slot(key.as_bytes()), dice.below(MASTERS));
            }
        }
        Self {
            dice,
            round: 0,
            slots,
            masters: vec![HashMap::new(); MASTERS],
            newest: HashMap::new(),
            table: Rc::new(table),
        }
    }

    /// A slot sets out, a key of it moves, or it arrives, or goes back.
    fn change(&mut self) {
        let key = KEYS[self.dice.below(KEYS.len())];
        let number = slot(key.as_bytes());
        let Slot {
            owner,
            target,
            stays_until,
        } = self.slots[&number];
        let of_slot: Vec<&str> = KEYS
            .into_iter()
            .filter(|key| slot(key.as_bytes()) == number)
            .collect();
        match target {
            None if stays_until > self.round => {}
            None => {
                let to = (owner + 1 + self.dice.below(MASTERS - 1)) % MASTERS;
                self.slots.insert(number, Slot::of(owner, Some(to), 0));
            }
            Some(to) if self.dice.one_in(3) => {
                let goes_back = self.dice.one_in(4);
                let (from, to) = if goes_back { (to, owner) } else { (owner, to) };
                of_slot.iter().for_each(|key| self.hand_over(key, from, to));
                self.slots.insert(number, Slot::of(to, None, self.round + 2));
            }
            Some(to) => self.hand_over(key, owner, to),
        }
    }

    fn hand_over(&mut self, key: &str, from: usize, to: usize) {
        if let Some(held) = self.masters[from].remove(key) {
            self.masters[to].insert(key.to_owned(), held);
        }
    }

    fn held(&self, key: &str) -> Option<Held> {
        let Slot { owner, target, .. } = self.slots[&slot(key.as_bytes())];
        let at = |master: usize| self.masters[master].get(key).copied();
        at(owner).or_else(|| at(target?))
    }

    fn run(&mut self, at: usize, words: &[Vec<u8>], asking: bool) -> Value {
        let text = |place: usize| String::from_utf8(words[place].clone()).unwrap();
        let key = text(1);
        let number = slot(key.as_bytes());
        let Slot { owner, target, .. } = self.slots[&number];
        let is_here = self.masters[at].contains_key(&key);
        match target {
            Some(to) if at == owner && !is_here => return error(&format!("ASK {number} host:{to}")),
            Some(to) if at == to && asking => {}
            _ if at == owner => {}
            _ => return error(&format!("MOVED {number} host:{owner}")),
        }
        let held = &mut self.masters[at];
        match words[0].as_slice() {
            b"SET" => {
                held.insert(key.clone(), Held::Text(text(2).parse().unwrap()));
            }
            b"HSET" if matches!(held.get(&key), Some(Held::Text(_))) => return error("WRONGTYPE Operation"),
            b"HSET" => {
                held.insert(key.clone(), Held::Hash(text(3).parse().unwrap()));
            }
            b"UNLINK" => {
                assert_eq!(words.len(), 2, "several keys in one command");
                held.remove(&key);
            }
            b"PEXPIRE" => {}
            other => panic!("{other:?}"),
        }
        if let Some(version) = self.held(&key).map(Held::version) {
            let newest = self.newest.entry(key.clone()).or_default();
            assert!(version >= *newest, "{key} goes back from {newest} to {version}");
            *newest = version;
        }
        Value::Okay
    }

    /// Runs what is sent, in any order between the masters. Returns the answers.
    fn carry(&mut self, batch: &Batch) -> Vec<Answers> {
        let words = |command: &Cmd| {
            let words = command.args_iter().map(|word| match word {
                Arg::Simple(word) => word.to_vec(),
                _ => panic!("a cursor"),
            });
            words.collect::<Vec<_>>()
        };
        let sent = batch.parts().map(|(commands, _)| Sent {
            commands: commands.cmd_iter().map(words).collect(),
            asking: false,
            replies: Vec::new(),
            lost: false,
            down: false,
        });
        let mut sent: Vec<Sent> = sent.collect();
        self.round += 1;
        while let Some(at) = {
            let left: Vec<usize> = (0..sent.len())
                .filter(|at| !sent[*at].commands.is_empty())
                .collect();
            (!left.is_empty()).then(|| left[self.dice.below(left.len())])
        } {
            if self.dice.one_in(3) {
                self.change();
            }
            let part = &mut sent[at];
            // What a lost connection had sent may run until its client is killed; the answers do not come.
            part.lost |= self.dice.one_in(150);
            if part.lost && self.dice.one_in(3) {
                part.commands.clear();
                continue;
            }
            let Some(words) = part.commands.pop_front() else {
                continue;
            };
            if words[0] == b"ASKING" {
                part.asking = true;
                part.replies.push(Value::Okay);
                continue;
            }
            part.down |= self.dice.one_in(100);
            let reply = if part.down {
                error("CLUSTERDOWN The cluster is down")
            } else {
                let asking = std::mem::take(&mut part.asking);
                self.run(at, &words, asking)
            };
            sent[at].replies.push(reply);
        }
        sent.into_iter()
            .map(|part| (!part.lost).then_some(part.replies))
            .collect()
    }

    fn put_through(&mut self, batch: &mut Batch) {
        for _ in 0..10_000 {
            if batch.is_through() {
                return;
            }
            if self.dice.one_in(20) {
                // The lane hears of the slots from elsewhere, or of masters in another order.
                let mut table = Table::new(MASTERS, self.table.numbering() + 1);
                for (number, slot) in &self.slots {
                    table.give(*number, slot.owner);
                }
                self.table = Rc::new(table);
            }
            batch.route_by(Some(&self.table));
            let answers = self.carry(batch);
            for (at, answer) in answers.iter().enumerate() {
                if let Some(replies) = answer {
                    assert_eq!(batch.read_answers(at, replies), None);
                }
            }
            let most = if self.dice.one_in(2) { 1 } else { usize::MAX };
            let (table, dice) = (&mut self.table, &mut self.dice);
            batch.judge(&answers, most, &mut |said: Redirected<'_>| {
                let (slot, place) = said.to.split_once(' ').unwrap();
                let number: usize = place.strip_prefix("host:").unwrap().parse().unwrap();
                if said.is_ask {
                    // A master may be one that is not known yet.
                    return (!dice.one_in(4)).then_some(number as u16);
                }
                Rc::make_mut(table).give(slot.parse().unwrap(), number);
                None
            });
        }
        panic!("it does not come to an end");
    }
}

fn fields<'a>(bytes: &'a [u8], each: &mut dyn FnMut(&'a [u8], &'a [u8])) -> Option<bool> {
    each(b"version", bytes);
    // Some have a NULL, so that their key is deleted first.
    Some(bytes.last().is_some_and(|digit| digit % 2 == 0))
}

/// Some batches of a lane, and what each key has to hold in the end; `None` where nobody can tell.
fn try_out(seed: u64) {
    let mut world = World::new(seed);
    let (ledger, (events, _reader)) = (Ledger::default(), event::channel(Box::new(|| {})));
    let mut wanted: HashMap<&str, (u64, bool, bool)> = HashMap::new();
    let mut version = 0;
    for id in 0..4 {
        let mut chunk = Chunk::with_capacity(id, 0, 0);
        for _ in 0..1 + world.dice.below(25) {
            version += 1;
            let key = KEYS[world.dice.below(KEYS.len())];
            let target = Target {
                mapping: 0,
                hash: 0,
                key: key.as_bytes(),
            };
            let text = version.to_string();
            let is_fill = world.dice.one_in(4);
            let expiry = match world.dice.below(2) {
                0 => Expiry::Never,
                _ => Expiry::Milliseconds(NonZeroU64::MIN),
            };
            let stores = match world.dice.below(4) {
                0 => {
                    chunk.delete(target, world.dice.one_in(2).then_some(version));
                    false
                }
                1 => {
                    chunk.store_text(target, text.as_bytes(), expiry, is_fill);
                    true
                }
                _ => {
                    chunk.store_hash(target, text.as_bytes(), expiry, is_fill);
                    true
                }
            };
            wanted.insert(key, (version, stores, is_fill));
        }
        let pending = ledger.enter(chunk);
        let mut batch = Batch::new(fields);
        batch.route_by(Some(&world.table));
        for op in 0..pending.chunk.len() {
            batch.push(&pending, op as u32);
        }
        world.put_through(&mut batch);
        batch.settle(&ledger, &events);
        assert!(ledger.is_empty());
        for (key, (version, stores, is_fill)) in &wanted {
            match world.held(key).map(Held::version) {
                Some(held) => assert!(*stores && held == *version, "{key} holds {held}, not {version}"),
                // A fill whose connection was lost is deleted.
                None => assert!(!stores || *is_fill, "{key} does not hold {version}"),
            }
        }
    }
}

#[test]
fn wherever_slots_go_no_key_goes_back() {
    for seed in 0..1000 {
        if let Err(panic) = std::panic::catch_unwind(|| try_out(seed)) {
            eprintln!("with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn what_was_not_sent_asks_again() {
    let keys = ["c", "d"];
    let mut table = Table::new(MASTERS, 1);
    let mut chunk = Chunk::with_capacity(1, 0, 0);
    for key in keys {
        table.give(slot(key.as_bytes()), 0);
        let target = Target {
            mapping: 0,
            hash: 0,
            key: key.as_bytes(),
        };
        chunk.store_text(target, b"1", Expiry::Never, false);
    }
    let pending = Ledger::default().enter(chunk);
    let mut batch = Batch::new(|_, _| None);
    batch.route_by(Some(&Rc::new(table)));
    (0..2).for_each(|op| batch.push(&pending, op));
    let mut redirect = |said: Redirected<'_>| said.to.rsplit_once(':')?.1.parse().ok();
    let asks = |to: usize| error(&format!("ASK {} host:{to}", slot(keys[to - 1].as_bytes())));
    batch.judge(
        &[Some(vec![asks(1), asks(2)]), None, None],
        usize::MAX,
        &mut redirect,
    );
    let asked = |batch: &Batch| batch.plan.iter().map(|planned| planned.asked).collect::<Vec<_>>();
    assert_eq!(asked(&batch), [Some(1), Some(2)]);
    assert!(batch.send_only(usize::MAX, |_, at| at == 1));
    let done = Some(vec![Value::Okay, Value::Okay]);
    batch.judge(&[None, done, None], usize::MAX, &mut redirect);
    assert_eq!(asked(&batch), [None]);
}
