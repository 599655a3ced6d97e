//! The keys of a pattern, one step of a SCAN after the other.
use pg_redis_cache_core::fdw::{Commands, Kind, Reply, step};

use super::{error, line::Line};

/// How many keys are looked at in a step.
const AT_ONCE: usize = 1000;

/// Where the first step begins.
pub fn start() -> Option<Vec<u8>> {
    Some(b"0".to_vec())
}

/// Appends a step from this cursor on: for the keys of this pattern and, if it is given, of this type.
pub fn push_scan(commands: &mut Commands, cursor: &[u8], pattern: &[u8], kind: Option<Kind>) {
    step::push_scan(commands, cursor, pattern, AT_ONCE, kind);
}

/// The answer to such a step: where the next one begins, if there is one, and the keys. A key may come twice.
pub fn receive(line: &mut Line) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
    let Reply::Array(parts) = line.answer() else {
        error::garbled(&line.address())
    };
    let (next, keys) = step::cursor_and_found(parts).unwrap_or_else(|_| error::garbled(&line.address()));
    (next, keys.into_iter().filter_map(Reply::into_bytes).collect())
}

/// A step by itself.
pub fn scan(
    line: &mut Line,
    cursor: &[u8],
    pattern: &[u8],
    kind: Option<Kind>,
) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
    let mut commands = Commands::default();
    push_scan(&mut commands, cursor, pattern, kind);
    line.send(&commands);
    receive(line)
}
