//! The view `connections`: what the worker is connected by.
use pg_redis_cache_core::redis::Kind;
use pgrx::{JsonB, prelude::*};

use super::{shared, views::microseconds};

/// The worker's connections, behind the view `connections`.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row of a view
fn connection_rows() -> TableIterator<
    'static,
    (
        name!(server, String),
        name!(role, String),
        name!(address, String),
        name!(state, String),
        name!(client_id, Option<i64>),
        name!(connected_since, Option<TimestampWithTimeZone>),
        name!(in_flight, i64),
        name!(sent, i64),
        name!(errors, JsonB),
        name!(average_time, Option<Interval>),
        name!(maximum_time, Option<Interval>),
    ),
> {
    let rows: Vec<_> = shared()
        .connections()
        .into_iter()
        .map(|shown| {
            (
                shown.server,
                shown.role,
                shown.address,
                shown.state.to_string(),
                shown.client_id.map(|id| id as i64),
                shown
                    .since
                    .and_then(|since| TimestampWithTimeZone::try_from(since).ok()),
                shown.in_flight as i64,
                shown.sent as i64,
                by_kind(&shown.errors),
                shown.times.map(|(mean, _)| microseconds(mean)),
                shown.times.map(|(_, longest)| microseconds(longest)),
            )
        })
        .collect();
    TableIterator::new(rows)
}

/// The kinds that there were, each with its number.
fn by_kind(errors: &[u64; Kind::ALL.len()]) -> JsonB {
    let counted = Kind::ALL.iter().zip(errors).filter(|(_, count)| **count > 0);
    let object = counted.map(|(kind, count)| (kind.name().to_string(), (*count).into()));
    JsonB(serde_json::Value::Object(object.collect()))
}
