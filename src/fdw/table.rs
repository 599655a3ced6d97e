//! A foreign table: its options, and what each of its columns stands for.
use pg_redis_cache_core::fdw::{
    Column, Comparison, Layout, Shape, TableOptions, Target,
    options::{self, Keys},
    step::Key,
};
use pgrx::{
    PgSqlErrorCode,
    pg_sys::{self, Oid},
};

use super::{
    catalog, condition, error,
    mapped::Mapped,
    values::{Bytes, Converter},
};
use crate::{compat, nodes, sql::raise};

/// See the module.
pub struct Table {
    pub relid: Oid,
    pub server: Oid,
    pub server_name: String,
    pub options: TableOptions,
    pub layout: Layout,
    /// The key, or the pattern of keys.
    key: Key,
    /// The mapping that the table shows, if it shows one.
    pub mapping: Option<Mapped>,
    /// The columns' names and types, none for those that have been dropped.
    pub columns: Vec<Option<TableColumn>>,
}

/// A column as the catalogs have it.
pub struct TableColumn {
    pub name: String,
    pub type_id: Oid,
    pub modifier: i32,
}

impl Table {
    /// Reads a foreign table's definition, or raises what is wrong with it.
    ///
    /// # Safety
    /// `relation` must be an open foreign table of ours.
    pub unsafe fn of(relation: pg_sys::Relation) -> Self {
        // SAFETY: as the caller promises.
        let (relid, columns) = unsafe { ((*relation).rd_id, columns(relation)) };
        let (server, catalog::Server { name, .. }, given) = catalog::table(relid);
        if let Some(mapping) = options::mapping(&given) {
            let (mapping, options, layout) = Mapped::open(mapping, &given, &columns);
            return Self {
                relid,
                server,
                server_name: name,
                options,
                key: key_of(&layout),
                layout,
                mapping: Some(mapping),
                columns,
            };
        }
        let options = TableOptions::read(&given).unwrap_or_else(|problem| error::option(&problem));
        let described: Vec<Option<Column>> = columns
            .iter()
            .map(|column| column.as_ref().map(TableColumn::describe))
            .collect();
        let layout = Layout::of(&options, &described).unwrap_or_else(|misfit| {
            raise(
                PgSqlErrorCode::ERRCODE_FDW_INVALID_COLUMN_NUMBER,
                misfit.to_string(),
                "",
                misfit.hint(),
            )
        });
        Self {
            relid,
            server,
            server_name: name,
            options,
            key: key_of(&layout),
            layout,
            mapping: None,
            columns,
        }
    }

    /// The same, of a relation that is locked already.
    pub fn open(relid: Oid) -> Self {
        // SAFETY: the statement holds a lock on each of its relations.
        unsafe {
            let relation = pg_sys::table_open(relid, pg_sys::NoLock as i32);
            let table = Self::of(relation);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            table
        }
    }

    /// The key of a table over one.
    pub fn one_key(&self) -> Key {
        self.key.clone()
    }

    /// Raises unless the table's server is where the worker writes its mapping's keys.
    pub fn check_is_cache(&self) {
        let server = catalog::server(self.server);
        if options::have_address(&server.given) {
            error::elsewhere(&self.server_name);
        }
    }

    /// A condition on the column at a place, if Redis can be asked by it.
    pub fn shape(&self, place: usize, comparison: Comparison) -> Option<Shape> {
        let target = condition::target(self.layout.role(place)?)?;
        // What a plan knew of the mapped table may have changed: no foreign table's plan depends on it.
        if let (Target::Part(part), Some(mapping)) = (target, &self.mapping) {
            let column = self.columns.get(place)?.as_ref()?;
            // SAFETY: a catalog look-up.
            let base = unsafe { pg_sys::getBaseType(column.type_id) };
            mapping.has_text_of(part, base, column.modifier).then_some(())?;
        }
        Some(Shape { target, comparison })
    }

    /// What Redis has of bytea values.
    pub fn bytes(&self) -> Bytes {
        match self.mapping {
            Some(_) => Bytes::AsText,
            None => Bytes::AsTheyAre,
        }
    }

    /// The converter of the column at a place.
    ///
    /// # Safety
    /// Must be called within a transaction, in a memory context that outlives the converter.
    pub unsafe fn converter(&self, place: usize) -> Option<Converter> {
        let column = self.columns.get(place)?.as_ref()?;
        // SAFETY: as the caller promises.
        Some(unsafe { Converter::new(column.name.clone(), column.type_id, column.modifier, self.bytes()) })
    }
}

fn key_of(layout: &Layout) -> Key {
    match &layout.keys {
        Keys::One(key) | Keys::Matching(key) => key.as_slice().into(),
    }
}

impl TableColumn {
    fn describe(&self) -> Column {
        // SAFETY: a catalog look-up.
        let base = unsafe { pg_sys::getBaseType(self.type_id) };
        Column {
            name: self.name.clone(),
            is_integer: matches!(base, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID),
        }
    }
}

unsafe fn columns(relation: pg_sys::Relation) -> Vec<Option<TableColumn>> {
    // SAFETY: the descriptor of an open relation.
    unsafe {
        let descriptor = (*relation).rd_att;
        (1..=(*descriptor).natts as i16)
            .map(|number| {
                let attribute = &*compat::attribute(descriptor, number);
                (!attribute.attisdropped).then(|| TableColumn {
                    name: String::from_utf8_lossy(nodes::bytes(attribute.attname.data.as_ptr())).into_owned(),
                    type_id: attribute.atttypid,
                    modifier: attribute.atttypmod,
                })
            })
            .collect()
    }
}
