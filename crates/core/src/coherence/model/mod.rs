//! An exhaustive search over small histories: two or three writers, one or two readers, one slot.
//!
//! What is decided, the real code decides: each step loads a state into real [`Slots`] and [`Gates`],
//! calls the method that the worker or a backend would call, and reads the state back. What happens
//! between the decisions (transactions, the ring, lanes, a purge, Redis) is modelled, step by step,
//! each step that others can come between being a step of its own:
//!
//! - a writer gets its xid, changes its rows (row locks held), takes its number, becomes visible,
//!   and only then appends, or loses what it should have appended;
//! - a reader takes a snapshot as PostgreSQL does, notes, tests, and appends;
//! - the worker takes an entry, runs its commands one by one, acknowledges, and may be restarted
//!   anywhere in between, whereupon it takes what was not acknowledged again;
//! - a purge reads the epoch, waits for what was in the ring, and deletes the keys one by one.
//!
//! In every state it is asserted that no value in Redis is older than one that was there before, and
//! that whenever nothing is under way, what is in Redis is the row. Each of the [`Mutant`]s leaves
//! out one condition, and has to be caught: this is what says that the condition is needed and that
//! the search would see it missing.
//!
//! Not here: lanes and resending (rule 5), the marker (rule 8), and anything that needs more than
//! three transactions or three keys to go wrong.
//!
//! [`Slots`]: super::slots::Slots
//! [`Gates`]: super::mappings::Gates

mod decisions;
mod search;
mod state;

use decisions::Mutant;
use search::{Case, Change, search};

const A: u8 = 0;
const B: u8 = 1;
const UPDATE_A: &[(u8, Change)] = &[(A, Change::Update)];
const UPDATE_B: &[(u8, Change)] = &[(B, Change::Update)];
const UPDATE_BOTH: &[(u8, Change)] = &[(A, Change::Update), (B, Change::Update)];
const DELETE_A: &[(u8, Change)] = &[(A, Change::Delete)];
const INSERT_A: &[(u8, Change)] = &[(A, Change::UncapturedInsert)];

/// Nothing lost, no restart, no reader between two stores.
const PLAIN: Case = Case {
    writers: &[],
    readers: &[],
    lossy: false,
    restarts: 0,
    torn: false,
};

const TWO_ON_ONE_KEY: Case = Case {
    writers: &[UPDATE_A, UPDATE_A],
    readers: &[&[A]],
    ..PLAIN
};
const TWO_AND_TWO_READERS: Case = Case {
    readers: &[&[A], &[A]],
    ..TWO_ON_ONE_KEY
};
const TWO_KEYS_TWO_READERS: Case = Case {
    writers: &[UPDATE_A, UPDATE_B],
    readers: &[&[A], &[B]],
    ..PLAIN
};
const BOTH_KEYS_AT_ONCE: Case = Case {
    writers: &[UPDATE_BOTH, UPDATE_A],
    readers: &[&[A]],
    ..PLAIN
};
const A_SCAN_OF_BOTH_KEYS: Case = Case {
    writers: &[UPDATE_A, UPDATE_B],
    readers: &[&[A, B]],
    ..PLAIN
};
const TWO_SCANS_OF_BOTH_KEYS: Case = Case {
    readers: &[&[A, B], &[A, B]],
    ..A_SCAN_OF_BOTH_KEYS
};
const THREE_WRITERS: Case = Case {
    writers: &[UPDATE_A, UPDATE_A, UPDATE_B],
    readers: &[&[A]],
    ..PLAIN
};
const THREE_ON_ONE_KEY: Case = Case {
    writers: &[UPDATE_A, UPDATE_A, UPDATE_A],
    readers: &[&[A]],
    ..PLAIN
};
const ONE_AND_TWO_READERS: Case = Case {
    writers: &[UPDATE_A],
    readers: &[&[A], &[A]],
    ..PLAIN
};
const LOSSY: Case = Case {
    lossy: true,
    ..TWO_ON_ONE_KEY
};
const LOSSY_TWO_KEYS: Case = Case {
    writers: &[UPDATE_A, UPDATE_B],
    ..LOSSY
};
const LOSSY_TWO_READERS: Case = Case {
    lossy: true,
    ..TWO_AND_TWO_READERS
};
const DELETED: Case = Case {
    writers: &[UPDATE_A, DELETE_A],
    ..TWO_ON_ONE_KEY
};
const DELETED_LOSSY: Case = Case {
    lossy: true,
    ..DELETED
};
const DELETED_TWO_READERS: Case = Case {
    writers: &[UPDATE_A, DELETE_A],
    ..TWO_AND_TWO_READERS
};
const DELETED_AND_BACK: Case = Case {
    writers: &[UPDATE_A, DELETE_A, INSERT_A],
    ..TWO_ON_ONE_KEY
};
const DELETED_AND_BACK_LOSSY: Case = Case {
    lossy: true,
    ..DELETED_AND_BACK
};
const TORN: Case = Case {
    torn: true,
    ..TWO_ON_ONE_KEY
};
const TORN_LOSSY: Case = Case { torn: true, ..LOSSY };
const RESTARTED: Case = Case {
    restarts: 1,
    ..TWO_ON_ONE_KEY
};
const RESTARTED_TWICE: Case = Case {
    restarts: 2,
    ..TWO_ON_ONE_KEY
};
const RESTARTED_TWO_KEYS: Case = Case {
    restarts: 1,
    ..A_SCAN_OF_BOTH_KEYS
};
const RESTARTED_LOSSY: Case = Case { restarts: 1, ..LOSSY };
const RESTARTED_TORN: Case = Case {
    restarts: 1,
    ..TORN_LOSSY
};
const RESTARTED_DELETED: Case = Case {
    restarts: 1,
    ..DELETED
};
const RESTARTED_ONE_AND_TWO_READERS: Case = Case {
    restarts: 1,
    ..ONE_AND_TWO_READERS
};
const RESTARTED_TWO_READERS: Case = Case {
    restarts: 1,
    ..TWO_AND_TWO_READERS
};

fn holds(case: Case) {
    let found = search(&case, Mutant::None);
    assert!(
        found.violation.is_none(),
        "{}",
        found.violation.unwrap_or_default()
    );
    println!("{} states", found.states);
}

macro_rules! holds {
    ($($name:ident: $case:expr;)*) => {
        $(#[test] fn $name() { holds($case) })*
    };
}

holds! {
    two_writers_of_one_key_and_a_reader: TWO_ON_ONE_KEY;
    two_writers_of_one_key_and_two_readers: TWO_AND_TWO_READERS;
    two_keys_in_one_slot_and_a_reader_of_each: TWO_KEYS_TWO_READERS;
    a_writer_of_both_keys_and_one_of_one: BOTH_KEYS_AT_ONCE;
    a_scan_that_fills_both_keys_of_a_slot: A_SCAN_OF_BOTH_KEYS;
    two_scans_that_fill_both_keys_of_a_slot: TWO_SCANS_OF_BOTH_KEYS;
    three_writers_of_two_keys: THREE_WRITERS;
    three_writers_of_one_key: THREE_ON_ONE_KEY;
    a_writer_and_two_readers: ONE_AND_TWO_READERS;
    a_writer_that_cannot_append: LOSSY;
    a_writer_that_cannot_append_beside_another_key: LOSSY_TWO_KEYS;
    a_writer_that_cannot_append_and_two_readers: LOSSY_TWO_READERS;
    a_row_that_is_deleted: DELETED;
    a_deletion_that_cannot_be_appended: DELETED_LOSSY;
    a_row_that_is_deleted_and_two_readers: DELETED_TWO_READERS;
    a_row_that_is_deleted_and_inserted_unnoticed: DELETED_AND_BACK;
    a_row_that_is_deleted_and_inserted_unnoticed_with_losses: DELETED_AND_BACK_LOSSY;
    a_reader_between_the_stores_of_a_write: TORN;
    a_reader_between_the_stores_of_a_loss: TORN_LOSSY;
    a_worker_that_is_restarted: RESTARTED;
    a_worker_that_is_restarted_twice: RESTARTED_TWICE;
    a_worker_that_is_restarted_with_two_keys_in_a_slot: RESTARTED_TWO_KEYS;
    a_worker_that_is_restarted_while_purging: RESTARTED_LOSSY;
    a_worker_that_is_restarted_between_two_stores: RESTARTED_TORN;
    a_worker_that_is_restarted_around_a_deletion: RESTARTED_DELETED;
    a_worker_that_is_restarted_under_a_writer_and_two_readers: RESTARTED_ONE_AND_TWO_READERS;
    a_worker_that_is_restarted_under_two_writers_and_two_readers: RESTARTED_TWO_READERS;
}

/// Whether the search finds what goes wrong without a condition, in a history that holds with it.
fn is_caught(mutant: Mutant, case: Case) {
    let found = search(&case, mutant);
    let Some(violation) = found.violation else {
        panic!("{mutant:?} is not caught in {} states", found.states)
    };
    println!("{mutant:?}, after {} states: {violation}", found.states);
}

macro_rules! needed {
    ($($name:ident: $mutant:ident in $case:expr;)*) => {
        $(#[test] fn $name() { is_caught(Mutant::$mutant, $case) })*
    };
}

needed! {
    the_slots_floor_is_needed: NoFloor in TWO_ON_ONE_KEY;
    the_slots_version_is_needed: NoVersion in TWO_ON_ONE_KEY;
    noting_before_testing_is_needed: TestBeforeNote in TWO_ON_ONE_KEY;
    the_floor_before_the_version_is_needed: VersionBeforeFloor in TORN;
    the_test_against_applied_is_needed: NoApplied in TWO_ON_ONE_KEY;
    a_fill_that_raises_applied_is_needed: FillLeavesApplied in TWO_ON_ONE_KEY;
    a_deletion_that_raises_applied_is_needed: DelLeavesApplied in DELETED;
    the_test_of_the_older_snapshot_is_needed: NoSeen in TWO_AND_TWO_READERS;
    the_epoch_of_a_write_is_needed: OldEpochsWrite in LOSSY;
    the_epoch_of_a_fill_is_needed: OldEpochsFill in LOSSY;
    the_mappings_floor_is_needed: NoMappingFloor in LOSSY;
    the_floor_before_the_epoch_is_needed: EpochBeforeFloor in TORN_LOSSY;
    a_purge_that_waits_for_the_ring_is_needed: PurgeWithoutBarrier in RESTARTED_LOSSY;
    a_purge_that_stores_what_it_read_is_needed: PurgedTooFar in LOSSY;
    a_tail_that_waits_for_the_answer_is_needed: AcknowledgedEarly in RESTARTED;
}
