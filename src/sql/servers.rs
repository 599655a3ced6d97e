//! The view `servers`: each Redis that mappings have their keys on, or could have.
use std::sync::atomic::{AtomicI64, Ordering};

use pgrx::{datum::TimestampWithTimeZone, prelude::*};

use super::{shared, views::microseconds};
use crate::{
    gucs,
    shared::{MappingState, Shared, StatusText},
};

/// What stands for the url of a server that has left the list and is still to be purged.
const NOT_LISTED: &str = "(not in the list)";

/// The servers, behind the view `servers`.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row of a view
fn server_rows() -> TableIterator<
    'static,
    (
        name!(name, String),
        name!(url, String),
        name!(connected, bool),
        name!(server_version, Option<String>),
        name!(mappings, i64),
        name!(oldest_unsent, Option<Interval>),
        name!(lag_p50, Option<Interval>),
        name!(lag_p99, Option<Interval>),
        name!(lag_max, Option<Interval>),
        name!(reconnects, i64),
        name!(last_error, Option<String>),
        name!(last_error_at, Option<TimestampWithTimeZone>),
    ),
> {
    let shared = shared();
    let rows: Vec<_> = named(shared)
        .into_iter()
        .map(|(name, url)| {
            let number = shared.server_named(&name);
            let shown = number.map_or_else(Shown::default, |number| Shown::of(shared, number));
            (
                name,
                url,
                shown.connected,
                shown.server_version,
                number.map_or(0, |number| mappings_of(shared, number)),
                shown.oldest_unsent,
                shown.lag_p50,
                shown.lag_p99,
                shown.lag_max,
                shown.reconnects,
                shown.last_error,
                shown.last_error_at,
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// What `servers` shows of each server that has mappings, and `status` of the default one.
#[derive(Default)]
pub(super) struct Shown {
    pub connected: bool,
    pub server_version: Option<String>,
    pub oldest_unsent: Option<Interval>,
    pub lag_p50: Option<Interval>,
    pub lag_p99: Option<Interval>,
    pub lag_max: Option<Interval>,
    pub reconnects: i64,
    pub last_error: Option<String>,
    pub last_error_at: Option<TimestampWithTimeZone>,
}

impl Shown {
    pub fn of(shared: Shared, number: usize) -> Self {
        let (server, lag) = (shared.server(number), shared.lags()[number]);
        let text = |which| Some(shared.status_text(number, which)).filter(|text| !text.is_empty());
        let time = |value: &AtomicI64| Some(value.load(Ordering::Relaxed)).filter(|value| *value != 0);
        let interval = |value: Option<u64>| value.map(|value| microseconds(value as i64));
        // SAFETY: reads the clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        Self {
            connected: shared.connected(number),
            server_version: text(StatusText::ServerVersion),
            oldest_unsent: time(&server.oldest_unsent).map(|oldest| microseconds((now - oldest).max(0))),
            lag_p50: interval(lag.quantile(0.5)),
            lag_p99: interval(lag.quantile(0.99)),
            lag_max: interval(lag.max()),
            reconnects: server.reconnects.load(Ordering::Relaxed) as i64,
            last_error: text(StatusText::LastError),
            last_error_at: time(&server.last_error_at)
                .and_then(|at| TimestampWithTimeZone::try_from(at).ok()),
        }
    }
}

/// Names and masked urls: those of the settings, then those that have left the list and are still to be purged.
fn named(shared: Shared) -> Vec<(String, String)> {
    let mut named = gucs::servers::masked();
    for mapping in shared.occupied() {
        let name = shared.server_name(shared.server_of(mapping));
        if !named.iter().any(|(other, _)| *other == name) {
            named.push((name, NOT_LISTED.to_owned()));
        }
    }
    named
}

/// How many mappings of the list in force have their keys there.
fn mappings_of(shared: Shared, server: usize) -> i64 {
    shared
        .occupied()
        .filter(|mapping| shared.server_of(*mapping) == server)
        .filter(|mapping| shared.state(*mapping) != MappingState::Retiring)
        .count() as i64
}
