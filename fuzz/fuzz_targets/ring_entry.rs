//! Any bytes as an entry of the ring: no panic, and what is read of a transaction lies within the entry, each
//! byte of it in one op alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::ring::batch::{Entry, decode};

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(Entry::Transaction(transaction)) => {
            let epochs = transaction.epochs().count();
            let ops: usize = transaction.ops().map(|op| op.encoded_len()).sum();
            assert_eq!(31 + 10 * epochs + ops, bytes.len());
            for op in transaction.ops() {
                let _ = transaction.epoch_of(op.mapping);
            }
        }
        Ok(Entry::Fills(fills)) => {
            let rows = fills.fills();
            let length: usize = rows.map(|fill| 34 + fill.key.len() + fill.value.len()).sum();
            assert_eq!(29 + length, bytes.len());
        }
        Ok(Entry::Invalidate(invalidate)) => assert_eq!(23 + invalidate.key.len(), bytes.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
