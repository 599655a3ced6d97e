//! INSERT, UPDATE, DELETE and COPY on a foreign table.
//!
//! Rows are gathered and written in batches, whose answers are awaited when the next one goes out, or at the
//! statement's end. What a statement still reads must not be changed under it, so these are written at the end alone:
//! changes of names and scores, of lists and zsets, and what is inserted by a statement that reads foreign tables.
use std::{collections::HashSet, ffi::c_int};

use pg_redis_cache_core::fdw::{
    Commands, Element, Kind, Reply, Role, interval, options,
    step::Key,
    writing::{self, APPENDED, Changes, Lifetime, Name, Put},
};
use pgrx::{
    PgSqlErrorCode, pg_guard,
    pg_sys::{self, CmdType},
};

use super::{
    cache, catalog, error,
    identity::Identity,
    line::Line,
    owned, pending,
    rows::{self, Texts, WrittenColumn},
    table::Table,
    when::{When, updated, when},
};
use crate::{compat, sql::raise};

/// How many bytes of new rows are gathered before they are written.
const BATCH_BYTES: usize = 1 << 20;

/// What a statement keeps in `ri_FdwState`.
struct Modify {
    table: Table,
    columns: Vec<WrittenColumn>,
    user: pg_sys::Oid,
    line: Line,
    /// New rows that are not written yet, and their bytes.
    new: Vec<Put>,
    new_bytes: usize,
    changes: Changes,
    identity: Option<Identity>,
    /// The columns that an UPDATE may change, by their place.
    updated: Vec<usize>,
    when: When,
    returns: bool,
    /// How many answers are still to come.
    awaited: usize,
}

/// IsForeignRelUpdatable.
#[pg_guard]
pub unsafe extern "C-unwind" fn updatable(relation: pg_sys::Relation) -> c_int {
    // SAFETY: an open foreign table of ours.
    let (_, _, given) = catalog::table(unsafe { (*relation).rd_id });
    // The mapping itself may not be active, and information_schema asks this of every table.
    if options::mapping(&given).is_some() {
        return 1 << CmdType::CMD_DELETE;
    }
    // SAFETY: as above.
    let table = unsafe { Table::of(relation) };
    let update = if table.options.kind == Kind::Stream {
        0
    } else {
        1 << CmdType::CMD_UPDATE
    };
    update | 1 << CmdType::CMD_INSERT | 1 << CmdType::CMD_DELETE
}

/// PlanForeignModify.
#[pg_guard]
pub unsafe extern "C-unwind" fn plan(
    _root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    _relation: pg_sys::Index,
    _subplan: c_int,
) -> *mut pg_sys::List {
    // SAFETY: the planner's own node.
    if unsafe { (*plan).onConflictAction } != pg_sys::OnConflictAction::ONCONFLICT_NONE {
        raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "ON CONFLICT is not supported on a table over Redis",
            "An INSERT there replaces what is called the same.",
            "Leave ON CONFLICT away.",
        );
    }
    std::ptr::null_mut()
}

/// BeginForeignModify.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::ModifyTableState,
    relation: *mut pg_sys::ResultRelInfo,
    _private: *mut pg_sys::List,
    _subplan: c_int,
    flags: c_int,
) {
    if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0 {
        return;
    }
    // SAFETY: a node that is being started, and one of its result relations.
    unsafe {
        let targets = match (*node).operation {
            CmdType::CMD_UPDATE | CmdType::CMD_DELETE => (*(*(*node).ps.lefttree).plan).targetlist,
            _ => std::ptr::null_mut(),
        };
        let returns = returns((*node).ps.plan.cast());
        start((*node).ps.state, relation, (*node).operation, targets, returns);
    }
}

/// BeginForeignInsert: COPY, and rows that are routed to a partition.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin_insert(
    node: *mut pg_sys::ModifyTableState,
    relation: *mut pg_sys::ResultRelInfo,
) {
    // SAFETY: as `begin`.
    unsafe {
        let plan = (*node).ps.plan.cast::<pg_sys::ModifyTable>();
        if !plan.is_null() && (*plan).onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE {
            self::plan(std::ptr::null_mut(), plan, 0, 0);
        }
        let returns = returns(plan);
        start(
            (*node).ps.state,
            relation,
            CmdType::CMD_INSERT,
            std::ptr::null_mut(),
            returns,
        );
    }
}

/// Whether the statement has a RETURNING list. COPY has no plan. (`ri_projectReturning` is set later.)
unsafe fn returns(plan: *const pg_sys::ModifyTable) -> bool {
    // SAFETY: null or a plan's node.
    unsafe { plan.as_ref() }.is_some_and(|plan| !plan.returningLists.is_null())
}

unsafe fn start(
    state: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    operation: CmdType::Type,
    targets: *mut pg_sys::List,
    returns: bool,
) {
    // SAFETY: as `begin`; the query's memory context outlives the statement's state.
    unsafe {
        let table = Table::of((*relation).ri_RelationDesc);
        let columns = rows::columns(&table);
        let identity = (!targets.is_null()).then(|| Identity::new(targets, &table, &columns));
        let updated = match operation {
            CmdType::CMD_UPDATE => updated(&table, relation, state),
            _ => Vec::new(),
        };
        let when = when(&table, operation, &updated, relation, state);
        if table.mapping.is_some() {
            table.check_is_cache();
        }
        let user = compat::modify_user(relation, state);
        let modify = Modify {
            user,
            line: cache::line_of(&table, user),
            changes: Changes::new(table.options.kind),
            table,
            columns,
            new: Vec::new(),
            new_bytes: 0,
            identity,
            updated,
            when,
            returns,
            awaited: 0,
        };
        (*relation).ri_FdwState = owned::keep((*state).es_query_cxt, modify).cast();
    }
}

/// What Redis makes up cannot be returned before it is written. Nothing of the statement has been written then.
fn check_returning(table: &Table, when: When) {
    if when == When::AtTheEnd || table.options.transactional {
        raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("this INSERT into a {} cannot have RETURNING", table.options.kind),
            "Ids and indexes are known once it has written: at COMMIT with transactional 'on', and at its end if it reads tables over Redis.",
            "",
        );
    }
}

/// The statement's state.
unsafe fn of<'m>(relation: *mut pg_sys::ResultRelInfo) -> &'m mut Modify {
    // SAFETY: `start` has put it there; it lives as long as the query's memory context.
    unsafe { &mut *(*relation).ri_FdwState.cast::<Modify>() }
}

/// ExecForeignInsert.
#[pg_guard]
pub unsafe extern "C-unwind" fn insert(
    _state: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    _plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: called by the executor with a row of the table.
    unsafe { of(relation).insert(slot) };
    slot
}

/// ExecForeignUpdate.
#[pg_guard]
pub unsafe extern "C-unwind" fn update(
    _state: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as `insert`; `plan_slot` is a row of the plan below.
    unsafe { of(relation).update(slot, plan_slot) };
    slot
}

/// ExecForeignDelete.
#[pg_guard]
pub unsafe extern "C-unwind" fn delete(
    _state: *mut pg_sys::EState,
    relation: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as `update`.
    unsafe { of(relation).delete(slot, plan_slot) };
    slot
}

/// EndForeignModify and EndForeignInsert.
#[pg_guard]
pub unsafe extern "C-unwind" fn end(_state: *mut pg_sys::EState, relation: *mut pg_sys::ResultRelInfo) {
    // SAFETY: null where the start did nothing, for EXPLAIN.
    unsafe {
        if !(*relation).ri_FdwState.is_null() {
            of(relation).finish();
        }
    }
}

impl Modify {
    unsafe fn insert(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: as the callback.
        let mut row = unsafe { Texts::of(&self.columns, slot) };
        let put = Put {
            key: row.key(&self.table),
            element: row.element(&self.table, true),
            lifetime: row.lifetime(&self.table, Lifetime::Plain),
        };
        if self.returns && self.makes_up(&put.element) {
            check_returning(&self.table, self.when);
            // SAFETY: as the callback.
            return unsafe { self.insert_and_return(put, slot) };
        }
        self.new_bytes += put.key.len() + put.element.size();
        self.new.push(put);
        match self.when {
            When::AtOnce => self.finish(),
            When::InBatches
                if self.new.len() >= self.table.options.batch_size || self.new_bytes >= BATCH_BYTES =>
            {
                self.write_new();
            }
            When::InBatches | When::AtTheEnd => {}
        }
    }

    /// Whether Redis makes up what a column shows.
    fn makes_up(&self, element: &Element) -> bool {
        match element {
            Element::Item { index, .. } => {
                *index == APPENDED && self.table.layout.place(&Role::Index).is_some()
            }
            Element::Entry { id, .. } => !interval::is_canonical(id),
            _ => false,
        }
    }

    unsafe fn insert_and_return(&mut self, put: Put, slot: *mut pg_sys::TupleTableSlot) {
        self.finish();
        let mut commands = Commands::default();
        writing::inserts(self.table.options.kind, vec![put], &mut commands);
        self.send(&commands);
        let first = self.receive();
        self.settle();
        let (role, text) = match first {
            Reply::Bulk(id) => (Role::Id, id),
            Reply::Integer(length) => (Role::Index, (length - 1).to_string().into_bytes()),
            _ => return,
        };
        if let Some(column) = self.columns.iter_mut().find(|column| column.role == role) {
            // SAFETY: the slot's values are all there since `Texts::of`; RETURNING reads this one next.
            unsafe {
                *(*slot).tts_values.add(column.place) = column.converter.read(&text);
                *(*slot).tts_isnull.add(column.place) = false;
            }
        }
    }

    unsafe fn update(&mut self, slot: *mut pg_sys::TupleTableSlot, plan_slot: *mut pg_sys::TupleTableSlot) {
        let Some(identity) = &self.identity else { return };
        // SAFETY: as the callback.
        let ((key, name), mut row) = unsafe {
            let old = identity.of(plan_slot, &self.table, &self.columns);
            (old, Texts::of(&self.columns, slot))
        };
        let new_key = row.key(&self.table);
        let moves = new_key != key;
        let is_set = |role: &Role| {
            self.table
                .layout
                .place(role)
                .is_some_and(|place| self.updated.contains(&place))
        };
        // A column ttl that the statement leaves alone leaves the time to live alone.
        let lifetime = if row.has_ttl() && !is_set(&Role::Ttl) && !moves {
            Lifetime::Kept
        } else {
            row.lifetime(&self.table, Lifetime::Kept)
        };
        if matches!(name, Name::At { .. }) && (moves || is_set(&Role::Index) && row.index_differs(&name)) {
            raise(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "an element of a list cannot be moved",
                "An UPDATE can change its value, not its key or index.",
                "DELETE it and INSERT it where it is to be.",
            );
        }
        let only_ttl = !moves
            && !self.updated.is_empty()
            && self
                .updated
                .iter()
                .all(|place| self.table.layout.role(*place) == Some(&Role::Ttl));
        if only_ttl {
            self.changes.expire(key, lifetime);
        } else {
            let put = Put {
                key: new_key,
                element: row.element(&self.table, false),
                lifetime,
            };
            self.changes.update(key, name, put);
        }
        self.changed();
    }

    unsafe fn delete(&mut self, slot: *mut pg_sys::TupleTableSlot, plan_slot: *mut pg_sys::TupleTableSlot) {
        let Some(identity) = &self.identity else { return };
        // SAFETY: as the callback.
        let (key, name) = unsafe {
            if self.returns {
                identity.return_row(plan_slot, slot);
            }
            identity.of(plan_slot, &self.table, &self.columns)
        };
        if let Some(mapping) = &self.table.mapping {
            return mapping.delete(&key, self.when == When::AtOnce);
        }
        self.changes.delete(key, name);
        self.changed();
    }

    fn changed(&mut self) {
        match self.when {
            When::AtOnce => self.finish(),
            When::InBatches if self.changes.len() >= self.table.options.batch_size => self.write_changes(),
            When::InBatches | When::AtTheEnd => {}
        }
    }

    fn write_new(&mut self) {
        let keys = self.table.options.transactional.then(|| {
            let keys = self.new.iter().map(|put| put.key.clone());
            keys.collect()
        });
        let mut commands = Commands::default();
        let kind = self.table.options.kind;
        writing::inserts(kind, std::mem::take(&mut self.new), &mut commands);
        self.new_bytes = 0;
        self.write(commands, keys);
    }

    fn write_changes(&mut self) {
        let keys = self.table.options.transactional.then(|| self.changes.keys());
        let mut commands = Commands::default();
        self.changes.take(&mut commands);
        self.write(commands, keys);
    }

    /// Sends a batch, when the one before it is answered, or keeps it until COMMIT where there are `keys`.
    fn write(&mut self, commands: Commands, keys: Option<HashSet<Key>>) {
        if let Some(keys) = keys {
            return pending::add(&self.table, self.user, commands, keys);
        }
        self.settle();
        self.send(&commands);
    }

    /// Writes all that is left, and waits for every answer.
    fn finish(&mut self) {
        if let Some(mapping) = &self.table.mapping {
            mapping.delete_gathered();
        }
        if !self.new.is_empty() {
            self.write_new();
        }
        if !self.changes.is_empty() {
            self.write_changes();
        }
        self.settle();
    }

    fn send(&mut self, commands: &Commands) {
        self.line.send(commands);
        self.awaited += commands.count;
    }

    fn receive(&mut self) -> Reply {
        let reply = self.line.receive();
        self.awaited -= 1;
        if let Some(text) = reply.error() {
            error::change_refused(text);
        }
        reply
    }

    fn settle(&mut self) {
        while self.awaited > 0 {
            self.receive();
        }
    }
}
