//! Any text as a mapping list: no panic, and what was accepted prints as text that parses back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::config::{parse_list, print_list};

fuzz_target!(|text: &str| {
    match parse_list(text) {
        Ok(mappings) => assert_eq!(parse_list(&print_list(&mappings)), Ok(mappings)),
        Err(error) => {
            assert!(text.is_char_boundary(error.byte()));
            assert!(!format!("{error}{:?}", error.hint()).contains('\n'));
        }
    }
});
