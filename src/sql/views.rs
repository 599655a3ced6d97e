//! What the views show: one row a mapping, one row of status.
use std::sync::atomic::Ordering;

use pg_redis_cache_core::{
    coherence::Reason,
    config::{Format, MAX_SERVERS, Mapping},
};
use pgrx::{datum::datetime_support::IntervalConversionError, prelude::*};

use super::{servers::Shown, shared};
use crate::{
    capture::{attached, columns, relations},
    gucs,
    shared::{DEFAULT, MappingState, MappingStats, Shared, StatusText},
    test_points::{self, TestPoint},
};

/// The list of the settings, also while `enabled` is off, with the places of its mappings.
pub fn placed(shared: Shared) -> Vec<(Option<u16>, Mapping)> {
    let default_database = gucs::text(&gucs::DATABASE);
    let placed = relations::listed()
        .into_iter()
        .map(|mapping| (shared.mapping_of(mapping.fingerprint(&default_database)), mapping))
        .collect();
    test_points::wait_at(TestPoint::Places);
    placed
}

/// The mappings in force, behind the view `mappings`.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row of a view
fn mapping_rows() -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(database, String),
        name!(relation, String),
        name!(key_template, String),
        name!(key_columns, Vec<String>),
        name!(value_columns, Option<Vec<String>>),
        name!(format, String),
        name!(ttl, Option<Interval>),
        name!(state, String),
        name!(problem, Option<String>),
        name!(attached, Option<bool>),
        name!(fill, String),
        name!(write, String),
        name!(insert, String),
        name!(server, String),
    ),
> {
    let shared = shared();
    let default_database = gucs::text(&gucs::DATABASE);
    // Before the places: with the list the worker has given all that there are.
    let in_force = shared.published() == relations::configured_fingerprint(&relations::configured());
    let rows: Vec<_> = placed(shared)
        .into_iter()
        .map(|(place, mapping)| {
            let (state, problem) = state_of(shared, place, in_force);
            (
                mapping.name.clone(),
                mapping.effective_database(&default_database).to_string(),
                format!("{}.{}", mapping.schema, mapping.table),
                mapping.template.to_string(),
                mapping.template.columns().map(str::to_string).collect(),
                value_columns(&mapping, &default_database),
                format_name(mapping.format).to_string(),
                mapping
                    .ttl
                    .map(|seconds| microseconds(i64::from(seconds.get()) * 1_000_000)),
                state.to_string(),
                problem,
                table_here(&mapping, &default_database).map(attached::is_attached),
                mapping.fill.to_string(),
                mapping.write.to_string(),
                mapping.insert.to_string(),
                mapping.effective_server().to_string(),
            )
        })
        .collect();
    TableIterator::new(rows)
}

fn state_of(shared: Shared, place: Option<u16>, in_force: bool) -> (&'static str, Option<String>) {
    if !gucs::ENABLED.get() {
        return ("off", None);
    }
    let Some(place) = place else {
        // The worker gives the places when it publishes the list, which after a reload is a moment later.
        let problem = in_force.then(|| match shared.free_place() {
            None => format!(
                "there is no place for it: pg_redis_cache.max_mappings is {}",
                gucs::max_mappings()
            ),
            Some(_) => format!("there is no place for its server: there can be {MAX_SERVERS}"),
        });
        return ("pending", problem);
    };
    match shared.state(place) {
        MappingState::Active => ("active", None),
        MappingState::Error => ("error", Some(shared.problem(place))),
        _ => (
            "pending",
            Some(shared.problem(place)).filter(|problem| !problem.is_empty()),
        ),
    }
}

/// The columns of `*` are known only in the mapping's own database.
fn value_columns(mapping: &Mapping, default_database: &str) -> Option<Vec<String>> {
    use pg_redis_cache_core::config::Columns;
    if let Columns::Named(names) = &mapping.columns {
        return Some(names.clone());
    }
    table_here(mapping, default_database).map(|table| columns::value_names(mapping, table))
}

/// The table of a mapping, if it is one of this database.
fn table_here(mapping: &Mapping, default_database: &str) -> Option<pg_sys::Oid> {
    let here = relations::current_database()?;
    if mapping.effective_database(default_database) != here {
        return None;
    }
    let table = relations::table_of(mapping);
    (table != pg_sys::InvalidOid).then_some(table)
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Hash => "hash",
        Format::Json => "json",
        Format::String => "string",
    }
}

/// An interval of so many microseconds.
pub fn microseconds(value: i64) -> Interval {
    let made: Result<Interval, IntervalConversionError> = Interval::new(0, 0, value);
    // Months and days of 0 are within every bound.
    made.unwrap_or_else(|_| Interval::from_micros(0))
}

/// The counters, behind the view `stats`.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row of a view
fn stat_rows() -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(fills, i64),
        name!(fills_skipped, i64),
        name!(fills_dropped, i64),
        name!(sets, i64),
        name!(deletes, i64),
        name!(purges, i64),
        name!(bytes, i64),
        name!(errors, i64),
    ),
> {
    let shared = shared();
    let rows: Vec<_> = placed(shared)
        .into_iter()
        .map(|(place, mapping)| {
            let nothing = MappingStats::default();
            let stats = place.map_or(&nothing, |place| shared.stats(place));
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as i64;
            (
                mapping.name,
                read(&stats.fills),
                read(&stats.fills_skipped),
                read(&stats.fills_dropped),
                read(&stats.sets),
                read(&stats.deletes),
                read(&stats.purges),
                read(&stats.bytes),
                read(&stats.errors),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// How often purges were called for and why, behind the view `purges`.
#[pg_extern(volatile, parallel_restricted)]
fn purge_rows() -> TableIterator<'static, (name!(name, String), name!(reason, String), name!(count, i64))> {
    let shared = shared();
    let rows: Vec<_> = placed(shared)
        .into_iter()
        .filter_map(|(place, mapping)| Some((shared.stats(place?), mapping.name)))
        .flat_map(|(stats, name)| {
            Reason::ALL.into_iter().map(move |reason| {
                let count = stats.reasons[reason as usize].load(Ordering::Relaxed) as i64;
                (name.clone(), reason.name().to_string(), count)
            })
        })
        .filter(|(_, _, count)| *count > 0)
        .collect();
    TableIterator::new(rows)
}

/// The worker and its connection to the server of the setting `url`, behind the view `status`.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row of a view
fn status_row() -> TableIterator<
    'static,
    (
        name!(worker_pid, Option<i32>),
        name!(connected, bool),
        name!(url, String),
        name!(server_version, Option<String>),
        name!(master, Option<String>),
        name!(queue_bytes, i64),
        name!(queue_capacity, i64),
        name!(oldest_unsent, Option<Interval>),
        name!(lag_last, Option<Interval>),
        name!(lag_p50, Option<Interval>),
        name!(lag_p99, Option<Interval>),
        name!(lag_max, Option<Interval>),
        name!(reconnects, i64),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
        name!(pool_size, i32),
        name!(pool_idle, i32),
        name!(pool_waiting, i32),
    ),
> {
    let shared = shared();
    let control = shared.control();
    let worker_pid = Some(control.worker_pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0);
    let shown = Shown::of(shared, DEFAULT);
    let row = (
        worker_pid,
        // A worker that exits takes its process id away before it says that it is connected nowhere.
        shown.connected && worker_pid.is_some(),
        gucs::masked_url(),
        shown.server_version,
        Some(shared.status_text(DEFAULT, StatusText::Master)).filter(|master| !master.is_empty()),
        shared.ring().used() as i64,
        shared.ring().capacity() as i64,
        shown.oldest_unsent,
        shared.lags()[DEFAULT]
            .last()
            .map(|last| microseconds(last as i64)),
        shown.lag_p50,
        shown.lag_p99,
        shown.lag_max,
        shown.reconnects,
        shown.last_error,
        shown.last_error_at,
        control.pool_size.load(Ordering::Relaxed) as i32,
        control.pool_idle.load(Ordering::Relaxed) as i32,
        control.pool_waiting.load(Ordering::Relaxed) as i32,
    );
    TableIterator::once(row)
}

/// Sets every counter of `stats` and the lag figures of `status` to zero.
#[pg_extern(volatile, parallel_unsafe)]
fn reset_stats() {
    let shared = shared();
    for mapping in shared.occupied() {
        shared.stats(mapping).reset();
    }
    shared.lags().iter().for_each(|lag| lag.reset());
}
