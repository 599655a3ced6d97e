//! `attach` and `detach`: a trigger for tables whose rows change without the executor.
use pgrx::{PgRelation, PgSqlErrorCode, prelude::*};

use super::raise;
use crate::{
    capture::attached::{self, TRIGGER},
    nodes,
};

extension_sql!(
    "CREATE FUNCTION redis_cache.captured() RETURNS trigger \
     LANGUAGE c AS 'MODULE_PATHNAME', 'pg_redis_cache_captured';",
    name = "captured"
);

/// Gives a table, and all its partitions, the trigger that captures its changes wherever they come from, also from a
/// subscription. Its mappings are purged.
#[pg_extern(volatile, parallel_unsafe)]
fn attach(relation: PgRelation) {
    let table = closed(relation);
    let name = table_name(table);
    if attached::is_attached(table) {
        return notice!("table {name} is attached already");
    }
    run(&format!(
        "CREATE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW \
         EXECUTE FUNCTION redis_cache.captured(); \
         ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRIGGER}"
    ));
}

/// Takes the trigger away again: the hooks capture the table's changes from then on.
#[pg_extern(volatile, parallel_unsafe)]
fn detach(relation: PgRelation) {
    let table = closed(relation);
    let name = table_name(table);
    if !attached::is_attached(table) {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("table {name} is not attached"),
            "",
            "The column attached of redis_cache.mappings shows which mapped tables are.",
        );
    }
    run(&format!("DROP TRIGGER {TRIGGER} ON {name}"));
}

/// The relation's Oid; it is closed, because ALTER TABLE refuses what its own session has open.
fn closed(relation: PgRelation) -> pg_sys::Oid {
    relation.oid()
}

/// The table's name as SQL takes it, or an ERROR if it is no table.
fn table_name(oid: pg_sys::Oid) -> String {
    // SAFETY: catalog look-ups within a transaction, of a relation that the argument's conversion has locked.
    unsafe {
        let name = pg_sys::quote_qualified_identifier(
            pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid)),
            pg_sys::get_rel_name(oid),
        );
        let name = String::from_utf8_lossy(nodes::bytes(name)).into_owned();
        let kind = pg_sys::get_rel_relkind(oid) as u8;
        if kind != pg_sys::RELKIND_RELATION && kind != pg_sys::RELKIND_PARTITIONED_TABLE {
            raise(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{name} is not a table"),
                "",
                "Only tables, partitioned or not, can be mapped and attached.",
            );
        }
        name
    }
}

fn run(statements: &str) {
    if let Err(error) = Spi::run(statements) {
        raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("the trigger could not be changed: {error}"),
            "",
            "",
        );
    }
}
