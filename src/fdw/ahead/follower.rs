//! The inner side of a join with look-ahead: reads for many outer rows, and hands out to each its own.
use std::{collections::HashMap, rc::Rc};

use pg_redis_cache_core::fdw::{Access, Commands, Lookups, Operand, Row, Shape};
use pgrx::pg_sys;

use super::{Ahead, Lookup, Number, Shared, find};
use crate::fdw::{pending, scan::Scan};

/// How much is read ahead, in bytes; where there is more, fewer rows are looked up at a time.
pub const MOST_BYTES: usize = 16 << 20;
/// How many elements are asked for at a time before their size is known: what is looked up by name is mostly small.
const FIRST_WINDOW: usize = 1_000;
/// How many times fewer rows are looked up at a time once that was too much.
const SHRINKING: usize = 8;

/// See the module.
pub struct Follower {
    state: *mut pg_sys::EState,
    number: Number,
    ahead: Option<Shared>,
    /// The batch that was announced last, and what has been read of it.
    batch: Option<Batch>,
    window: usize,
    /// How many look-ups are made at a time; 1: the scan does it by itself.
    at_once: usize,
}

struct Batch {
    number: u64,
    lookups: Vec<Lookup>,
    places: HashMap<Lookup, usize>,
    /// From the look-up at that place on.
    read: Option<(usize, Lookups)>,
}

impl Follower {
    /// For the inner side with that number, in the statement whose state that is; none for number 0.
    pub fn new(state: *mut pg_sys::EState, number: Number) -> Option<Self> {
        (number != 0).then_some(Self {
            state,
            number,
            ahead: None,
            batch: None,
            window: FIRST_WINDOW,
            at_once: usize::MAX,
        })
    }

    /// The rows for the outer row for which the scan's conditions have these operands; none if the scan must read them
    /// by itself.
    pub fn rows(&mut self, scan: &mut Scan, conditions: &[(Shape, Operand)]) -> Option<Vec<Row>> {
        if self.ahead.is_none() {
            self.ahead = find(self.state, self.number);
        }
        let ahead = Rc::clone(self.ahead.as_ref()?);
        let ahead = ahead.borrow();
        if self
            .batch
            .as_ref()
            .is_none_or(|batch| batch.number != ahead.batch)
        {
            self.batch = Some(Batch::of(&ahead));
        }
        let batch = self.batch.as_mut()?;
        let place = *batch.places.get(&scan.lookup(conditions))?;
        if let Some(rows) = batch.rows(place) {
            return Some(rows);
        }
        while self.at_once > 1 {
            let constant = scan.constant(conditions);
            let lookups = batch.lookups[place..].iter().take(self.at_once);
            let accesses: Vec<Access> = lookups.map(|lookup| access(scan, &constant, lookup)).collect();
            let count = accesses.len();
            let lookups = Lookups::new(scan.needs, accesses, self.window);
            if let Some(lookups) = read(scan, lookups) {
                self.window = lookups.window().unwrap_or(self.window);
                batch.read = Some((place, lookups));
                return batch.rows(place);
            }
            self.at_once = (count / SHRINKING).max(1);
        }
        None
    }
}

impl Batch {
    fn of(ahead: &Ahead) -> Self {
        let mut places = HashMap::with_capacity(ahead.lookups.len());
        let mut lookups = Vec::new();
        for lookup in &ahead.lookups {
            if !places.contains_key(lookup) {
                places.insert(lookup.clone(), lookups.len());
                lookups.push(lookup.clone());
            }
        }
        Self {
            number: ahead.batch,
            lookups,
            places,
            read: None,
        }
    }

    fn rows(&self, place: usize) -> Option<Vec<Row>> {
        let (from, lookups) = self.read.as_ref()?;
        lookups.rows(place.checked_sub(*from)?)
    }
}

/// The way to the rows of a look-up.
fn access(scan: &Scan, constant: &[(Shape, Operand)], lookup: &Lookup) -> Access {
    let joining = lookup.iter().filter_map(|(place, comparison, operand)| {
        Some((scan.table.shape(*place, *comparison)?, operand.clone()))
    });
    scan.access(constant.iter().cloned().chain(joining).collect())
}

/// Reads look-ups; none if they come to too much.
fn read(scan: &mut Scan, mut lookups: Lookups) -> Option<Lookups> {
    pending::check_unchanged(&scan.table);
    loop {
        let mut commands = Commands::default();
        lookups.ask(&mut commands);
        if commands.count == 0 {
            return Some(lookups);
        }
        scan.line().send(&commands);
        while lookups.is_waiting() {
            let reply = scan.line().receive();
            if let Err(problem) = lookups.answer(reply) {
                scan.fail(&problem);
            }
            if lookups.bytes() > MOST_BYTES {
                // What is still on its way is nobody's.
                scan.stop();
                return None;
            }
        }
    }
}
