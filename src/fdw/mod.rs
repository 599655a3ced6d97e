//! The foreign data wrapper: Redis as tables.
//!
//! What a Redis collection is as rows, how it is read and what it is changed by, is in the core crate
//! (`pg_redis_cache_core::fdw`), which knows no PostgreSQL. Here are the callbacks ([`handler`]), the way from a
//! query's conditions to the core's ([`clauses`]), values ([`values`]) and connections ([`connection`], [`cache`]).
//!
//! Guarantees: a backend that touches no foreign table opens no connection and allocates nothing. Redis is not asked
//! when a statement is planned, but with `use_remote_estimate`. A plan holds nothing but nodes, so it may be cached, copied and carried out at any time
//! ([`private`]). What Redis is asked for narrows what is read; unless that is exact, every condition is checked again. No
//! password is in any message, nor in EXPLAIN.
//!
//! Does not: keep to a snapshot. Redis has none; see `docs/FDW.md`.
mod ahead;
mod analyze;
mod bound;
mod cache;
mod catalog;
mod clauses;
mod cluster;
mod collation;
mod column;
mod condition;
mod connection;
mod count;
mod error;
mod estimate;
mod explain;
mod handler;
mod identity;
mod import;
mod key_scan;
mod line;
mod mapped;
mod modify;
mod node;
mod owned;
mod paths;
mod pending;
mod plan;
mod private;
mod rows;
mod scan;
mod table;
mod truncate;
mod validate;
mod values;
mod when;

pub use connection::Credentials;
pub use line::{Line, Route};

pgrx::extension_sql_file!("../../sql/fdw.sql", name = "fdw");
