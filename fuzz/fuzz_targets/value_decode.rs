//! Any bytes as a value: no panic, and what decodes is what its writer writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::encode::value::{HashWriter, Value, begin_text};

fuzz_target!(|bytes: &[u8]| {
    let mut written = Vec::new();
    match Value::decode(bytes) {
        Ok(Value::Text(text)) => {
            begin_text(&mut written);
            written.extend_from_slice(text);
        }
        Ok(Value::Hash(hash)) => {
            let mut writer = HashWriter::begin(&mut written);
            hash.fields().for_each(|(name, value)| writer.field(name, value));
            if !hash.complete() {
                writer.null();
            }
            assert!(writer.finish());
        }
        Err(_) => return,
    }
    assert_eq!(written, bytes);
});
