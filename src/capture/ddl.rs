//! What no executor node shows: TRUNCATE, DROP and other DDL on mapped tables.
use pgrx::pg_sys::{self, ObjectAccessType, Oid};

use super::relations;
use crate::{shared::Shared, xact};

/// Called before each utility statement.
///
/// # Safety
/// `statement` must be the parse tree of a utility statement.
pub unsafe fn before_utility(statement: *mut pg_sys::Node) {
    if !relations::note_statement() && Shared::get().is_none_or(|shared| shared.published() == 0) {
        return;
    }
    // SAFETY: as the caller promises.
    if unsafe { pg_sys::GetCommandLogLevel(statement) } == pg_sys::LogStmtLevel::LOGSTMT_DDL {
        xact::note_ddl();
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
    if changes
        && class == pg_sys::Oid::from(pg_sys::RelationRelationId)
        && let Some(relation) = relations::lookup(object)
    {
        relation.purge();
        xact::note_mapped_ddl();
    }
}
