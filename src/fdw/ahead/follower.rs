//! The inner side of a join with look-ahead: reads for many outer rows, and hands out to each its own.
use std::{collections::HashMap, rc::Rc};

use pg_redis_cache_core::fdw::{Commands, Lookups, Operand, Row, Shape};
use pgrx::pg_sys;

use super::{Ahead, Lookup, Number, Shared, find};
use crate::fdw::{pending, scan::Scan};

/// How much is read for one batch, in bytes. A batch for which there is more is given up, and the rest of the join asks
/// for each row by itself.
pub const MOST_BYTES: usize = 16 << 20;
/// How many elements are asked for at a time before their size is known: what is looked up by name is mostly small.
const FIRST_WINDOW: usize = 1_000;

/// See the module.
pub struct Follower {
    state: *mut pg_sys::EState,
    number: Number,
    ahead: Option<Shared>,
    /// The batch that has been read.
    read: Option<Read>,
    window: usize,
    given_up: bool,
}

struct Read {
    batch: u64,
    places: HashMap<Lookup, usize>,
    lookups: Lookups,
}

impl Follower {
    /// For the inner side with that number, in the statement whose state that is; none for number 0.
    pub fn new(state: *mut pg_sys::EState, number: Number) -> Option<Self> {
        (number != 0).then_some(Self {
            state,
            number,
            ahead: None,
            read: None,
            window: FIRST_WINDOW,
            given_up: false,
        })
    }

    /// The rows for the outer row for which the scan's conditions have these operands; none if the scan must read them
    /// by itself.
    pub fn rows(&mut self, scan: &mut Scan, conditions: &[(Shape, Operand)]) -> Option<Vec<Row>> {
        if self.ahead.is_none() {
            self.ahead = find(self.state, self.number);
        }
        let ahead = Rc::clone(self.ahead.as_ref().filter(|_| !self.given_up)?);
        let ahead = ahead.borrow();
        if self.read.as_ref().is_none_or(|read| read.batch != ahead.batch) {
            self.read = None;
            self.read = self.read(scan, conditions, &ahead);
        }
        let read = self.read.as_ref()?;
        read.lookups.rows(*read.places.get(&scan.lookup(conditions))?)
    }

    fn read(&mut self, scan: &mut Scan, conditions: &[(Shape, Operand)], ahead: &Ahead) -> Option<Read> {
        pending::check_unchanged(&scan.table);
        let constant = scan.constant(conditions);
        let mut places = HashMap::with_capacity(ahead.lookups.len());
        let mut accesses = Vec::new();
        for lookup in &ahead.lookups {
            if !places.contains_key(lookup) {
                places.insert(lookup.clone(), accesses.len());
                let joining = lookup.iter().filter_map(|(place, comparison, operand)| {
                    Some((scan.table.shape(*place, *comparison)?, operand.clone()))
                });
                accesses.push(scan.access(constant.iter().cloned().chain(joining).collect()));
            }
        }
        let mut lookups = Lookups::new(scan.needs, accesses, self.window);
        loop {
            let mut commands = Commands::default();
            lookups.ask(&mut commands);
            if commands.count == 0 {
                break;
            }
            scan.line().send(&commands);
            while lookups.is_waiting() {
                let reply = scan.line().receive();
                if let Err(problem) = lookups.answer(reply) {
                    scan.fail(&problem);
                }
                if lookups.bytes() > MOST_BYTES {
                    self.given_up = true;
                    // What is still on its way is nobody's.
                    scan.stop();
                    return None;
                }
            }
        }
        self.window = lookups.window().unwrap_or(self.window);
        let batch = ahead.batch;
        Some(Read {
            batch,
            places,
            lookups,
        })
    }
}
