//! A scan of a foreign table.
//!
//! The way of reading is chosen from the plan's conditions once their operands have values: at the first row, and
//! again after each rescan. The next window is asked for as soon as one has arrived, before its rows are handed out.
use std::rc::Rc;

use pg_redis_cache_core::fdw::{
    Access, Commands, Element, Kind, Operand, ReadProblem, Reading, Role, Row, Shape, reading::Needs,
};
use pgrx::pg_sys::{self, Datum};

use super::{
    ahead::{Follower, Lookup},
    bound::Bound,
    cache,
    column::Column,
    condition::Condition,
    connection::Figures,
    error, identity,
    line::Line,
    mapped::Documents,
    pending,
    private::{Order, Private},
    table::Table,
    values::{Bytes, Converter},
};
use crate::{capture::text::Pinning, compat, nodes};

/// See the module.
pub struct Scan {
    pub table: Table,
    pub shapes: Vec<Shape>,
    /// How many conditions the plan has.
    pub planned: usize,
    user: pg_sys::Oid,
    conditions: Vec<Condition>,
    columns: Vec<Column>,
    /// For a mapping's JSON documents, if any of their members is needed.
    documents: Option<(Documents, Converter)>,
    pub needs: Needs,
    /// The fields that are needed of a mapping's hashes, if they are few.
    pub fields: Option<Vec<Vec<u8>>>,
    pub order: Order,
    /// Whether conditions that are not exact have to be checked by the scan: the plan does not.
    trusted: bool,
    /// Whether what is being read has to be checked.
    pub rechecks: bool,
    bound: Option<Bound>,
    /// How many more rows are wanted, as far as that is known.
    wanted: usize,
    /// Whether the next window was not asked for, because rows enough are at hand.
    held: bool,
    line: Option<Line>,
    reading: Option<Reading>,
    /// Where the scan is the inner side of a join with look-ahead.
    follower: Option<Follower>,
    /// What that has found for the present outer row.
    found: Option<std::vec::IntoIter<Rc<Row>>>,
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
            let bounds = nodes::items::<pg_sys::Expr>((*plan).fdw_exprs).skip(private.conditions.len());
            let bound = Bound::new(bounds, node);
            let conditions = private.conditions.iter().zip(operands);
            let conditions = conditions.filter_map(|(planned, operand)| {
                Condition::new(&table, *planned, operand, (&raw mut (*node).ss.ps).cast())
            });
            let conditions: Vec<Condition> = conditions.collect();
            let identifies = (*plan).fsSystemCol;
            let mut scan = Self::new(
                relation,
                table,
                compat::scan_user(node),
                &private.needed,
                identifies,
            );
            scan.with(conditions, private.order);
            scan.follower = Follower::new((*node).ss.ps.state, private.ahead);
            scan.planned = private.conditions.len();
            (scan.trusted, scan.bound) = (private.trusted, bound);
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
        if let Some(mapping) = &table.mapping {
            let needed = columns.iter().filter(|column| column.role != Role::Ttl);
            // SAFETY: as the callers promise.
            unsafe { mapping.check_rights(relation, needed.map(|column| column.converter.name())) };
        }
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
        let fields = table
            .mapping
            .as_ref()
            .and_then(|mapping| mapping.few_fields(&columns));
        Self {
            user,
            table,
            fields,
            shapes: Vec::new(),
            planned: 0,
            conditions: Vec::new(),
            columns,
            documents,
            needs,
            order: Order::None,
            trusted: false,
            rechecks: false,
            bound: None,
            wanted: usize::MAX,
            held: false,
            line: None,
            reading: None,
            follower: None,
            found: None,
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
        if self.reading.is_none() && self.found.is_none() {
            // SAFETY: as the caller promises.
            let (operands, wanted) = unsafe { (self.operands(context), self.wanted(context)) };
            self.found = self.ahead(&operands);
            match self.found {
                Some(_) => self.rechecks = self.trusted && !self.is_exact(&operands),
                None => self.start(operands, wanted),
            }
        }
        loop {
            let row = match (&mut self.found, &mut self.reading) {
                (Some(found), _) => found.next().map(Rc::unwrap_or_clone),
                (None, reading) => reading.as_mut().and_then(Reading::next_row),
            };
            if let Some(row) = row {
                // SCAN finds more than a template's keys.
                let mapping = self.table.mapping.as_ref();
                if mapping.is_some_and(|mapping| !mapping.is_own(&row.key)) {
                    continue;
                }
                self.rows += 1;
                self.wanted = self.wanted.saturating_sub(1);
                return Some(row);
            }
            if !self.advance() {
                return None;
            }
        }
    }

    /// The rows that were asked for with those of other outer rows.
    fn ahead(&mut self, conditions: &[(Shape, Operand)]) -> Option<std::vec::IntoIter<Rc<Row>>> {
        let mut follower = self.follower.take()?;
        let rows = follower.rows(self, conditions);
        self.follower = Some(follower);
        rows.map(Vec::into_iter)
    }

    /// Whether a reading by these conditions brings just what the plan's conditions leave.
    fn is_exact(&self, operands: &[(Shape, Operand)]) -> bool {
        // A condition that the plan has and the scan no longer: see `Condition::new`.
        self.conditions.len() == self.planned && self.access(operands.to_vec()).exact
    }

    fn start(&mut self, operands: Vec<(Shape, Operand)>, wanted: Option<usize>) {
        pending::check_unchanged(&self.table);
        let access = match self.order {
            Order::None => self.access(operands),
            Order::Ascending if self.needs.kind == Kind::Stream => self.access(operands),
            Order::Descending if self.needs.kind == Kind::Stream => self.access(operands).latest_first(),
            order => self.access(operands).by_score(order == Order::Descending),
        };
        let lost = self.conditions.len() < self.planned;
        self.rechecks = self.trusted && (lost || !access.exact);
        let wanted = wanted.filter(|_| !self.rechecks);
        (self.wanted, self.held) = (wanted.unwrap_or(usize::MAX), false);
        let reading = Reading::new(self.needs, access);
        self.reading = Some(match wanted {
            Some(rows) => reading.beginning_with(rows),
            None => reading,
        });
        self.line();
        self.ask();
    }

    /// The way to the rows that may meet conditions.
    pub fn access(&self, conditions: Vec<(Shape, Operand)>) -> Access {
        let access = match &self.table.mapping {
            Some(mapping) => mapping.keys.access(self.needs.kind, conditions),
            None => Access::new(self.needs.kind, &self.table.layout.keys, conditions),
        };
        match &self.fields {
            Some(fields) => access.with_fields(fields),
            None => access,
        }
    }

    /// The scan's line to Redis.
    pub fn line(&mut self) -> &mut Line {
        let Self { table, user, .. } = self;
        self.line.get_or_insert_with(|| cache::line_of(table, *user))
    }

    /// Whether a look-up is that by those of the conditions whose operands come from other tables.
    pub fn is_lookup(&self, conditions: &[(Shape, Operand)], lookup: &Lookup) -> bool {
        let all = self.conditions.iter().zip(conditions);
        let joining = all.filter(|(condition, _)| condition.joins);
        let mut joining: Vec<_> = joining
            .map(|(condition, (shape, operand))| (condition.place, shape.comparison, operand))
            .collect();
        joining.sort_unstable();
        joining.into_iter().eq(lookup
            .iter()
            .map(|(place, comparison, operand)| (*place, *comparison, operand)))
    }

    /// The conditions of which every row has the same operands.
    pub fn constant(&self, conditions: &[(Shape, Operand)]) -> Vec<(Shape, Operand)> {
        let all = self.conditions.iter().zip(conditions);
        let constant = all.filter(|(condition, _)| !condition.joins);
        constant.map(|(_, condition)| condition.clone()).collect()
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
            return std::mem::take(&mut self.held) && self.ask();
        }
        reading.begin_window();
        // Where so many rows are wanted the next window may not be.
        let foresees = self.wanted == usize::MAX;
        while reading.is_in_window() {
            let reply = line.receive_foreseeing(|begun, commands| {
                if foresees {
                    reading.foresee(begun, commands);
                }
            });
            if let Err(problem) = reading.answer(reply) {
                self.fail(&problem);
            }
        }
        let has_foreseen = reading.has_foreseen();
        self.held = reading.at_hand() >= self.wanted;
        if !self.held && !has_foreseen {
            self.ask();
        }
        true
    }

    /// Raises why reading cannot go on.
    pub fn fail(&self, problem: &ReadProblem) -> ! {
        let address = self.line.as_ref().map(Line::address).unwrap_or_default();
        error::unread(&self.table, problem, &address)
    }

    /// Ends the reading for another one, over the same line if nothing is on its way there.
    pub fn restart(&mut self) {
        if self.reading.as_ref().is_some_and(Reading::is_waiting) {
            self.stop();
        }
        self.reading = None;
        self.found = None;
    }

    /// Ends the reading; what is still on its way is nobody's.
    pub fn stop(&mut self) {
        self.reading = None;
        if let Some(line) = self.line.take() {
            self.figures.add(line.figures());
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
            figures.add(line.figures());
        }
        figures
    }

    unsafe fn wanted(&self, context: *mut pg_sys::ExprContext) -> Option<usize> {
        // SAFETY: as `next`.
        self.bound
            .as_ref()
            .and_then(|bound| unsafe { bound.rows(context) })
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
            // As ExecStoreVirtualTuple does (execTuples.c); nothing here can raise, so it needs no guard for each row.
            (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
            (*slot).tts_nvalid = count as pg_sys::AttrNumber;
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
            let mapping = self.table.mapping.as_ref();
            if let Some((documents, converter)) = &mut self.documents
                && let (Some(mapping), Element::Value(document)) = (mapping, &row.element)
            {
                mapping.telling(&row.key, None, Pinning::ALL, || {
                    documents.read(converter.read(document), values, nulls);
                });
            }
            let parts = mapping.and_then(|mapping| mapping.keys.parts(&row.key));
            let parts = parts.unwrap_or_default();
            let mut same = true;
            for column in &mut self.columns {
                if let Some(value) = column.value(row, &parts, mapping) {
                    values[column.place] = value;
                    nulls[column.place] = false;
                    same = same && (!column.identifies || column.is_written_so(value, row, &parts));
                }
            }
            same
        }
    }
}
