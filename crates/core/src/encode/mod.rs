//! Turning a row into a key and a value, and a key back into column values.
//!
//! [`key`] renders and parses keys by a mapping's template; [`collision`] tells whether two templates could
//! meet in one key. [`value`] is the form in which a value travels through the ring; [`json`] writes the
//! text of the `json` format. [`difference`] compares what Redis holds with what would be written. Everything else works on bytes that the caller owns; the functions that run once
//! per row allocate nothing but what they append.
//!
//! Not here: how a column's text is made. That is PostgreSQL's output function under fixed settings.

pub mod collision;
pub mod difference;
pub mod json;
pub mod key;
pub mod value;

#[cfg(test)]
mod properties;

/// Appends an integer as PostgreSQL prints int2, int4 and int8.
pub fn push_int(out: &mut Vec<u8>, integer: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
}
