//! The cargo feature `tap_all`, for `make pg-regress` alone: every table of the user counts as mapped.
//!
//! Each table gets a mapping of its own making: its first column is the key, all of its columns are the value,
//! every row that is inserted, changed, deleted or read is taken. So a statement goes through all that a mapped
//! table's statement goes through, up to the text of each value, and the server's own tests show whether it
//! behaves as without. All these mappings have the number 0, which the list in force never gives to them: what
//! is captured goes no further than the ring. How much was tapped is logged by each backend when it ends.
//!
//! In a build without the feature `cfg!` makes every use of this module dead code.
use std::cell::Cell;

use pg_redis_cache_core::config::{Columns, Fill, Format, Insert, Mapping, Write, quote_name};
use pgrx::{
    PgLogLevel, PgSqlErrorCode, pg_guard,
    pg_sys::{self, Datum, Oid, panic::ErrorReport},
};

use super::columns;
use crate::nodes;

/// Whether this build taps everything.
pub const TAP_ALL: bool = cfg!(feature = "tap_all");

/// The number of every mapping made here.
pub const MAPPING: u16 = 0;

/// What is counted.
#[derive(Clone, Copy)]
pub enum Count {
    /// `ModifyTable` nodes with a tap.
    ModifyTaps,
    /// Scan nodes with a tap.
    ScanTaps,
    /// Rows taken from `ModifyTable` nodes.
    ChangedRows,
    /// Rows taken from scan nodes.
    ReadRows,
    /// Relations of which a transaction was seen to change all that it changed.
    Complete,
    /// Relations of which it was not.
    Incomplete,
}

thread_local! {
    static COUNTS: [Cell<u64>; 6] = const { [const { Cell::new(0) }; 6] };
    static REPORTS: Cell<bool> = const { Cell::new(false) };
}

/// Counts, where this build taps everything.
pub fn count(what: Count) {
    if !TAP_ALL {
        return;
    }
    COUNTS.with(|counts| {
        let count = &counts[what as usize];
        count.set(count.get() + 1);
    });
    if !REPORTS.replace(true) {
        // SAFETY: registered once in the life of the process.
        unsafe { pg_sys::on_proc_exit(Some(report), Datum::from(0)) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn report(_code: std::ffi::c_int, _argument: Datum) {
    let [modify, scans, changed, read, complete, incomplete] =
        COUNTS.with(|counts| counts.each_ref().map(Cell::get));
    let text = format!(
        "tap_all: {modify} modify taps, {scans} scan taps, {changed} changed rows, {read} read rows, {complete} complete, {incomplete} incomplete"
    );
    log(text);
}

fn log(text: String) {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, text, "report")
        .report(PgLogLevel::LOG_SERVER_ONLY);
}

/// Counts whether completeness held for a relation in a transaction, and logs where it did not.
pub fn compared(relid: Oid, complete: bool, what: &str) {
    count(if complete {
        Count::Complete
    } else {
        Count::Incomplete
    });
    if !complete {
        // SAFETY: a catalog look-up within a transaction; null for a relation that is gone.
        let name = unsafe { nodes::bytes(pg_sys::get_rel_name(relid)) };
        log(format!(
            "tap_all: incomplete: {}: {what}",
            String::from_utf8_lossy(name)
        ));
    }
}

/// Whether a relation is a table, partitioned or not.
pub fn is_table(relid: Oid) -> bool {
    // SAFETY: a catalog look-up within a transaction.
    let kind = unsafe { pg_sys::get_rel_relkind(relid) } as u8;
    kind == pg_sys::RELKIND_RELATION || kind == pg_sys::RELKIND_PARTITIONED_TABLE
}

/// The mapping of a table; `None` if it has no columns.
pub fn mapping_of(relid: Oid) -> Option<Mapping> {
    let first = columns::live_columns(relid).into_iter().next()?;
    let template = format!("tap_all:{}:{{{}}}", relid.to_u32(), quote_name(&first));
    Some(Mapping {
        name: String::new(),
        database: None,
        server: None,
        template: template.parse().ok()?,
        schema: String::new(),
        table: String::new(),
        columns: Columns::All,
        format: if relid.to_u32().is_multiple_of(2) {
            Format::Hash
        } else {
            Format::Json
        },
        ttl: None,
        fill: Fill::Any,
        write: Write::Set,
        insert: Insert::Set,
        allow_rls: true,
    })
}
