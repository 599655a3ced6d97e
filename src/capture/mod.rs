//! From a running statement to the rows that belong to a mapping.
//!
//! [`relations`] knows which relations are mapped, [`mapped`] how, [`columns`] what the catalog says of their columns,
//! [`inject`] makes a statement return the rows it changes, [`taps`] puts itself between the executor's nodes,
//! [`modify`], [`merge`] and [`scan`] take the rows there, [`attached`] takes those of a trigger, [`row`] turns a row
//! into key and value, [`ddl`] watches what no executor node shows.
//!
//! Guaranteed: a captured change is in the transaction's buffer before the statement's next row is asked for;
//! whatever cannot be captured exactly marks its mapping for a purge. Changes that reach the heap without the
//! executor are found out at commit ([`crate::xact::completeness`]).
pub mod attached;
pub mod columns;
pub mod ddl;
pub mod inject;
pub mod mapped;
mod merge;
mod modify;
mod point;
pub mod relations;
pub mod resolve;
pub mod row;
pub mod scan;
pub mod tap_all;
pub mod taps;
pub mod text;
mod versions;
