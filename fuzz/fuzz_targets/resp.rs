//! Any bytes as Redis's answers: no panic in what reads them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pg_redis_cache_core::redis::read_answers(bytes));
