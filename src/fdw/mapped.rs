//! Tables that show a mapping: its columns by name, its keys by its template.
//!
//! They can only be read, and deleted from: that invalidates, by way of the worker, in order with everything else that
//! is on its way to Redis. What is stored is read as it was written, by the mapping's format.
use pg_redis_cache_core::{
    config::Format,
    fdw::{
        Kind, Layout, MappedKeys, Role, TableOptions,
        options::{Given, Keys},
    },
};
use pgrx::{
    PgSqlErrorCode,
    pg_sys::{self, Datum},
};

use super::{error, table::TableColumn};
use crate::{
    capture::relations::ActiveMapping,
    sql::{self, keys, raise},
};

/// The mapping of a table.
pub struct Mapped {
    pub name: String,
    /// Its number in shared memory.
    pub index: u16,
    pub keys: MappedKeys,
    /// How many columns its keys have.
    pub parts: usize,
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
    if name == "ttl" {
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
        "IMPORT FOREIGN SCHEMA mappings makes a table as the mapping has it.",
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
