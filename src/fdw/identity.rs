//! Which element a row is, on its way from the scan to the UPDATE or DELETE.
//!
//! Key and name travel as columns of their own beside the row ("junk"), and what has no column, a list's index, as the
//! row's ctid. A row that the table's types show otherwise than Redis has it (007 in an integer column) has no valid
//! ctid: written back its name would be another one.
use std::ffi::CString;

use pg_redis_cache_core::fdw::{Element, Kind, Role, Row, step::Key, writing::Name};
use pgrx::{PgSqlErrorCode, itemptr, pg_guard, pg_sys};

use super::{
    rows::WrittenColumn,
    table::{Table, TableColumn},
};
use crate::{compat, sql::raise};

/// How many elements one block's number stands for: offsets are 16 bits and not 0.
const ITEMS_IN_BLOCK: i64 = 1 << 15;

/// The ctid of a row that can be changed.
pub fn set_row_id(row: &Row, id: &mut pg_sys::ItemPointerData) {
    let index = match row.element {
        Element::Item { index, .. } => index,
        _ => 0,
    };
    let block = (index / ITEMS_IN_BLOCK) as pg_sys::BlockNumber;
    let offset = (index % ITEMS_IN_BLOCK) as pg_sys::OffsetNumber + 1;
    itemptr::item_pointer_set_all(id, block, offset);
}

/// The roles of the columns by which a row is found again.
fn roles(table: &Table) -> Vec<Role> {
    if let Some(mapping) = &table.mapping {
        return (0..mapping.parts).map(Role::Part).collect();
    }
    let mut roles = match table.options.kind {
        Kind::String => vec![],
        Kind::Hash => vec![Role::Field],
        Kind::List => vec![Role::Element],
        Kind::Set | Kind::Zset => vec![Role::Member],
        Kind::Stream => vec![Role::Id],
    };
    if table.layout.has_key() {
        roles.push(Role::Key);
    }
    roles
}

/// Whether a column's value must be written as Redis has it for the row to be found again.
pub fn is_identifying(table: &Table, role: &Role) -> bool {
    roles(table).contains(role)
}

/// The name of a junk column: two tables of an inheritance tree may share one only if their columns are alike.
fn junk_name(place: usize, column: &TableColumn) -> CString {
    let name = format!("redis_cache_{place}_{}", column.type_id.to_u32());
    CString::new(name).unwrap_or_default()
}

/// AddForeignUpdateTargets.
#[pg_guard]
pub unsafe extern "C-unwind" fn add_targets(
    root: *mut pg_sys::PlannerInfo,
    index: pg_sys::Index,
    _entry: *mut pg_sys::RangeTblEntry,
    relation: pg_sys::Relation,
) {
    // SAFETY: the planner's own structures, and an open foreign table of ours.
    unsafe {
        let table = Table::of(relation);
        for role in roles(&table) {
            let Some(place) = table.layout.place(&role) else {
                if let Some(mapping) = &table.mapping {
                    mapping.lacks_key_column();
                }
                continue;
            };
            let Some(column) = &table.columns[place] else {
                continue;
            };
            let attribute = &*compat::attribute((*relation).rd_att, place as i16 + 1);
            let variable = pg_sys::makeVar(
                index as i32,
                attribute.attnum,
                attribute.atttypid,
                attribute.atttypmod,
                attribute.attcollation,
                0,
            );
            let name = pg_sys::pstrdup(junk_name(place, column).as_ptr());
            pg_sys::add_row_identity_var(root, variable, index, name);
        }
        let id = pg_sys::makeVar(
            index as i32,
            pg_sys::SelfItemPointerAttributeNumber as i16,
            pg_sys::TIDOID,
            -1,
            pg_sys::InvalidOid,
            0,
        );
        pg_sys::add_row_identity_var(root, id, index, c"ctid".as_ptr());
        // For RETURNING: a deleted row is nowhere else. (UPDATE has it anyhow.)
        let query = &*(*root).parse;
        if query.commandType == pg_sys::CmdType::CMD_DELETE && !query.returningList.is_null() {
            let none = pg_sys::InvalidOid;
            // As preptlist.c's add_row_identity_columns makes it, so that all tables of a tree share it.
            let row = pg_sys::makeVar(index as i32, 0, pg_sys::RECORDOID, -1, none, 0);
            pg_sys::add_row_identity_var(root, row, index, c"wholerow".as_ptr());
        }
    }
}

/// Where a statement's rows have what identifies them.
pub struct Identity {
    columns: Vec<(pg_sys::AttrNumber, usize)>,
    id: pg_sys::AttrNumber,
    row: pg_sys::AttrNumber,
}

impl Identity {
    /// For the rows of a plan. `columns` are the table's.
    ///
    /// # Safety
    /// `targets` must be the target list of the plan below the statement's node.
    pub unsafe fn new(targets: *mut pg_sys::List, table: &Table, columns: &[WrittenColumn]) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let identifying = roles(table).into_iter().filter_map(|role| {
                let place = table.layout.place(&role)?;
                let name = junk_name(place, table.columns[place].as_ref()?);
                let number = pg_sys::ExecFindJunkAttributeInTlist(targets, name.as_ptr());
                let column = columns.iter().position(|column| column.role == role)?;
                (number > 0).then_some((number, column))
            });
            Self {
                columns: identifying.collect(),
                id: pg_sys::ExecFindJunkAttributeInTlist(targets, c"ctid".as_ptr()),
                row: pg_sys::ExecFindJunkAttributeInTlist(targets, c"wholerow".as_ptr()),
            }
        }
    }

    /// The key and name of the row in `slot`, or raises.
    ///
    /// # Safety
    /// `slot` must hold a row of the plan that this was made for.
    pub unsafe fn of(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        table: &Table,
        columns: &[WrittenColumn],
    ) -> (Key, Name) {
        let mut key: Option<Vec<u8>> = None;
        let mut name: Option<Vec<u8>> = None;
        let mut parts: Vec<Vec<u8>> = Vec::new();
        // SAFETY: as the caller promises.
        let id = unsafe {
            for (number, column) in &self.columns {
                let column = &columns[*column];
                let mut null = false;
                let value = pg_sys::ExecGetJunkAttribute(slot, *number, &raw mut null);
                if null {
                    continue;
                }
                let text = column.converter.write(value);
                match column.role {
                    Role::Key => key = Some(text),
                    Role::Part(_) => parts.push(text),
                    _ => name = Some(text),
                }
            }
            let mut null = false;
            let id = pg_sys::ExecGetJunkAttribute(slot, self.id, &raw mut null);
            (!null).then(|| *id.cast_mut_ptr::<pg_sys::ItemPointerData>())
        };
        let Some(id) = id.filter(|id| id.ip_posid != 0) else {
            raise(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "a row cannot be changed through this table",
                "In Redis its key or name is written otherwise than the column's type writes it.",
                "Declare the column as text.",
            );
        };
        let key: Key = match (key, &table.mapping) {
            (Some(key), _) => key.into(),
            (None, Some(mapping)) => {
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                match mapping.keys.key(&parts) {
                    Some(key) => key.into(),
                    None => mapping.lacks_key_column(),
                }
            }
            (None, None) => table.one_key(),
        };
        let name = name.unwrap_or_default();
        let name = match table.options.kind {
            Kind::String => Name::Whole,
            Kind::List => {
                let (block, offset) = itemptr::item_pointer_get_both(id);
                Name::At {
                    index: i64::from(block) * ITEMS_IN_BLOCK + i64::from(offset) - 1,
                    element: name,
                }
            }
            _ => Name::Named(name),
        };
        (key, name)
    }

    /// Puts the whole old row into a slot, for RETURNING.
    ///
    /// # Safety
    /// As [`Self::of`]; `into` must be a slot of the table's columns.
    pub unsafe fn return_row(&self, slot: *mut pg_sys::TupleTableSlot, into: *mut pg_sys::TupleTableSlot) {
        if self.row <= 0 {
            return;
        }
        // SAFETY: a composite datum, as ExecModifyTable takes it apart for row triggers.
        unsafe {
            let mut null = false;
            let row = pg_sys::ExecGetJunkAttribute(slot, self.row, &raw mut null);
            if null {
                return;
            }
            let header = pg_sys::pg_detoast_datum(row.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
            let mut tuple = pg_sys::HeapTupleData {
                t_len: pgrx::varlena::varsize_any(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            pg_sys::ExecForceStoreHeapTuple(&raw mut tuple, into, false);
            // The row's bytes are the plan's slot's.
            pg_sys::ExecMaterializeSlot(into);
        }
    }
}
