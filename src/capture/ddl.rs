//! What no executor node shows: TRUNCATE, DROP and other DDL on mapped tables.
use pg_redis_cache_core::coherence::Reason;
use pgrx::pg_sys::{self, ObjectAccessType, Oid};

use super::relations;
use crate::{nodes, shared::Shared, xact};

/// Called before each utility statement.
///
/// # Safety
/// `statement` must be the parse tree of a utility statement.
pub unsafe fn before_utility(statement: *mut pg_sys::Node) {
    if !relations::note_statement() && Shared::get().is_none_or(|shared| shared.published() == 0) {
        return;
    }
    // SAFETY: as the caller promises.
    unsafe {
        if changes_texts(statement) {
            relations::purge_all(Reason::Ddl);
            xact::note_mapped_ddl();
            xact::note_text_ddl();
        }
        if let Some(database) = takes_database_away(statement)
            && relations::purge_database(&database)
        {
            xact::note_mapped_ddl();
        }
    }
    // SAFETY: as the caller promises.
    if unsafe { pg_sys::GetCommandLogLevel(statement) } == pg_sys::LogStmtLevel::LOGSTMT_DDL {
        xact::note_ddl();
    }
}

/// ALTER TABLE … ATTACH and DETACH PARTITION change which rows belong to a mapped table, and no other hook sees
/// them. DETACH CONCURRENTLY commits in between, so this is called before and after the statement. Returns whether
/// it is an ALTER TABLE of a mapped relation.
///
/// # Safety
/// As [`before_utility`].
pub unsafe fn around_alter_table(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the cast follows the tag; the relation is looked up by name without a lock of our own.
    unsafe {
        if !nodes::is_a(statement, pg_sys::NodeTag::T_AlterTableStmt) || !relations::any_mapped() {
            return false;
        }
        let relation = (*statement.cast::<pg_sys::AlterTableStmt>()).relation;
        let relid = pg_sys::RangeVarGetRelidExtended(
            relation,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        let Some(relation) = relations::lookup(relid) else {
            return false;
        };
        relation.purge(Reason::Ddl);
        xact::note_mapped_ddl();
        true
    }
}

/// Called when a statement creates, alters, truncates or drops an object. TRUNCATE … CASCADE and the cascades
/// of DROP come here for every table they reach.
pub fn object_accessed(access: ObjectAccessType::Type, class: Oid, object: Oid, column: i32) {
    let changes = match access {
        ObjectAccessType::OAT_DROP | ObjectAccessType::OAT_TRUNCATE | ObjectAccessType::OAT_POST_ALTER => {
            true
        }
        // A new column of a table that is there already.
        ObjectAccessType::OAT_POST_CREATE => column > 0,
        _ => false,
    };
    if !changes || class != pg_sys::RelationRelationId || !relations::any_mapped() {
        return;
    }
    if let Some(relation) = relations::lookup(table_behind(object)) {
        relation.purge(Reason::Ddl);
        xact::note_mapped_ddl();
    } else if has_row_type(object) {
        relations::purge_with_rows_of(object);
    }
}

/// catalog/pg_inherits.h, `InheritsRelationId`
pub const INHERITS: Oid = Oid::from_u32(2611);

/// Called when a relation gets a child or a partition (tablecmds.c, `StoreCatalogInheritance1`). With a child a mapping
/// does not work.
pub fn gets_child(parent: Oid) {
    if relations::lookup(parent).is_some() {
        xact::note_mapped_ddl();
    }
}

/// Whether a relation's columns are those of a type, too, which a column of a mapping may have.
fn has_row_type(relid: Oid) -> bool {
    // SAFETY: a catalog look-up within a transaction.
    let kind = unsafe { pg_sys::get_rel_relkind(relid) } as u8;
    matches!(
        kind,
        pg_sys::RELKIND_RELATION
            | pg_sys::RELKIND_PARTITIONED_TABLE
            | pg_sys::RELKIND_FOREIGN_TABLE
            | pg_sys::RELKIND_VIEW
            | pg_sys::RELKIND_MATVIEW
    )
}

/// The table that an index belongs to; any other relation itself.
fn table_behind(relid: Oid) -> Oid {
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        match pg_sys::get_rel_relkind(relid) as u8 {
            pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => {
                pg_sys::IndexGetRelation(relid, true)
            }
            _ => relid,
        }
    }
}

/// The database that a statement drops or renames: its mappings' keys are nobody's from then on.
unsafe fn takes_database_away(statement: *mut pg_sys::Node) -> Option<String> {
    use pg_sys::{NodeTag, ObjectType};
    // SAFETY: the casts follow the tags.
    unsafe {
        let name = match (*statement).type_ {
            NodeTag::T_DropdbStmt => (*statement.cast::<pg_sys::DropdbStmt>()).dbname,
            NodeTag::T_RenameStmt => {
                let rename = statement.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType != ObjectType::OBJECT_DATABASE {
                    return None;
                }
                (*rename).subname
            }
            _ => return None,
        };
        Some(String::from_utf8_lossy(nodes::bytes(name)).into_owned())
    }
}

/// Whether a statement may change the text of stored values, or what a mapping's names mean, without touching a
/// mapped table: enum labels, attributes of composite types, casts to json, names of schemas. What it reaches is
/// not followed up: every mapping of the database is purged.
unsafe fn changes_texts(statement: *mut pg_sys::Node) -> bool {
    use pg_sys::{NodeTag, ObjectType};
    // SAFETY: the casts follow the tags.
    unsafe {
        match (*statement).type_ {
            NodeTag::T_AlterEnumStmt | NodeTag::T_AlterTypeStmt | NodeTag::T_CreateCastStmt => true,
            NodeTag::T_AlterTableStmt => {
                (*statement.cast::<pg_sys::AlterTableStmt>()).objtype == ObjectType::OBJECT_TYPE
            }
            NodeTag::T_RenameStmt => matches!(
                (*statement.cast::<pg_sys::RenameStmt>()).renameType,
                ObjectType::OBJECT_ATTRIBUTE | ObjectType::OBJECT_SCHEMA | ObjectType::OBJECT_TYPE
            ),
            NodeTag::T_DropStmt => {
                (*statement.cast::<pg_sys::DropStmt>()).removeType == ObjectType::OBJECT_CAST
            }
            _ => false,
        }
    }
}
