//! A condition given as text, for a query of our own.
//!
//! It runs with the caller's privileges, like any query of the caller's. What is made sure of here is that it is
//! one expression and ends where its text ends: it cannot close the bracket that it is put in. Errors in it tell
//! the place in the caller's text, and not in the query around it.
use std::{
    cell::Cell,
    ffi::{CString, c_int, c_void},
    panic::AssertUnwindSafe,
};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{self, NodeTag, panic::CaughtError},
};

use super::raise;
use crate::nodes;

/// An SQL expression in brackets, behind the query's own text.
pub struct Predicate<'a>(&'a str);

impl<'a> Predicate<'a> {
    /// Parses the text, or raises.
    pub fn new(text: &'a str) -> Self {
        let parsed = with_position(0, text, || {
            let text = CString::new(text).unwrap_or_default();
            // SAFETY: the parser of PL/pgSQL's expressions, which takes what may stand behind SELECT; the tree is
            // looked at only here.
            unsafe {
                is_expression(pg_sys::raw_parser(
                    text.as_ptr(),
                    pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR,
                ))
            }
        });
        if !parsed {
            raise(
                PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                "the predicate is not one SQL expression",
                "",
                "Give what would stand behind WHERE, for example 'last_login > now() - interval ''1 day'''.",
            );
        }
        Self(text)
    }

    /// Appends it to a query in a form that can be followed by anything, and prepares the whole by `prepare`.
    pub fn prepare<R>(&self, mut query: String, prepare: impl FnOnce(&str) -> R) -> R {
        query.push_str(" AND (");
        let before = query.chars().count();
        query.push_str(self.0);
        // A comment at its end must not take the bracket with it.
        query.push_str("\n)");
        with_position(before, self.0, || prepare(&query))
    }
}

/// Whether a parse tree is `SELECT <one expression>` and nothing else.
unsafe fn is_expression(trees: *mut pg_sys::List) -> bool {
    // SAFETY: the casts follow the tags.
    unsafe {
        let mut trees = nodes::items::<pg_sys::RawStmt>(trees);
        let (Some(tree), None) = (trees.next(), trees.next()) else {
            return false;
        };
        let select = (*tree).stmt.cast::<pg_sys::SelectStmt>();
        if !nodes::is_a(select, NodeTag::T_SelectStmt) {
            return false;
        }
        let select = &*select;
        let mut targets = nodes::items::<pg_sys::ResTarget>(select.targetList);
        let (Some(target), None) = (targets.next(), targets.next()) else {
            return false;
        };
        (*target).name.is_null()
            && select.distinctClause.is_null()
            && select.fromClause.is_null()
            && select.whereClause.is_null()
            && select.groupClause.is_null()
            && select.havingClause.is_null()
            && select.windowClause.is_null()
            && select.sortClause.is_null()
            && select.limitOffset.is_null()
            && select.limitCount.is_null()
            && select.lockingClause.is_null()
    }
}

thread_local! {
    /// Where in the query's text the latest error is, in characters from 1; 0 for nowhere.
    static POSITION: Cell<c_int> = const { Cell::new(0) };
}

/// Called while an error is being reported (elog.c, errfinish), when it still has its position: pgrx's guard takes
/// that off.
unsafe extern "C-unwind" fn note_position(_argument: *mut c_void) {
    // SAFETY: an error is being reported. SPI has made the position an internal one (spi.c, _SPI_error_callback).
    let position = unsafe {
        match pg_sys::getinternalerrposition() {
            0 => pg_sys::geterrposition(),
            position => position,
        }
    };
    POSITION.set(position);
}

/// Does some work on a query that has `text` behind `before` characters, and tells in an error's DETAIL where in
/// `text` it is.
fn with_position<R>(before: usize, text: &str, work: impl FnOnce() -> R) -> R {
    POSITION.set(0);
    // SAFETY: the callback is taken off again before it goes, on either way out: a caught error leaves the stack of
    // callbacks as it was at the call that raised.
    unsafe {
        let mut callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(note_position),
            arg: std::ptr::null_mut(),
        };
        let previous = callback.previous;
        pg_sys::error_context_stack = &raw mut callback;
        let result = PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_others(|error| {
                pg_sys::error_context_stack = previous;
                let place = usize::try_from(POSITION.get())
                    .unwrap_or(0)
                    .saturating_sub(before);
                match &error {
                    CaughtError::PostgresError(report) if (1..=text.chars().count() + 1).contains(&place) => {
                        let where_it_is = format!("At character {place} of the predicate.");
                        let detail = match report.detail() {
                            Some(detail) => format!("{detail} {where_it_is}"),
                            None => where_it_is,
                        };
                        raise(
                            report.sql_error_code(),
                            report.message().to_owned(),
                            detail,
                            report.hint().unwrap_or_default(),
                        )
                    }
                    _ => error.rethrow(),
                }
            })
            .execute();
        pg_sys::error_context_stack = previous;
        result
    }
}
