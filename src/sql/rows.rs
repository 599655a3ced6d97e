//! Reading a mapping's table by queries of our own: what `verify` and `warm` have in common.
//!
//! The queries run with the caller's privileges, each under a new snapshot ([`Snapshot`]), and fill nothing by
//! themselves ([`Settings`]). Their rows have the key columns first and the value columns behind them, in the
//! mapping's order and whatever partition they come from, so that they are encoded as captured rows are.
//!
//! After an ERROR the server's own clean-up of the (sub)transaction takes back connection, snapshot and settings:
//! the guards here do so only on the way that ends well.
use std::{
    ffi::{CString, c_int},
    rc::Rc,
};

use pgrx::{
    PgSqlErrorCode,
    pg_sys::{self, Datum, Oid},
};

use super::{
    keys::{self, Found},
    raise,
};
use crate::{
    capture::relations::{self, ActiveMapping, Placed},
    nodes,
    shared::Shared,
    xact,
};

/// A mapping whose table is locked against DDL until the transaction ends.
pub struct Target {
    pub mapping: Rc<ActiveMapping>,
    pub table: Oid,
    function: &'static str,
}

impl Target {
    /// Finds an active mapping of this database and locks its table, or raises. `function` is the one that asks.
    pub fn open(shared: Shared, name: &str, function: &'static str) -> Self {
        check_isolation(function);
        let first = keys::find(shared, name).mapping;
        // SAFETY: within a transaction.
        unsafe {
            pg_sys::LockRelationOid(
                relations::table_of(&first.definition),
                pg_sys::AccessShareLock as pg_sys::LOCKMODE,
            );
        }
        // What it was before the lock may have changed.
        let Found { mapping } = keys::find(shared, name);
        let table = relations::table_of(&mapping.definition);
        check_row_security(table, name, function);
        let target = Self {
            mapping,
            table,
            function,
        };
        target.check(shared);
        target
    }

    /// Raises if the mapping is no longer what it was, because the list has changed or the table does not fit any
    /// more, or if this transaction has changed rows of it.
    pub fn check(&self, shared: Shared) {
        let (name, function) = (&self.mapping.definition.name, self.function);
        if shared.active_mapping(self.mapping.fingerprint) != Some(self.mapping.index) {
            raise(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("mapping \"{name}\" is not active any more"),
                "",
                "See redis_cache.mappings.",
            );
        }
        if xact::has_changes(self.mapping.index) {
            raise(
                PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
                format!(
                    "redis_cache.{function} cannot run: this transaction has changed rows of mapping \"{name}\""
                ),
                "Redis gets them when the transaction commits.",
                "Call it in a transaction of its own.",
            );
        }
    }
}

fn check_isolation(function: &str) {
    // SAFETY: a plain variable of this process.
    if unsafe { pg_sys::XactIsoLevel } >= pg_sys::XACT_REPEATABLE_READ as c_int {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            format!("redis_cache.{function} needs a transaction of isolation level READ COMMITTED"),
            "It reads the table under many snapshots.",
            "Use BEGIN ISOLATION LEVEL READ COMMITTED, or no BEGIN at all.",
        );
    }
}

/// Whoever does not see every row would take the keys of the others for keys without a row.
fn check_row_security(table: Oid, name: &str, function: &str) {
    // SAFETY: catalog look-ups within a transaction.
    let enabled = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    if enabled == pg_sys::CheckEnableRlsResult::RLS_ENABLED as c_int {
        raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!(
                "redis_cache.{function} cannot run: row-level security hides rows of mapping \"{name}\" from this role"
            ),
            "",
            "Call it as the table's owner, or as a role with BYPASSRLS.",
        );
    }
}

/// How the rows of [`columns`] are placed: for the functions of `capture::row`.
pub fn placed(mapping: &Rc<ActiveMapping>) -> Placed {
    // A table has at most 1600 columns, a key at most 32 (INDEX_MAX_KEYS): far below i16::MAX.
    let (keys, values) = (mapping.key.len() as i16, mapping.value.len() as i16);
    Placed {
        mapping: Rc::clone(mapping),
        key_attributes: (1..=keys).collect(),
        value_attributes: (keys + 1..=keys + values).collect(),
    }
}

/// The columns that a query selects, as SQL.
pub fn columns(mapping: &ActiveMapping, of: &str) -> String {
    let all = mapping.key.iter().chain(&mapping.value);
    let names: Vec<String> = all
        .map(|column| format!("{of}.{}", quoted(&column.name)))
        .collect();
    names.join(", ")
}

/// The mapped table, as SQL.
pub fn table(mapping: &ActiveMapping) -> String {
    let definition = &mapping.definition;
    format!("{}.{}", quoted(&definition.schema), quoted(&definition.table))
}

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A connection to SPI, in whose memory context everything is allocated meanwhile.
pub struct Session;

impl Session {
    pub fn open() -> Self {
        // SAFETY: within a transaction.
        let connected = unsafe { pg_sys::SPI_connect() };
        check("SPI_connect", connected, pg_sys::SPI_OK_CONNECT);
        Self
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: connected by `open`, and every session opened since has been closed.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// A new active snapshot.
pub struct Snapshot;

impl Snapshot {
    pub fn take() -> Self {
        // SAFETY: within a transaction.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        Self
    }

    /// The active snapshot itself.
    pub fn get(&self) -> pg_sys::Snapshot {
        // SAFETY: `take` has pushed it.
        unsafe { pg_sys::GetActiveSnapshot() }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: pushed by `take`, and all that was pushed since has been popped.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

/// The session's settings as our own queries need them: their scans fill nothing, and read by ctid.
pub struct Settings(c_int);

impl Settings {
    pub fn set() -> Self {
        // SAFETY: as a function with a SET clause does (fmgr.c, fmgr_security_definer).
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in [(c"pg_redis_cache.fill", c"off"), (c"enable_tidscan", c"on")] {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Self(level)
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level that `set` began.
            unsafe { pg_sys::AtEOXact_GUC(true, self.0) };
        }
    }
}

/// A prepared query, until it goes.
pub struct Plan(pg_sys::SPIPlanPtr);

impl Plan {
    /// Prepares a query with parameters of these types. It is planned once for all values: they would not change
    /// the plan.
    pub fn prepare(sql: &str, types: &mut [Oid]) -> Self {
        let sql = CString::new(sql).unwrap_or_else(|_| {
            raise(
                PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                "a NUL character is no SQL",
                "",
                "",
            )
        });
        let _session = Session::open();
        // SAFETY: connected; the types are read during the call.
        unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                sql.as_ptr(),
                types.len() as c_int,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as c_int,
            );
            if plan.is_null() {
                check("SPI_prepare_cursor", pg_sys::SPI_result, 0);
            }
            check("SPI_keepplan", pg_sys::SPI_keepplan(plan), 0);
            Self(plan)
        }
    }

    /// Runs the query under the active snapshot and hands each row to `each`, which allocates in a context that is
    /// emptied behind it. A [`Session`] must be open. NULL parameters are `None`.
    pub fn run(&self, values: &[Option<Datum>], mut each: impl FnMut(*mut pg_sys::TupleTableSlot)) {
        let mut datums: Vec<Datum> = values
            .iter()
            .map(|value| value.unwrap_or_else(|| Datum::from(0)))
            .collect();
        let nulls: Vec<_> = values
            .iter()
            .map(|value| if value.is_none() { b'n' } else { b' ' } as std::ffi::c_char)
            .collect();
        // SAFETY: as many values as the plan has parameters; the rows live until the session is closed.
        unsafe {
            let ran = pg_sys::SPI_execute_plan(self.0, datums.as_mut_ptr(), nulls.as_ptr(), true, 0);
            check("SPI_execute_plan", ran, pg_sys::SPI_OK_SELECT);
            let found = pg_sys::SPI_tuptable;
            let memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"pg_redis_cache row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let slot = pg_sys::MakeSingleTupleTableSlot((*found).tupdesc, &raw const pg_sys::TTSOpsHeapTuple);
            for row in 0..(*found).numvals as usize {
                pg_sys::ExecStoreHeapTuple(*(*found).vals.add(row), slot, false);
                let previous = pg_sys::MemoryContextSwitchTo(memory);
                each(slot);
                pg_sys::MemoryContextSwitchTo(previous);
                pg_sys::MemoryContextReset(memory);
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::MemoryContextDelete(memory);
            pg_sys::SPI_freetuptable(found);
        }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: a kept plan, which is not running.
        unsafe { pg_sys::SPI_freeplan(self.0) };
    }
}

/// SPI reports its caller's mistakes as codes.
fn check(call: &str, code: c_int, wanted: impl TryInto<c_int>) {
    if wanted.try_into().ok() != Some(code) {
        // SAFETY: returns a constant text.
        let name = unsafe { nodes::bytes(pg_sys::SPI_result_code_string(code)) };
        raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("{call} failed: {}", String::from_utf8_lossy(name)),
            "",
            "",
        );
    }
}
