//! The view `progress`: what `verify` and `warm` are doing.
use pgrx::prelude::*;

use super::{shared, views};

/// The functions that run now, behind the view `progress`.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)] // the row of a view
fn progress_rows() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(command, String),
        name!(mapping, String),
        name!(phase, String),
        name!(rows_done, i64),
        name!(rows_total, Option<i64>),
        name!(started_at, Option<TimestampWithTimeZone>),
    ),
> {
    let shared = shared();
    let names = views::placed(shared);
    let rows: Vec<_> = shared
        .progress()
        .into_iter()
        .filter_map(|shown| {
            let (_, mapping) = names.iter().find(|(place, _)| *place == Some(shown.mapping))?;
            let (command, phase) = shown.phase.names();
            Some((
                shown.pid,
                command.to_string(),
                mapping.name.clone(),
                phase.to_string(),
                shown.done as i64,
                shown.total.map(|total| total as i64),
                TimestampWithTimeZone::try_from(shown.started_at).ok(),
            ))
        })
        .collect();
    TableIterator::new(rows)
}
