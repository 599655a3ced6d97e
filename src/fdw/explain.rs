//! EXPLAIN: which commands a scan sends, and with ANALYZE what it did. The labels are those that users of redis_fdw_rs
//! know.
use std::ffi::{CStr, CString, c_int};

use pg_redis_cache_core::{
    fdw::{Comparison, Kind, Shape, Target, describe, options},
    redis::Place,
};
use pgrx::{pg_guard, pg_sys};

use super::{
    bound, catalog, connection::Figures, count::Count, node::Node, private::Order, scan::Scan, table::Table,
};
use crate::nodes;

/// ExplainForeignScan.
#[pg_guard]
pub unsafe extern "C-unwind" fn scan(
    node: *mut pg_sys::ForeignScanState,
    explain: *mut pg_sys::ExplainState,
) {
    // SAFETY: a node that has been started, and EXPLAIN's own state.
    unsafe {
        let scan = match super::node::of(node) {
            Node::Scan(scan) => scan,
            Node::Count(count) => {
                table(&count.table, explain);
                text(c"Pushdown", &counted(node, count, explain), explain);
                text(c"Redis Ops", &count.commands().join(", "), explain);
                if (*explain).analyze {
                    figures(count.figures, explain);
                }
                return;
            }
        };
        table(&scan.table, explain);
        text(c"Pushdown", &pushdown(node, explain), explain);
        text(c"Redis Ops", &commands(scan).join(", "), explain);
        match scan.order {
            Order::None => {}
            order => {
                let by = if is_stream(scan) { "by id" } else { "by score" };
                let down = if order == Order::Descending {
                    ", descending"
                } else {
                    ""
                };
                text(c"Order", &format!("{by}{down}"), explain);
            }
        }
        limit(node, scan, explain);
        number(c"Batch Size", scan.table.options.batch_size as u64, explain);
        if (*explain).analyze {
            figures(scan.figures(), explain);
            number(c"Rows Fetched", scan.rows, explain);
        }
    }
}

fn is_stream(scan: &Scan) -> bool {
    scan.table.options.kind == Kind::Stream
}

fn commands(scan: &Scan) -> Vec<String> {
    let mut shapes = scan.shapes.clone();
    if scan.order != Order::None && !is_stream(scan) {
        // The order of scores is had from a range of them.
        shapes.push(Shape {
            target: Target::Score,
            comparison: Comparison::GreaterEqual,
        });
    }
    let mut commands = describe::commands(
        scan.table.options.kind,
        &scan.table.layout,
        &shapes,
        scan.reads_ttl(),
        scan.fields.as_deref(),
    );
    if is_stream(scan)
        && scan.order == Order::Descending
        && let Some(range) = commands.last_mut()
    {
        *range = describe::latest_first(range);
    }
    commands
}

/// ExplainForeignModify.
#[pg_guard]
pub unsafe extern "C-unwind" fn modify(
    _node: *mut pg_sys::ModifyTableState,
    relation: *mut pg_sys::ResultRelInfo,
    _private: *mut pg_sys::List,
    _subplan: c_int,
    explain: *mut pg_sys::ExplainState,
) {
    // SAFETY: an open foreign table of ours, and EXPLAIN's own state.
    unsafe { table(&Table::of((*relation).ri_RelationDesc), explain) };
}

/// What is the same for reading and writing.
unsafe fn table(table: &Table, explain: *mut pg_sys::ExplainState) {
    // SAFETY: as `scan`.
    unsafe {
        text(c"Redis Server", &table.server_name, explain);
        if (*explain).verbose {
            text(c"Redis Address", &address(table), explain);
        }
        if let Some(mapping) = &table.mapping {
            text(c"Mapping", &mapping.name, explain);
        }
        text(c"Redis Key", &describe::keys(&table.layout), explain);
        text(c"Table Type", table.options.kind.name(), explain);
    }
}

/// Where the server is, as its own option says, without user and password. The setting's value is for superusers.
fn address(table: &Table) -> String {
    let given = catalog::server(table.server).given;
    let Ok(Some(addresses)) = options::addresses(&given) else {
        return "pg_redis_cache.url".to_string();
    };
    let places = addresses.iter().map(|address| match address.place() {
        Place::Tcp { host, port } => format!("{host}:{port}"),
        Place::Unix { path } => path.display().to_string(),
        Place::Service(service) => service.to_string(),
        Place::Cluster(nodes) => nodes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
    });
    places.collect::<Vec<_>>().join(", ")
}

unsafe fn figures(figures: Figures, explain: *mut pg_sys::ExplainState) {
    // SAFETY: as `scan`.
    unsafe {
        number(c"Redis Commands", figures.commands, explain);
        number(c"Redis Round Trips", figures.round_trips, explain);
        number(c"Redis Bytes Sent", figures.bytes_sent, explain);
        number(c"Redis Bytes Received", figures.bytes_received, explain);
    }
}

/// The conditions that narrow what is read, as SQL.
unsafe fn pushdown(node: *mut pg_sys::ForeignScanState, explain: *mut pg_sys::ExplainState) -> String {
    // SAFETY: the plan's conditions, which the planner has finished (fdw_recheck_quals).
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        let conditions = (*plan).fdw_recheck_quals;
        if conditions.is_null() {
            return "none".to_string();
        }
        let context =
            pg_sys::set_deparse_context_plan((*explain).deparse_cxt, plan.cast(), std::ptr::null_mut());
        let texts: Vec<String> = nodes::items::<pg_sys::Node>(conditions)
            .map(|condition| deparsed(condition, context))
            .collect();
        texts.join(" AND ")
    }
}

/// The conditions under which a plan counts, as SQL; it has no row of the table that they could be an expression on.
unsafe fn counted(
    node: *mut pg_sys::ForeignScanState,
    count: &Count,
    explain: *mut pg_sys::ExplainState,
) -> String {
    // SAFETY: as `scan`; the operands stand in the order of the conditions.
    let texts: Vec<String> = unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        let context =
            pg_sys::set_deparse_context_plan((*explain).deparse_cxt, plan.cast(), std::ptr::null_mut());
        let operands = nodes::items::<pg_sys::Node>((*plan).fdw_exprs);
        let shown = count.shapes().zip(operands).map(|((place, shape), operand)| {
            let column = count.table.columns[place]
                .as_ref()
                .map(|column| column.name.clone());
            let operand = deparsed(operand, context);
            let column = column.unwrap_or_default();
            match shape.comparison {
                Comparison::Any => format!("({column} = ANY ({operand}))"),
                comparison => format!("({column} {} {operand})", operator(comparison)),
            }
        });
        shown.collect()
    };
    match texts.is_empty() {
        true => "none".to_string(),
        false => texts.join(" AND "),
    }
}

/// The operator of a comparison.
fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal | Comparison::Any => "=",
        Comparison::Like => "~~",
        Comparison::Prefix => "^@",
        Comparison::Less => "<",
        Comparison::LessEqual => "<=",
        Comparison::GreaterEqual => ">=",
        Comparison::Greater => ">",
    }
}

/// An expression of a plan as SQL.
///
/// # Safety
/// `context` must be what `set_deparse_context_plan` has made for that plan.
pub unsafe fn deparsed(node: *mut pg_sys::Node, context: *mut pg_sys::List) -> String {
    // SAFETY: as the caller promises.
    unsafe {
        let text = pg_sys::deparse_expression(node, context, false, false);
        String::from_utf8_lossy(nodes::bytes(text)).into_owned()
    }
}

/// How many rows are asked for at first, if a LIMIT says so.
unsafe fn limit(node: *mut pg_sys::ForeignScanState, scan: &Scan, explain: *mut pg_sys::ExplainState) {
    // SAFETY: as `scan`.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        let bounds = nodes::items::<pg_sys::Expr>((*plan).fdw_exprs).skip(scan.planned);
        let bounds: Vec<_> = bounds.collect();
        if !bounds.is_empty() {
            let context =
                pg_sys::set_deparse_context_plan((*explain).deparse_cxt, plan.cast(), std::ptr::null_mut());
            text(c"Limit", &bound::describe(&bounds, context), explain);
        }
    }
}

unsafe fn text(label: &CStr, value: &str, explain: *mut pg_sys::ExplainState) {
    let value = CString::new(value.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: as `scan`; the value is copied.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), explain) }
}

/// A property that is a number.
///
/// # Safety
/// `explain` must be EXPLAIN's own state.
pub unsafe fn number(label: &CStr, value: u64, explain: *mut pg_sys::ExplainState) {
    // SAFETY: as `scan`.
    unsafe { pg_sys::ExplainPropertyInteger(label.as_ptr(), std::ptr::null(), value as i64, explain) }
}
