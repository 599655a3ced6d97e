//! Any bytes as what Redis answers to a scan of a foreign table: no panic in reading them, in pieces or whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::fdw::{
    Access, Commands, Comparison, Kind, Operand, Reading, Shape, Target, options::Keys, reading::Needs,
    resp::Reader,
};

/// What Redis is asked: everything, or in one of the ways that a condition has it asked.
fn access(kind: Kind, keys: &Keys, way: u8) -> Access {
    let on = |target, comparison, operand| (Shape { target, comparison }, operand);
    let one = |text: &str| Operand::One(text.into());
    let target = if kind == Kind::List {
        Target::Index
    } else {
        Target::Name
    };
    let conditions = match way % 4 {
        0 | 1 => Vec::new(),
        2 => vec![on(
            target,
            Comparison::Any,
            Operand::Many(vec![b"1-1".to_vec(), b"2".to_vec(), b"300".to_vec()]),
        )],
        _ if kind == Kind::Zset => vec![on(Target::Score, Comparison::GreaterEqual, one("1"))],
        _ => vec![on(target, Comparison::GreaterEqual, one("1"))],
    };
    let access = Access::new(kind, keys, conditions);
    if kind == Kind::Zset && way & 1 == 1 {
        access.by_score(way & 4 == 0)
    } else {
        access
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, how, way, rest @ ..] = bytes else {
        return;
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let one_key = how & 1 == 0;
    let keys = if one_key {
        Keys::One(b"k".to_vec())
    } else {
        Keys::Matching(b"k*".to_vec())
    };
    let needs = Needs {
        kind,
        ttl: how & 2 == 0,
        batch_size: 100,
        one_key,
    };
    let mut reader = Reader::default();
    let mut pieces = rest.chunks(usize::from(how >> 2) + 1);
    let mut reading = Reading::new(needs, access(kind, &keys, *way));
    loop {
        let mut commands = Commands::default();
        if !reading.has_foreseen() {
            reading.ask(&mut commands);
        }
        if !reading.is_waiting() {
            return;
        }
        reading.begin_window();
        while reading.is_in_window() {
            let reply = loop {
                match reader.next_reply() {
                    Ok(Some(reply)) => break reply,
                    Ok(None) => {}
                    Err(_) => return,
                }
                reading.foresee(reader.begun(), &mut commands);
                let Some(piece) = pieces.next() else { return };
                reader.feed(piece);
            };
            if reading.answer(reply).is_err() {
                return;
            }
        }
        while reading.next_row().is_some() {}
    }
});
