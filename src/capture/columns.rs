//! The columns of mapped tables, as the system caches have them.
use std::ffi::CString;

use pg_redis_cache_core::{
    config::{Columns, Mapping},
    encode::key::KeyKind,
};
use pgrx::pg_sys::{self, AttrNumber, Datum, Oid};

use super::text::ValueWriter;
use crate::nodes;

/// A column of a mapping.
pub struct MappedColumn {
    pub name: String,
    pub writer: ValueWriter,
    pub type_id: Oid,
    pub type_modifier: i32,
}

impl MappedColumn {
    /// The value of a text, by the type's input function.
    ///
    /// # Safety
    /// Must be called within a transaction. Raises what the input function raises.
    pub unsafe fn read(&self, text: &str) -> Datum {
        let text = CString::new(text).unwrap_or_default();
        let mut function = pg_sys::InvalidOid;
        let mut parameter = pg_sys::InvalidOid;
        // SAFETY: catalog look-ups, and the type's own input function.
        unsafe {
            pg_sys::getTypeInputInfo(self.type_id, &raw mut function, &raw mut parameter);
            pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), parameter, self.type_modifier)
        }
    }
}

/// A key column as the planner needs it.
pub struct KeyColumn {
    pub attribute: AttrNumber,
    pub type_id: Oid,
    pub type_modifier: i32,
    pub collation: Oid,
    pub generated: bool,
}

/// The names of the value columns: those listed, or all live columns in order.
pub fn value_names(definition: &Mapping, root: Oid) -> Vec<String> {
    match &definition.columns {
        Columns::Named(names) => names.clone(),
        Columns::All => live_columns(root),
    }
}

/// The names of a relation's columns in order, without those that have been dropped.
pub fn live_columns(relid: Oid) -> Vec<String> {
    (1..=i16::MAX)
        .map_while(|number| {
            // SAFETY: a system cache look-up; the tuple is released after its fields have been copied.
            unsafe {
                let tuple = pg_sys::SearchSysCache2(
                    pg_sys::SysCacheIdentifier::ATTNUM as _,
                    Datum::from(relid),
                    Datum::from(number),
                );
                if tuple.is_null() {
                    return None;
                }
                let form = attribute_form(tuple);
                let name = (!(*form).attisdropped).then(|| {
                    String::from_utf8_lossy(nodes::bytes((*form).attname.data.as_ptr())).into_owned()
                });
                pg_sys::ReleaseSysCache(tuple);
                Some(name)
            }
        })
        .flatten()
        .collect()
}

unsafe fn attribute_form(tuple: pg_sys::HeapTuple) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: GETSTRUCT: the fixed part begins after the header.
    unsafe {
        (*tuple)
            .t_data
            .cast::<u8>()
            .add((*(*tuple).t_data).t_hoff as usize)
            .cast()
    }
}

/// The number of a relation's last column, dropped or not; 0 if it is gone.
pub fn last_attribute(relid: Oid) -> pg_sys::AttrNumber {
    // SAFETY: a system cache look-up; the tuple is released after its field has been copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as _, Datum::from(relid));
        if tuple.is_null() {
            return 0;
        }
        let header = (*tuple).t_data;
        let form = header
            .cast::<u8>()
            .add((*header).t_hoff as usize)
            .cast::<pg_sys::FormData_pg_class>();
        let last = (*form).relnatts;
        pg_sys::ReleaseSysCache(tuple);
        last
    }
}

/// A live column by name, if its type exists: a DROP TYPE that runs beside a CREATE TABLE can leave a column without
/// (up to 18.5, see PostgreSQL's isolation test ddl-dependency-locking), and what asks for such a type raises, even in
/// a DROP of that table.
pub fn attribute_named(relid: Oid, name: &str) -> Option<KeyColumn> {
    let name = CString::new(name).ok()?;
    // SAFETY: a system cache look-up; the tuple is released after its fields have been copied.
    unsafe {
        let tuple = pg_sys::SearchSysCacheAttName(relid, name.as_ptr());
        if tuple.is_null() {
            return None;
        }
        let form = attribute_form(tuple);
        let column = ((*form).attnum > 0).then(|| KeyColumn {
            attribute: (*form).attnum,
            type_id: (*form).atttypid,
            type_modifier: (*form).atttypmod,
            collation: (*form).attcollation,
            generated: (*form).attgenerated != 0,
        });
        pg_sys::ReleaseSysCache(tuple);
        column.filter(|column| type_exists(column.type_id))
    }
}

unsafe fn type_exists(type_id: Oid) -> bool {
    // SAFETY: a system cache look-up within a transaction.
    type_id.to_u32() < pg_sys::FirstNormalObjectId
        || unsafe {
            pg_sys::SearchSysCacheExists(
                pg_sys::SysCacheIdentifier::TYPEOID as _,
                Datum::from(type_id),
                Datum::from(0),
                Datum::from(0),
                Datum::from(0),
            )
        }
}

/// How the canonical text of a key column's type looks.
pub fn key_kind(type_id: Oid) -> KeyKind {
    // SAFETY: a catalog look-up within a transaction.
    match unsafe { pg_sys::getBaseType(type_id) } {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => KeyKind::Int,
        pg_sys::UUIDOID => KeyKind::Uuid,
        pg_sys::BOOLOID => KeyKind::Bool,
        _ => KeyKind::Text,
    }
}
