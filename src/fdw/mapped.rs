//! Tables that show a mapping: its columns by name, its keys by its template.
//!
//! They can only be read, and deleted from: that invalidates, by way of the worker, in order with everything else that
//! is on its way to Redis. What is stored is read as it was written, by the mapping's format.
//!
//! As with a view, the table's owner needs the right to read the mapped table, and whoever reads needs it on the foreign
//! table alone ([`Mapped::check_rights`]). A key that only looks like the mapping's is left out ([`Mapped::is_own`]); a
//! value of its keys that cannot be read is an ERROR that names the key and not the value ([`Mapped::telling`]).
//!
//! Does not: know what the transaction itself has changed in the mapped table. Redis has it when it is committed.
use std::{cell::RefCell, panic::AssertUnwindSafe, rc::Rc};

use pg_redis_cache_core::{
    config::Format,
    encode::{difference::printable, key::KeyKind},
    fdw::{
        Kind, Layout, MappedKeys, Role, TableOptions,
        options::{self, Given, Keys},
    },
};
use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{self, Datum, Oid, panic::CaughtError},
};

use super::{column::Column, error, table::TableColumn};
use crate::{
    capture::{
        columns::{MappedColumn, attribute_named},
        relations::{self, ActiveMapping},
        text::{Pinned, Pinning},
    },
    sql::{self, is_about_values, keys, queue, raise},
};

/// How many keys are gathered before they are deleted.
const DELETED_AT_ONCE: usize = 1000;

/// More fields of a hash than this are not asked for by name: Redis looks for each of them from the beginning of a hash
/// that it keeps in one piece (t_hash.c, hashTypeGetFromListpack), so 25 of 50 take longer than HGETALL.
const MOST_FIELDS: usize = 8;

/// The mapping of a table.
pub struct Mapped {
    pub name: String,
    /// Its number in shared memory.
    pub index: u16,
    pub keys: MappedKeys,
    /// How many columns its keys have.
    pub parts: usize,
    mapping: Rc<ActiveMapping>,
    /// Keys that are to be deleted.
    deleted: RefCell<Vec<Vec<u8>>>,
}

impl Mapped {
    /// Finds the mapping, or raises what is wrong with it, and gives the table's columns their roles.
    pub fn open(
        name: &str,
        given: &[Given],
        columns: &[Option<TableColumn>],
    ) -> (Self, TableOptions, Layout) {
        let mapping = keys::find(sql::shared(), name).mapping;
        let mapped = Self {
            name: name.to_string(),
            index: mapping.index,
            keys: MappedKeys::new(mapping.definition.template.clone(), mapping.kinds.clone()),
            parts: mapping.key.len(),
            mapping: Rc::clone(&mapping),
            deleted: RefCell::default(),
        };
        let kind = match mapping.definition.format {
            Format::Hash => Kind::Hash,
            Format::Json | Format::String => Kind::String,
        };
        let keys = Keys::Matching(mapped.keys.glob());
        let options = TableOptions::of_keys(kind, keys.clone(), given)
            .unwrap_or_else(|problem| error::option(&problem));
        let roles = columns
            .iter()
            .map(|column| Some(role(&mapping, &column.as_ref()?.name)));
        let layout = Layout {
            roles: roles.collect(),
            keys,
        };
        (mapped, options, layout)
    }

    /// The name of the server that has its keys.
    pub fn server(&self) -> &str {
        self.mapping.definition.effective_server()
    }

    /// Raises unless the foreign table's owner may read what a query needs of the mapped table: these of its columns, or
    /// for a query that needs none, any.
    ///
    /// # Safety
    /// `relation` must be the open foreign table.
    pub unsafe fn check_rights(&self, relation: pg_sys::Relation, columns: impl Iterator<Item = Rc<str>>) {
        let table = relations::table_of(&self.mapping.definition);
        // SAFETY: catalog look-ups within a transaction, for a relation that the mapping has just been found to have.
        unsafe {
            let owner = (*(*relation).rd_rel).relowner;
            let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
            let granted = pg_sys::AclResult::ACLCHECK_OK;
            if pg_sys::pg_class_aclcheck(table, owner, select) != granted {
                let mut columns = columns
                    .filter_map(|name| attribute_named(table, &name))
                    .peekable();
                let allowed = if columns.peek().is_some() {
                    columns.all(|column| {
                        pg_sys::pg_attribute_aclcheck(table, column.attribute, owner, select) == granted
                    })
                } else {
                    let how = pg_sys::AclMaskHow::ACLMASK_ANY;
                    pg_sys::pg_attribute_aclcheck_all(table, owner, select, how) == granted
                };
                if !allowed {
                    self.forbidden(
                        "The foreign table's owner may not SELECT these columns of the mapped table.",
                    );
                }
            }
            let hidden = pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
            if pg_sys::check_enable_rls(table, owner, true) == hidden {
                self.forbidden(
                    "Row-level security hides rows of the mapped table from the foreign table's owner.",
                );
            }
        }
    }

    /// The fields of the mapping's hashes that these columns show, if asking for them by name is less work than asking
    /// for all.
    pub fn few_fields(&self, columns: &[Column]) -> Option<Vec<Vec<u8>>> {
        let named = columns.iter().filter_map(|column| match &column.role {
            Role::Named(field) => Some(field.clone()),
            _ => None,
        });
        let fields: Vec<Vec<u8>> = named.collect();
        let definition = &self.mapping.definition;
        let few = definition.format == Format::Hash
            && fields.len() <= MOST_FIELDS
            && 4 * fields.len() <= self.mapping.value.len();
        few.then_some(fields)
    }

    fn forbidden(&self, detail: &str) -> ! {
        raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for mapping \"{}\"", self.name),
            detail,
            "As with a view, the owner's rights count on what is behind the table.",
        )
    }

    /// Whether a column of that type, as it is or below its domain, shows the key column's values with the texts that
    /// they have in keys: else equality is not asked for by key.
    pub fn has_text_of(&self, part: usize, base: Oid, modifier: i32) -> bool {
        let Some(column) = self.mapping.key.get(part) else {
            return false;
        };
        // SAFETY: a catalog look-up within a transaction.
        let real = unsafe { pg_sys::getBaseType(column.type_id) };
        let is_int = |oid| matches!(oid, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID);
        let is_text = |oid| matches!(oid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
        let alike = base == real || is_int(base) && is_int(real) || is_text(base) && is_text(real);
        alike && (modifier < 0 || modifier == column.type_modifier)
    }

    /// Whether a key is one that a row of the mapping can have: one that reads back by the template, and whose parts
    /// are the texts that their types write. Raises, naming the key, if a part is no text of its type.
    pub fn is_own(&self, key: &[u8]) -> bool {
        let Some(parts) = self.keys.parts(key) else {
            return false;
        };
        let mapping = &self.mapping;
        parts
            .into_iter()
            .zip(mapping.key.iter().zip(&mapping.kinds))
            .all(|(part, (column, kind))| match (kind, std::str::from_utf8(part)) {
                (_, Err(_)) => false,
                (KeyKind::Int, Ok(text)) => fits(column, text),
                (KeyKind::Uuid | KeyKind::Bool, Ok(_)) => true,
                (KeyKind::Text, Ok(text)) => {
                    // No text of the server has a NUL character.
                    !text.contains('\0') && (is_plain(column) || self.is_written_so(key, column, text))
                }
            })
    }

    fn is_written_so(&self, key: &[u8], column: &MappedColumn, text: &str) -> bool {
        self.telling(key, Some(&column.name), column.writer.pinning, || {
            let mut written = Vec::new();
            // SAFETY: within a transaction; the value is of the column's type, and the settings are pinned.
            unsafe { column.writer.write_text(column.read(text), &mut written) };
            written == text.as_bytes()
        })
    }

    /// Reads a value of a key, under the settings by which values are written. What it raises for want of a value
    /// becomes an ERROR that names the key; the value itself is in none.
    pub fn telling<R>(
        &self,
        key: &[u8],
        column: Option<&str>,
        pinning: Pinning,
        read: impl FnOnce() -> R,
    ) -> R {
        let read = AssertUnwindSafe(|| {
            let _pinned = Pinned::new(pinning);
            Ok(read())
        });
        let result = PgTryBuilder::new(read)
            .catch_others(|caught| match &caught {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)
                    if is_about_values(report.sql_error_code()) =>
                {
                    Err(report.sql_error_code())
                }
                _ => caught.rethrow(),
            })
            .execute();
        match result {
            Ok(value) => value,
            // Raised anew: nothing that the function has left half done is used.
            Err(code) => self.unreadable(key, column, code),
        }
    }

    fn unreadable(&self, key: &[u8], column: Option<&str>, code: PgSqlErrorCode) -> ! {
        let detail = match column {
            Some(column) => format!("What it has for column \"{column}\" is no value of that column's type."),
            None => "Its document does not fit the table's columns.".to_string(),
        };
        raise(
            code,
            format!(
                "the key \"{}\" cannot be read as a row of mapping \"{}\"",
                printable(key),
                self.name
            ),
            detail,
            "Something else has written it, or the column's type is another than the mapped table's. \
             redis_cache.verify lists what is not as the table has it.",
        )
    }

    /// Deletes a key, by way of the worker, with those that are gathered: now if `at_once`, else when they are many, or
    /// at [`Self::delete_gathered`].
    pub fn delete(&self, key: &[u8], at_once: bool) {
        let count = {
            let mut deleted = self.deleted.borrow_mut();
            deleted.push(key.to_vec());
            deleted.len()
        };
        if at_once || count >= DELETED_AT_ONCE {
            self.delete_gathered();
        }
    }

    /// Deletes the keys that are gathered, and returns when they are gone.
    pub fn delete_gathered(&self) {
        let deleted = self.deleted.take();
        if !deleted.is_empty() {
            queue::invalidate_keys(sql::shared(), self.index, &deleted);
        }
    }

    /// Raises: a table without all key columns does not say which key a row has.
    pub fn lacks_key_column(&self) -> ! {
        let names: Vec<&str> = self
            .mapping
            .key
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "rows cannot be deleted through a table without the mapping's key columns",
            format!(
                "The key columns of mapping \"{}\" are {}.",
                self.name,
                names.join(", ")
            ),
            "Add them to the foreign table.",
        )
    }
}

/// Whether an integer's text is one of its type.
fn fits(column: &MappedColumn, text: &str) -> bool {
    let Ok(number) = text.parse::<i64>() else {
        return false;
    };
    // SAFETY: a catalog look-up within a transaction.
    match unsafe { pg_sys::getBaseType(column.type_id) } {
        pg_sys::INT2OID => i16::try_from(number).is_ok(),
        pg_sys::INT4OID => i32::try_from(number).is_ok(),
        _ => true,
    }
}

/// Whether every text is one of the column's type, and written as it is.
fn is_plain(column: &MappedColumn) -> bool {
    let is_text = matches!(column.type_id, pg_sys::TEXTOID | pg_sys::VARCHAROID);
    is_text && column.type_modifier < 0
}

fn role(mapping: &ActiveMapping, name: &str) -> Role {
    if let Some(part) = mapping.key.iter().position(|column| column.name == name) {
        return Role::Part(part);
    }
    if mapping.value.iter().any(|column| column.name == name) {
        return match mapping.definition.format {
            Format::Hash => Role::Named(name.as_bytes().to_vec()),
            Format::Json => Role::Property,
            Format::String => Role::Value,
        };
    }
    if name.eq_ignore_ascii_case("ttl") {
        return Role::Ttl;
    }
    let mut known: Vec<&str> = Vec::new();
    for column in mapping.key.iter().chain(&mapping.value) {
        if !known.contains(&column.name.as_str()) {
            known.push(&column.name);
        }
    }
    raise(
        PgSqlErrorCode::ERRCODE_FDW_COLUMN_NAME_NOT_FOUND,
        format!("mapping \"{}\" has no column \"{name}\"", mapping.definition.name),
        format!("Its columns are {}.", known.join(", ")),
        match options::nearest(name, &known) {
            Some(nearest) => format!("Perhaps you meant \"{nearest}\"."),
            None => "IMPORT FOREIGN SCHEMA mappings makes a table as the mapping has it.".to_string(),
        },
    )
}

/// Makes rows of JSON documents, as `json_populate_record` does.
pub struct Documents {
    function: Box<pg_sys::FmgrInfo>,
    descriptor: pg_sys::TupleDesc,
}

impl Documents {
    /// For the rows of a relation.
    ///
    /// # Safety
    /// `relation` must be open as long as this is used; the current memory context must outlive it.
    pub unsafe fn of(relation: pg_sys::Relation) -> Self {
        let mut function = Box::<pg_sys::FmgrInfo>::default();
        // SAFETY: the function asks for its arguments' types, which it reads from the call's expression.
        unsafe {
            let row_type = (*(*relation).rd_rel).reltype;
            let none = pg_sys::InvalidOid;
            let arguments = [row_type, pg_sys::JSONOID, pg_sys::BOOLOID];
            let arguments = arguments.iter().fold(std::ptr::null_mut(), |list, type_id| {
                pg_sys::lappend(list, pg_sys::makeNullConst(*type_id, -1, none).cast())
            });
            let oid = pg_sys::Oid::from(pg_sys::F_JSON_POPULATE_RECORD);
            let call = pg_sys::makeFuncExpr(
                oid,
                row_type,
                arguments,
                none,
                none,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
            );
            pg_sys::fmgr_info(oid, &raw mut *function);
            function.fn_expr = call.cast();
        }
        Self {
            function,
            // SAFETY: the relation is open.
            descriptor: unsafe { (*relation).rd_att },
        }
    }

    /// The values of a document's members by the columns' names; those of other columns are NULL.
    ///
    /// # Safety
    /// `values` and `nulls` must have a place for each column. The values are in the current memory context.
    pub unsafe fn read(&mut self, document: Datum, values: &mut [Datum], nulls: &mut [bool]) {
        nulls.fill(true);
        // SAFETY: a row of the relation's own type, with NULLs alone, is what the function fills in.
        unsafe {
            let empty = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let empty = pg_sys::heap_copy_tuple_as_datum(empty, self.descriptor);
            let row = pg_sys::FunctionCall3Coll(
                &raw mut *self.function,
                pg_sys::InvalidOid,
                empty,
                document,
                Datum::from(false),
            );
            let header = pg_sys::pg_detoast_datum(row.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
            let mut tuple = pg_sys::HeapTupleData {
                t_len: pgrx::varlena::varsize_any(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            pg_sys::heap_deform_tuple(
                &raw mut tuple,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}
