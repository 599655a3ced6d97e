//! A scan of a foreign table.
//!
//! The way of reading is chosen from the plan's conditions once their operands have values: at the first row, and
//! again after each rescan. The next window is asked for as soon as one has arrived, before its rows are handed out.
use std::borrow::Cow;

use pg_redis_cache_core::fdw::{
    Access, Commands, Comparison, Element, Operand, ReadProblem, Reading, Role, Row, Shape, Target, element,
    options::Keys, reading::Needs,
};
use pgrx::{
    PgSqlErrorCode,
    pg_sys::{self, Datum},
};

use super::{
    cache,
    connection::{Figures, Line},
    error, identity,
    mapped::Documents,
    private::{Order, Private},
    table::Table,
    values::{Bytes, Converter},
};
use crate::{compat, nodes, sql::raise};

/// A condition whose operand has to be evaluated.
struct Condition {
    shape: Shape,
    operand: *mut pg_sys::ExprState,
    /// Of the operand's type, or of its array's elements.
    converter: Converter,
    /// What deconstruct_array asks of the elements' type.
    elements: Option<ElementType>,
}

struct ElementType {
    oid: pg_sys::Oid,
    length: i16,
    by_value: bool,
    alignment: std::ffi::c_char,
}

/// A column that the query needs.
struct Column {
    place: usize,
    role: Role,
    converter: Converter,
    /// Whether an UPDATE or DELETE finds the row again by it.
    identifies: bool,
}

/// See the module.
pub struct Scan {
    pub table: Table,
    pub shapes: Vec<Shape>,
    user: pg_sys::Oid,
    conditions: Vec<Condition>,
    columns: Vec<Column>,
    /// For a mapping's JSON documents, if any of their members is needed.
    documents: Option<(Documents, Converter)>,
    needs: Needs,
    pub order: Order,
    line: Option<Line>,
    reading: Option<Reading>,
    /// What the scan has done, rescans included.
    pub figures: Figures,
    pub rows: u64,
}

impl Scan {
    /// The scan that a node's plan describes.
    ///
    /// # Safety
    /// `node` must be a foreign scan of a table of ours that is being started.
    pub unsafe fn of_node(node: *mut pg_sys::ForeignScanState) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let relation = (*node).ss.ss_currentRelation;
            let table = Table::of(relation);
            let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
            let private = Private::from_list((*plan).fdw_private);
            let operands = nodes::items::<pg_sys::Expr>((*plan).fdw_exprs);
            let conditions = private.conditions.iter().zip(operands);
            let conditions = conditions.filter_map(|((place, comparison), operand)| {
                let shape = Shape {
                    target: target(table.layout.role(*place)?)?,
                    comparison: *comparison,
                };
                Some(Condition::new(shape, operand, table.bytes(), node))
            });
            let conditions = conditions.collect();
            let identifies = (*plan).fsSystemCol;
            let mut scan = Self::new(
                relation,
                table,
                compat::scan_user(node),
                &private.needed,
                identifies,
            );
            scan.with(conditions, private.order);
            scan
        }
    }

    /// A scan of all rows, with all columns.
    ///
    /// # Safety
    /// `relation` must be an open foreign table of ours, and stay so.
    pub unsafe fn of_relation(relation: pg_sys::Relation, user: pg_sys::Oid) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let table = Table::of(relation);
            let all: Vec<usize> = (0..table.columns.len()).collect();
            Self::new(relation, table, user, &all, false)
        }
    }

    unsafe fn new(
        relation: pg_sys::Relation,
        table: Table,
        user: pg_sys::Oid,
        needed: &[usize],
        identifies: bool,
    ) -> Self {
        let columns = needed.iter().filter_map(|place| {
            let role = table.layout.role(*place)?.clone();
            Some(Column {
                place: *place,
                identifies: identifies && identity::is_identifying(&table, &role),
                role,
                // SAFETY: as the callers promise.
                converter: unsafe { table.converter(*place) }?,
            })
        });
        let columns: Vec<Column> = columns.collect();
        let has_property = columns.iter().any(|column| column.role == Role::Property);
        // SAFETY: as the callers promise.
        let documents = has_property.then(|| unsafe {
            let name = "document".to_string();
            (
                Documents::of(relation),
                Converter::new(name, pg_sys::JSONOID, -1, Bytes::AsText),
            )
        });
        let needs = Needs {
            kind: table.options.kind,
            ttl: columns.iter().any(|column| column.role == Role::Ttl),
            batch_size: table.options.batch_size,
            one_key: !table.layout.has_key(),
        };
        Self {
            user,
            table,
            shapes: Vec::new(),
            conditions: Vec::new(),
            columns,
            documents,
            needs,
            order: Order::None,
            line: None,
            reading: None,
            figures: Figures::default(),
            rows: 0,
        }
    }

    fn with(&mut self, conditions: Vec<Condition>, order: Order) {
        self.shapes = conditions.iter().map(|condition| condition.shape).collect();
        self.conditions = conditions;
        self.order = order;
    }

    /// The next row; none at the end.
    ///
    /// # Safety
    /// `context` must be the node's own; it is not looked at where the scan has no conditions.
    pub unsafe fn next(&mut self, context: *mut pg_sys::ExprContext) -> Option<Row> {
        if self.reading.is_none() {
            // SAFETY: as the caller promises.
            let operands = unsafe { self.operands(context) };
            self.start(operands);
        }
        loop {
            if let Some(row) = self.reading.as_mut().and_then(Reading::next_row) {
                // SCAN finds more than a template's keys.
                let mapping = self.table.mapping.as_ref();
                if mapping.is_some_and(|mapping| mapping.keys.parts(&row.key).is_none()) {
                    continue;
                }
                self.rows += 1;
                return Some(row);
            }
            if !self.advance() {
                return None;
            }
        }
    }

    fn start(&mut self, operands: Vec<(Shape, Operand)>) {
        let access = match &self.table.mapping {
            Some(mapping) => mapping.keys.access(self.needs.kind, operands),
            None => Access::new(self.needs.kind, &self.table.layout.keys, operands),
        };
        let access = match self.order {
            Order::None => access,
            order => access.by_score(order == Order::Descending),
        };
        self.reading = Some(Reading::new(self.needs, access));
        if self.line.is_none() {
            let database = self.table.options.database;
            self.line = Some(cache::line(self.table.server, self.user, database));
        }
        self.ask();
    }

    /// Sends the next commands. Returns whether there were any.
    fn ask(&mut self) -> bool {
        let (Some(reading), Some(line)) = (&mut self.reading, &mut self.line) else {
            return false;
        };
        let mut commands = Commands::default();
        reading.ask(&mut commands);
        line.send(&commands);
        commands.count > 0
    }

    /// Takes the answers to what was asked, and asks for what is next. Returns whether any answers came.
    fn advance(&mut self) -> bool {
        let (Some(reading), Some(line)) = (&mut self.reading, &mut self.line) else {
            return false;
        };
        if !reading.is_waiting() {
            return false;
        }
        while reading.is_waiting() {
            let reply = line.receive();
            if let Err(problem) = reading.answer(reply) {
                self.fail(&problem);
            }
        }
        self.ask();
        true
    }

    fn fail(&self, problem: &ReadProblem) -> ! {
        match problem {
            ReadProblem::OtherType => {
                let key = match &self.table.options.keys {
                    Keys::One(key) | Keys::Matching(key) => String::from_utf8_lossy(key).into_owned(),
                };
                raise(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    format!("the key \"{key}\" holds another type than {}", self.needs.kind),
                    "",
                    "See the table's option table_type.",
                )
            }
            ReadProblem::Refused(text) => error::refused(text),
            ReadProblem::Unexpected => {
                error::garbled(&self.line.as_ref().map(Line::address).unwrap_or_default())
            }
        }
    }

    /// Ends the reading for another one, over the same line if nothing is on its way there.
    pub fn restart(&mut self) {
        if self.reading.as_ref().is_some_and(Reading::is_waiting) {
            self.stop();
        }
        self.reading = None;
    }

    /// Ends the reading; what is still on its way is nobody's.
    pub fn stop(&mut self) {
        self.reading = None;
        if let Some(line) = self.line.take() {
            self.figures.add(line.figures);
        }
    }

    /// Whether times to live are asked for.
    pub fn reads_ttl(&self) -> bool {
        self.needs.ttl
    }

    /// What the scan has done so far.
    pub fn figures(&self) -> Figures {
        let mut figures = self.figures;
        if let Some(line) = &self.line {
            figures.add(line.figures);
        }
        figures
    }

    unsafe fn operands(&mut self, context: *mut pg_sys::ExprContext) -> Vec<(Shape, Operand)> {
        self.conditions
            .iter_mut()
            // SAFETY: the expressions belong to the node whose context this is.
            .map(|condition| (condition.shape, unsafe { condition.evaluate(context) }))
            .collect()
    }

    /// Fills a slot with a row.
    ///
    /// # Safety
    /// `slot` must have the table's columns and just have been cleared. The values are in the current memory context.
    pub unsafe fn fill(&mut self, slot: *mut pg_sys::TupleTableSlot, row: &Row) {
        // SAFETY: as the caller promises.
        unsafe {
            let count = self.table.columns.len();
            let values = std::slice::from_raw_parts_mut((*slot).tts_values, count);
            let nulls = std::slice::from_raw_parts_mut((*slot).tts_isnull, count);
            let same = self.values(row, values, nulls);
            pg_sys::ExecStoreVirtualTuple(slot);
            if same {
                identity::set_row_id(row, &mut (*slot).tts_tid);
            }
        }
    }

    /// The values of a row; those that are not needed are NULL. Returns whether the row is found again by what its
    /// columns show.
    ///
    /// # Safety
    /// There must be a place for each column. The values are in the current memory context.
    pub unsafe fn values(&mut self, row: &Row, values: &mut [Datum], nulls: &mut [bool]) -> bool {
        nulls.fill(true);
        // SAFETY: as the caller promises.
        unsafe {
            if let Some(documents) = &mut self.documents
                && let Element::Value(document) = &row.element
            {
                documents.0.read(documents.1.read(document), values, nulls);
            }
            let mapping = self.table.mapping.as_ref();
            let parts = mapping.and_then(|mapping| mapping.keys.parts(&row.key));
            let parts = parts.unwrap_or_default();
            let mut same = true;
            for column in &mut self.columns {
                if let Some(value) = column.value(row, &parts) {
                    values[column.place] = value;
                    nulls[column.place] = false;
                    same = same && (!column.identifies || column.is_written_so(value, row, &parts));
                }
            }
            same
        }
    }
}

/// What a column's conditions are about.
fn target(role: &Role) -> Option<Target> {
    match role {
        Role::Key => Some(Target::Key),
        Role::Field | Role::Member | Role::Id => Some(Target::Name),
        Role::Score => Some(Target::Score),
        Role::Index => Some(Target::Index),
        Role::Part(part) => Some(Target::Part(*part)),
        Role::Value | Role::Element | Role::Named(_) | Role::Property | Role::Ttl => None,
    }
}

impl Condition {
    unsafe fn new(
        shape: Shape,
        operand: *mut pg_sys::Expr,
        bytes: Bytes,
        node: *mut pg_sys::ForeignScanState,
    ) -> Self {
        // SAFETY: an expression of the node's plan; the node is being started.
        unsafe {
            let mut type_id = pg_sys::exprType(operand.cast());
            let elements = (shape.comparison == Comparison::Any).then(|| {
                type_id = pg_sys::get_base_element_type(type_id);
                ElementType::of(type_id)
            });
            Self {
                shape,
                operand: pg_sys::ExecInitExpr(operand, (&raw mut (*node).ss.ps).cast()),
                converter: Converter::new("operand".to_string(), type_id, -1, bytes),
                elements,
            }
        }
    }

    unsafe fn evaluate(&mut self, context: *mut pg_sys::ExprContext) -> Operand {
        // SAFETY: as `Scan::operands`.
        unsafe {
            let mut null = false;
            let value = pg_sys::ExecEvalExpr(self.operand, context, &raw mut null);
            match &self.elements {
                _ if null => Operand::Null,
                None => Operand::One(self.converter.write(value)),
                Some(elements) => {
                    let values = elements.of_array(value);
                    Operand::Many(
                        values
                            .into_iter()
                            .map(|value| self.converter.write(value))
                            .collect(),
                    )
                }
            }
        }
    }
}

impl ElementType {
    unsafe fn of(oid: pg_sys::Oid) -> Self {
        let (mut length, mut by_value, mut alignment) = (0, false, 0);
        // SAFETY: a catalog look-up.
        unsafe {
            pg_sys::get_typlenbyvalalign(oid, &raw mut length, &raw mut by_value, &raw mut alignment);
        }
        Self {
            oid,
            length,
            by_value,
            alignment,
        }
    }

    /// An array's elements that are not NULL: no row equals that.
    unsafe fn of_array(&self, array: Datum) -> Vec<Datum> {
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: an array of these elements.
        unsafe {
            let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            pg_sys::deconstruct_array(
                array,
                self.oid,
                self.length.into(),
                self.by_value,
                self.alignment,
                &raw mut values,
                &raw mut nulls,
                &raw mut count,
            );
            (0..count as usize)
                .filter(|place| !*nulls.add(*place))
                .map(|place| *values.add(place))
                .collect()
        }
    }
}

impl Column {
    /// What Redis has of the column in a row; none is NULL.
    fn bytes<'r>(&self, row: &'r Row, parts: &[&'r [u8]]) -> Option<Cow<'r, [u8]>> {
        let number = |number: i64| Some(Cow::Owned(number.to_string().into_bytes()));
        let bytes: &[u8] = match (&self.role, &row.element) {
            (Role::Key, _) => &row.key,
            (Role::Part(part), _) => parts.get(*part)?,
            (Role::Ttl, _) => return number(row.ttl),
            (Role::Index, Element::Item { index, .. }) => return number(*index),
            (Role::Value, Element::Value(value) | Element::Pair { value, .. }) => value,
            (Role::Field, Element::Pair { field, .. }) => field,
            (Role::Element, Element::Item { element, .. }) => element,
            (Role::Member, Element::Member(member) | Element::Scored { member, .. }) => member,
            (Role::Score, Element::Scored { score, .. }) => {
                return Some(Cow::Owned(element::format_score(*score).into_bytes()));
            }
            (Role::Id, Element::Entry { id, .. }) => id,
            (Role::Named(name), Element::Entry { fields, .. }) => {
                &fields.iter().find(|(field, _)| field == name)?.1
            }
            _ => return None,
        };
        Some(Cow::Borrowed(bytes))
    }

    /// The column's value in a row; none is NULL.
    unsafe fn value(&mut self, row: &Row, parts: &[&[u8]]) -> Option<Datum> {
        let bytes = self.bytes(row, parts)?;
        // SAFETY: within a transaction.
        Some(unsafe { self.converter.read(&bytes) })
    }

    /// Whether the value would be written as Redis has it.
    unsafe fn is_written_so(&self, value: Datum, row: &Row, parts: &[&[u8]]) -> bool {
        // SAFETY: the column's own value.
        let written = unsafe { self.converter.write(value) };
        self.bytes(row, parts).is_some_and(|bytes| *bytes == written)
    }
}
