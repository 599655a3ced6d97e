//! `warm`: loads rows into the cache.
//!
//! The table is walked in portions of pages, by ctid, each portion by a query and under a snapshot of its own: a
//! fill under an old snapshot is refused where rows have changed since (rule 3). The rows take the way of rows that
//! a SELECT has read, with their snapshot's bounds, and so a concurrent write always wins. A row that moves from a
//! page not yet read to one already read has been changed: its writer puts it into Redis.
//!
//! One query reads the same pages of all partitions, so that the privileges are those of the table itself. Rows
//! wait until the queue is less than a quarter full: fills may take half of it (`xact::fills`), commits have the
//! rest. Memory: a portion's rows as PostgreSQL has them, and one entry of the queue.
use std::time::Duration;

use pgrx::{
    PgSqlErrorCode,
    pg_sys::{self, Datum, Oid},
    prelude::*,
};

use super::{
    predicate::Predicate,
    raise,
    rows::{self, Plan, Session, Settings, Snapshot, Target},
    shared,
};
use crate::{
    capture::{
        relations::{self, Placed},
        scan::FillBatch,
    },
    compat, nodes,
    shared::{Phase, Progress, Shared},
    xact::waiting,
};

/// How many rows a portion should have. More pages are read where fewer rows are found, fewer where there are more.
const ROWS: u64 = 2000;
const FIRST_PAGES: u32 = 16;
const MOST_PAGES: u32 = 2048;
/// What one entry of the queue holds, in bytes of keys and values; less where the queue is small.
const ENTRY_BYTES: usize = 512 * 1024;
/// A row with a value larger than this is left out, as reads leave it out.
const VALUE_BYTES: usize = 4 * 1024 * 1024;
/// How long to wait for room before looking whether there is still somebody who makes it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Loads the rows of a mapping's table, or those that a condition holds for, and returns how many were handed to the
/// worker. Rows that were changed meanwhile, or may have been, are left to their writers.
#[pg_extern(volatile, parallel_unsafe)]
fn warm(mapping: Option<&str>, predicate: default!(Option<&str>, "NULL")) -> i64 {
    let shared = shared();
    let mapping = super::given(mapping);
    let target = Target::open(shared, mapping, "warm");
    check_transaction();
    check_connected(shared, target.mapping.index);
    let predicate = predicate.map(Predicate::new);
    let _settings = Settings::set();
    let progress = Progress::begin(shared, target.mapping.index, Phase::Loading);
    let plan = prepare(&target, predicate.as_ref());
    let mut pages = Pages::of(&target);
    let mut hand = Hand::new(shared, rows::placed(&target.mapping), progress);
    while let Some((first, behind)) = pages.take() {
        pgrx::check_for_interrupts!();
        target.check(shared);
        // The predicate may call what writes, too.
        check_transaction();
        // Before the snapshot is taken: it should be young when its rows arrive.
        hand.wait_for_room();
        let before = hand.read;
        load(&plan, &mut hand, first, behind);
        pages.fit(hand.read - before);
        hand.progress.at(hand.read, pages.expected(hand.read));
    }
    hand.handed as i64
}

/// Rule 1: rows of the own transaction must not get into Redis, also those whose change nobody captures (inserts).
fn check_transaction() {
    // SAFETY: a plain read of the transaction state.
    if unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "redis_cache.warm cannot run: this transaction has written",
            "Rows that are not committed must not get into Redis.",
            "Call it in a transaction of its own.",
        );
    }
}

fn check_connected(shared: Shared, mapping: u16) {
    if !shared.connected(shared.server_of(mapping)) {
        raise(
            PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
            "Redis is not connected",
            "The server of the mapping is meant.",
            "See redis_cache.servers.",
        );
    }
    if !relations::list_is_published() {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the list of mappings is changing",
            "This session has another list than the worker.",
            "Call it again in a moment.",
        );
    }
}

fn prepare(target: &Target, predicate: Option<&Predicate>) -> Plan {
    let mapping = &target.mapping;
    let table = rows::table(mapping);
    let query = format!(
        "SELECT {} FROM {table} WHERE {table}.ctid OPERATOR(pg_catalog.>=) $1 \
         AND {table}.ctid OPERATOR(pg_catalog.<) $2",
        rows::columns(mapping, &table),
    );
    let prepare = |query: &str| Plan::prepare(query, &mut [pg_sys::TIDOID, pg_sys::TIDOID]);
    match predicate {
        Some(predicate) => predicate.prepare(query, prepare),
        None => prepare(&query),
    }
}

/// The pages of a table's partitions, walked in step.
#[derive(Default)]
struct Pages {
    /// Pages of each partition, as they were at the start: newer rows are their writers' business.
    sizes: Vec<u32>,
    /// The first page not read yet.
    next: u32,
    /// How many to read at a time, of all partitions together.
    budget: u32,
}

impl Pages {
    fn of(target: &Target) -> Self {
        // SAFETY: within a transaction that holds a lock on the table; the partitions are locked here.
        let sizes = unsafe {
            let all = compat::find_all_inheritors(
                target.table,
                pg_sys::AccessShareLock as pg_sys::LOCKMODE,
                std::ptr::null_mut(),
            );
            nodes::oids(all).map(|relation| pages_of(relation)).collect()
        };
        Self {
            sizes,
            next: 0,
            budget: FIRST_PAGES,
        }
    }

    /// The next pages: the first, and the one behind the last.
    fn take(&mut self) -> Option<(u32, u32)> {
        let open = self.sizes.iter().filter(|size| **size > self.next).count() as u32;
        if open == 0 {
            return None;
        }
        let first = self.next;
        self.next = first.saturating_add((self.budget / open).max(1));
        Some((first, self.next))
    }

    /// A portion had that many rows.
    fn fit(&mut self, rows: u64) {
        if rows > ROWS * 2 {
            self.budget = (self.budget / 2).max(1);
        } else if rows < ROWS / 2 {
            self.budget = (self.budget * 2).min(MOST_PAGES);
        }
    }

    /// About how many rows there are, if so many have been read up to here.
    fn expected(&self, read: u64) -> u64 {
        let all: u64 = self.sizes.iter().map(|size| u64::from(*size)).sum();
        let behind: u64 = self
            .sizes
            .iter()
            .map(|size| u64::from(self.next.min(*size)))
            .sum();
        (u128::from(read) * u128::from(all) / u128::from(behind.max(1))) as u64
    }
}

unsafe fn pages_of(relation: Oid) -> u32 {
    // SAFETY: the caller holds a lock on the relation.
    unsafe {
        if pg_sys::get_rel_relkind(relation) as u8 != pg_sys::RELKIND_RELATION {
            return 0;
        }
        let opened = pg_sys::RelationIdGetRelation(relation);
        if opened.is_null() {
            return 0;
        }
        let pages = pg_sys::RelationGetNumberOfBlocksInFork(opened, pg_sys::ForkNumber::MAIN_FORKNUM);
        pg_sys::RelationClose(opened);
        pages
    }
}

/// `(page,0)`: below every row of the page.
fn tid(page: u32) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (page >> 16) as u16,
            bi_lo: page as u16,
        },
        ip_posid: 0,
    }
}

/// Reads the rows of some pages, under a snapshot of their own, and hands them on.
fn load(plan: &Plan, hand: &mut Hand, first: u32, behind: u32) {
    let (mut from, mut to) = (tid(first), tid(behind));
    let parameters = [Some(Datum::from(&raw mut from)), Some(Datum::from(&raw mut to))];
    let _session = Session::open();
    hand.batch.begin();
    let snapshot = Snapshot::take();
    plan.run(&parameters, |slot| {
        // SAFETY: a row of the query that `placed` was made for.
        unsafe { hand.take(slot) };
        if hand.is_full() {
            hand.over(&snapshot);
        }
    });
    hand.over(&snapshot);
}

/// Takes rows and hands them to the worker.
struct Hand {
    shared: Shared,
    placed: Placed,
    batch: FillBatch,
    /// Rows found so far, and those that were handed over.
    read: u64,
    handed: u64,
    progress: Progress,
}

impl Hand {
    fn new(shared: Shared, placed: Placed, progress: Progress) -> Self {
        Self {
            shared,
            placed,
            batch: FillBatch::default(),
            read: 0,
            handed: 0,
            progress,
        }
    }

    /// # Safety
    /// `slot` must hold a row that `placed` was made for.
    unsafe fn take(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        self.read += 1;
        let largest = VALUE_BYTES.min(self.shared.ring().capacity() as usize / 8);
        // SAFETY: as the caller promises.
        unsafe { self.batch.take_selected(&self.placed, slot, largest) };
    }

    fn is_full(&self) -> bool {
        let most = ENTRY_BYTES.min(self.shared.ring().capacity() as usize / 16);
        self.batch.entry_bytes() >= most
    }

    /// Hands over what has been taken. Where the queue has no room after all, because others have filled it, the
    /// rows are offered again: rule 3 is decided anew each time.
    fn over(&mut self, snapshot: &Snapshot) {
        while !self.batch.is_empty() {
            self.wait_for_room();
            // SAFETY: a snapshot that is active.
            if let Some(handed) = unsafe { self.batch.send(snapshot.get()) } {
                self.handed += handed as u64;
                self.batch.clear();
            }
        }
    }

    /// Waits until the queue is less than a quarter full.
    fn wait_for_room(&self) {
        let ring = self.shared.ring();
        let quarter = ring.capacity() / 4;
        if ring.used() < quarter {
            return;
        }
        self.progress.phase(Phase::Waiting);
        while ring.used() >= quarter {
            let position = ring.head() - quarter + 1;
            let has_room = |shared: Shared| shared.ring().tail() >= position;
            waiting::wait_until(self.shared, PATIENCE, has_room, None);
            check_connected(self.shared, self.placed.mapping.index);
        }
        self.progress.phase(Phase::Loading);
    }
}
