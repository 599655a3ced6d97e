//! Any bytes as what Redis answers to a scan of a foreign table: no panic in reading them, in pieces or whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::fdw::{
    Access, Commands, Kind, Reading, options::Keys, reading::Needs, resp::Reader,
};

fuzz_target!(|bytes: &[u8]| {
    let [kind, how, rest @ ..] = bytes else { return };
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
    for piece in rest.chunks(usize::from(how >> 2) + 1) {
        reader.feed(piece);
    }
    let mut reading = Reading::new(needs, Access::new(kind, &keys, Vec::new()));
    loop {
        let mut commands = Commands::default();
        reading.ask(&mut commands);
        for _ in 0..commands.count {
            let Ok(Some(reply)) = reader.next_reply() else {
                return;
            };
            if reading.answer(reply).is_err() {
                return;
            }
        }
        while reading.next_row().is_some() {}
        if commands.count == 0 {
            return;
        }
    }
});
