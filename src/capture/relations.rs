//! Which relations are mapped, as this backend sees it.
//!
//! The list in force comes from the settings; whether a mapping is active, and under which number, from shared
//! memory, where the resolver has put it after checking the table and its unique index. What is kept of each
//! relation ([`mapped`](super::mapped)) is forgotten on relation cache invalidation.
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    ffi::CString,
    rc::Rc,
};

use pg_redis_cache_core::{
    coherence::Reason,
    config::{self, Mapping},
};
use pgrx::{
    pg_guard,
    pg_sys::{self, Datum, Oid},
};
use rustc_hash::FxHashMap;

pub use super::mapped::{ActiveMapping, MappedRelation, Placed};
use super::{
    columns::MappedColumn,
    mapped::Definition,
    tap_all::{self, TAP_ALL},
    text,
};
use crate::{gucs, nodes, shared::Shared, xact};

/// A mapping of the list in force that belongs to this database.
struct Local {
    index: u16,
    fingerprint: u64,
    definition: Rc<Mapping>,
    root: Oid,
}

#[derive(Default)]
struct Known {
    list: Vec<Local>,
    fingerprint: u64,
    roots_known: bool,
    relations: FxHashMap<Oid, Option<Rc<MappedRelation>>>,
}

#[derive(Default)]
struct Invalidated {
    everything: bool,
    relations: Vec<Oid>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::default());
    static INVALIDATED: RefCell<Invalidated> = RefCell::new(Invalidated::default());
    /// Whether the list in force has a mapping of this database.
    static ANY_MAPPED: Cell<bool> = const { Cell::new(false) };
    static GENERATION: Cell<u64> = const { Cell::new(u64::MAX) };
    static CALLBACKS: Cell<bool> = const { Cell::new(false) };
}

/// Whether any relation of this database is mapped. Cheap: called for every statement.
pub fn any_mapped() -> bool {
    let Some(shared) = Shared::get() else { return false };
    if gucs::take_list_changed() || GENERATION.get() != shared.generation() {
        refresh(shared);
    }
    TAP_ALL || ANY_MAPPED.get()
}

/// The generation of the list that this backend works with.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Notes, for rule 9, under which generation of the list a statement runs. Returns whether any relation of this
/// database is mapped: a statement that captures nothing because its mapping is not active yet must be known,
/// too, when the mapping becomes active before the commit.
pub fn note_statement() -> bool {
    let any = any_mapped();
    if any {
        xact::completeness::note_statement();
    }
    xact::note_generation(GENERATION.get());
    any
}

/// [`idle`], with the statement noted if it is so.
pub fn note_if_idle() -> bool {
    let idle = idle();
    if idle {
        xact::note_generation(GENERATION.get());
    }
    idle
}

/// Marks every mapping of this database for a purge at commit.
pub fn purge_all(reason: Reason) {
    let mappings: Vec<u16> = KNOWN.with_borrow(|known| known.list.iter().map(|local| local.index).collect());
    mappings
        .into_iter()
        .for_each(|mapping| xact::purge(mapping, reason));
}

/// Marks the mappings of a database for a purge at commit. Returns whether there are any.
pub fn purge_database(database: &str) -> bool {
    let Some(shared) = Shared::get() else { return false };
    let default = gucs::text(&gucs::DATABASE);
    let mappings: Vec<u16> = configured()
        .iter()
        .filter(|mapping| mapping.effective_database(&default) == database)
        .filter_map(|mapping| shared.mapping_of(mapping.fingerprint(&default)))
        .collect();
    mappings
        .iter()
        .for_each(|mapping| xact::purge(*mapping, Reason::Ddl));
    !mappings.is_empty()
}

/// Marks the mappings of this database for a purge that store rows of a relation in a column.
pub fn purge_with_rows_of(object: Oid) {
    let roots: Vec<Oid> = KNOWN.with_borrow(|known| known.list.iter().map(|local| local.root).collect());
    for relation in roots.into_iter().filter_map(lookup) {
        for placed in &relation.mappings {
            let columns = placed.mapping.key.iter().chain(&placed.mapping.value);
            let holds = |column: &MappedColumn| {
                // SAFETY: within a transaction.
                column.writer.holds_rows && unsafe { text::holds_rows_of(column.type_id, object, 0) }
            };
            if columns.into_iter().any(holds) {
                xact::purge(placed.mapping.index, Reason::Ddl);
                xact::note_text_ddl();
            }
        }
    }
}

/// Whether nothing is mapped anywhere in the server, and nothing has changed since that was found out. Raises
/// nothing and calls nothing: what a server without mappings pays for each hook.
pub fn idle() -> bool {
    !TAP_ALL
        && !ANY_MAPPED.get()
        && !gucs::list_changed()
        && Shared::get()
            .is_none_or(|shared| shared.published() == 0 && GENERATION.get() == shared.generation())
}

/// Whether this backend reads the list that the worker has published.
pub fn list_is_published() -> bool {
    Shared::get().is_some_and(|shared| KNOWN.with_borrow(|known| known.fingerprint) == shared.published())
}

/// The fingerprint of this backend's own list: 0 when it is empty or turned off.
pub fn local_fingerprint() -> u64 {
    if gucs::take_list_changed()
        && let Some(shared) = Shared::get()
    {
        refresh(shared);
    }
    KNOWN.with_borrow(|known| known.fingerprint)
}

/// The list in force: that of the settings, empty while `enabled` is off.
pub fn configured() -> Vec<Mapping> {
    if gucs::ENABLED.get() { listed() } else { Vec::new() }
}

/// The list of the settings, whatever `enabled` says.
pub fn listed() -> Vec<Mapping> {
    config::parse_list(&gucs::text(&gucs::MAPPINGS)).unwrap_or_default()
}

/// The fingerprints of a list's mappings.
pub fn fingerprints(list: &[Mapping]) -> HashSet<u64> {
    let default_database = gucs::text(&gucs::DATABASE);
    list.iter()
        .map(|mapping| mapping.fingerprint(&default_database))
        .collect()
}

/// The fingerprint of the configured list.
pub fn configured_fingerprint(list: &[Mapping]) -> u64 {
    config::list_fingerprint(list, &gucs::text(&gucs::DATABASE), gucs::ENABLED.get())
}

/// Reads the settings and the state of the mappings anew.
fn refresh(shared: Shared) {
    // Read before the states: a change while they are read makes the next call refresh again.
    let generation = shared.generation();
    // A generation may stand for DDL whose invalidations have been sent before (`xact::after_ddl`): a statement that
    // finds all its locks held already would not read them (lmgr.c, LockRelationOid).
    // SAFETY: as PostgreSQL does at each new lock; the callbacks here only note what they are told.
    unsafe {
        if pg_sys::IsTransactionState() {
            pg_sys::AcceptInvalidationMessages();
        }
    }
    let list = configured();
    let fingerprint = configured_fingerprint(&list);
    let default_database = gucs::text(&gucs::DATABASE);
    let database = if list.is_empty() { None } else { current_database() };
    let Some(locals) = locals(shared, list, &default_database, database.as_deref()) else {
        gucs::note_list_changed(); // outside a transaction the database's name cannot be read: tried again
        return;
    };
    let had_any = ANY_MAPPED.replace(!locals.is_empty());
    GENERATION.set(generation);
    KNOWN.with_borrow_mut(|known| {
        *known = Known {
            list: locals,
            fingerprint,
            ..Known::default()
        };
    });
    if had_any || TAP_ALL || ANY_MAPPED.get() {
        register_callbacks();
        // SAFETY: only marks plans invalid; plans made under another list lack the marks or have stale ones.
        unsafe { pg_sys::ResetPlanCache() };
    }
}

fn locals(
    shared: Shared,
    list: Vec<Mapping>,
    default_database: &str,
    database: Option<&str>,
) -> Option<Vec<Local>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let database = database?;
    let ours = |mapping: &Mapping| mapping.database.as_deref().unwrap_or(default_database) == database;
    Some(
        list.into_iter()
            .filter(ours)
            .filter_map(|mapping| {
                let fingerprint = mapping.fingerprint(default_database);
                let index = shared.active_mapping(fingerprint)?;
                Some(Local {
                    index,
                    fingerprint,
                    definition: Rc::new(mapping),
                    root: pg_sys::InvalidOid,
                })
            })
            .collect(),
    )
}

/// The name of this database; `None` outside a transaction.
pub fn current_database() -> Option<String> {
    // SAFETY: a system cache look-up, made within a transaction only.
    unsafe {
        if pg_sys::MyDatabaseId == pg_sys::InvalidOid || !pg_sys::IsTransactionState() {
            return None;
        }
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        Some(String::from_utf8_lossy(nodes::bytes(name)).into_owned())
    }
}

fn register_callbacks() {
    if CALLBACKS.replace(true) {
        return;
    }
    let nothing = Datum::from(0);
    // SAFETY: registered once in the life of the process.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_invalidated), nothing);
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as _,
            Some(schema_invalidated),
            nothing,
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_invalidated(_argument: Datum, relid: Oid) {
    INVALIDATED.with_borrow_mut(|invalidated| {
        if relid == pg_sys::InvalidOid || invalidated.relations.len() >= 256 {
            invalidated.everything = true;
        } else if relid.to_u32() >= pg_sys::FirstNormalObjectId {
            invalidated.relations.push(relid);
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn schema_invalidated(
    _argument: Datum,
    _cache: std::ffi::c_int,
    _hash: pg_sys::uint32,
) {
    INVALIDATED.with_borrow_mut(|invalidated| invalidated.everything = true);
}

/// The mapped relation with that Oid: a mapped table or a partition of one.
pub fn lookup(relid: Oid) -> Option<Rc<MappedRelation>> {
    if relid.to_u32() < pg_sys::FirstNormalObjectId || !any_mapped() {
        return None;
    }
    forget_invalidated();
    if let Some(found) = KNOWN.with_borrow(|known| known.relations.get(&relid).cloned()) {
        return found;
    }
    find_roots();
    let built = build(relid).map(Rc::new);
    KNOWN.with_borrow_mut(|known| known.relations.insert(relid, built.clone()));
    built
}

/// The active mapping of this database with that name.
pub fn active_named(name: &str) -> Option<Rc<ActiveMapping>> {
    if !any_mapped() {
        return None;
    }
    forget_invalidated();
    find_roots();
    let root = KNOWN.with_borrow(|known| {
        known
            .list
            .iter()
            .find(|local| local.definition.name == name)
            .map(|local| local.root)
    })?;
    lookup(root)?
        .mappings
        .iter()
        .find(|placed| placed.mapping.definition.name == name)
        .map(|placed| Rc::clone(&placed.mapping))
}

fn forget_invalidated() {
    let invalidated = INVALIDATED.with_borrow_mut(|invalidated| {
        if !invalidated.everything && invalidated.relations.is_empty() {
            return None;
        }
        Some(std::mem::take(invalidated))
    });
    let Some(invalidated) = invalidated else { return };
    KNOWN.with_borrow_mut(|known| {
        let concerns_root = known
            .list
            .iter()
            .any(|local| local.root == pg_sys::InvalidOid || invalidated.relations.contains(&local.root));
        if invalidated.everything || concerns_root {
            known.relations.clear();
            known.roots_known = false;
        } else {
            for relid in &invalidated.relations {
                known.relations.remove(relid);
            }
        }
    });
}

fn find_roots() {
    let Some(names) = KNOWN.with_borrow(|known| {
        (!known.roots_known).then(|| {
            known
                .list
                .iter()
                .map(|local| Rc::clone(&local.definition))
                .collect::<Vec<_>>()
        })
    }) else {
        return;
    };
    let roots: Vec<Oid> = names.iter().map(|mapping| table_of(mapping)).collect();
    KNOWN.with_borrow_mut(|known| {
        for (local, root) in known.list.iter_mut().zip(roots) {
            local.root = root;
        }
        known.roots_known = true;
    });
}

/// The table that a mapping names, InvalidOid if there is none.
pub fn table_of(mapping: &Mapping) -> Oid {
    let (Ok(schema), Ok(table)) = (
        CString::new(mapping.schema.as_str()),
        CString::new(mapping.table.as_str()),
    ) else {
        return pg_sys::InvalidOid;
    };
    // SAFETY: system cache look-ups within a transaction.
    unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if namespace == pg_sys::InvalidOid {
            return pg_sys::InvalidOid;
        }
        pg_sys::get_relname_relid(table.as_ptr(), namespace)
    }
}

fn build(relid: Oid) -> Option<MappedRelation> {
    let (root, definitions) = if TAP_ALL {
        made_for(relid)?
    } else {
        listed_for(relid)?
    };
    let relation = MappedRelation::new(relid, root, definitions);
    (TAP_ALL || !relation.mappings.is_empty()).then_some(relation)
}

/// A mapped table, and each of its mappings.
type Definitions = (Oid, Vec<Definition>);

/// What the list in force has for a relation.
fn listed_for(relid: Oid) -> Option<Definitions> {
    let root = root_of(relid)?;
    let locals = KNOWN.with_borrow(|known| {
        known
            .list
            .iter()
            .filter(|local| local.root == root)
            .map(|local| (local.index, local.fingerprint, Rc::clone(&local.definition)))
            .collect()
    });
    Some((root, locals))
}

/// What a build that taps everything makes up for a relation.
fn made_for(relid: Oid) -> Option<Definitions> {
    if !tap_all::is_table(relid) {
        return None;
    }
    let mapping = tap_all::mapping_of(relid).map(|mapping| (tap_all::MAPPING, 0, Rc::new(mapping)));
    Some((relid, mapping.into_iter().collect()))
}

/// The mapped table that a relation is or belongs to.
fn root_of(relid: Oid) -> Option<Oid> {
    let is_root =
        |candidate: Oid| KNOWN.with_borrow(|known| known.list.iter().any(|local| local.root == candidate));
    if is_root(relid) {
        return Some(relid);
    }
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        if !pg_sys::get_rel_relispartition(relid) {
            return None;
        }
        nodes::oids(crate::compat::get_partition_ancestors(relid)).find(|ancestor| is_root(*ancestor))
    }
}
