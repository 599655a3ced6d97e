//! The inner side of a join with look-ahead: reads for many outer rows, and hands out to each its own.
use std::rc::Rc;

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
    /// What has been read of a batch.
    read: Option<Read>,
    window: usize,
    /// How many look-ups are made at a time; 1: the scan does it by itself.
    at_once: usize,
}

struct Read {
    batch: u64,
    /// The place of the first of the look-ups.
    from: usize,
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
            at_once: usize::MAX,
        })
    }

    /// The rows for the outer row for which the scan's conditions have these operands; none if the scan must read them
    /// by itself.
    pub fn rows(&mut self, scan: &mut Scan, conditions: &[(Shape, Operand)]) -> Option<Vec<Rc<Row>>> {
        if self.ahead.is_none() {
            self.ahead = find(self.state, self.number);
        }
        let ahead = Rc::clone(self.ahead.as_ref()?);
        let ahead = ahead.borrow();
        if !scan.is_lookup(conditions, ahead.lookups.get(ahead.current)?) {
            return None;
        }
        if let Some(read) = self.read.as_ref().filter(|read| read.batch == ahead.batch)
            && let lookup = ahead.current - read.from
            && lookup < read.lookups.len()
        {
            return read.lookups.rows(lookup);
        }
        self.read = None;
        self.read(scan, conditions, &ahead);
        self.read.as_ref()?.lookups.rows(0)
    }

    /// Reads from the present look-up of a batch on as many as do not come to too much.
    fn read(&mut self, scan: &mut Scan, conditions: &[(Shape, Operand)], ahead: &Ahead) {
        let constant = scan.constant(conditions);
        let remaining = &ahead.lookups[ahead.current..];
        while self.at_once > 1 {
            let lookups = remaining.iter().take(self.at_once);
            let accesses: Vec<Access> = lookups.map(|lookup| access(scan, &constant, lookup)).collect();
            let count = accesses.len();
            if let Some(lookups) = read(scan, Lookups::new(scan.needs, accesses, self.window)) {
                self.window = lookups.window().unwrap_or(self.window);
                self.read = Some(Read {
                    batch: ahead.batch,
                    from: ahead.current,
                    lookups,
                });
                return;
            }
            self.at_once = (count / SHRINKING).max(1);
        }
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
