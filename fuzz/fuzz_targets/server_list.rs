//! Any text as a list of servers: no panic, bounded, and each server found by its name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::config::{MAX_SERVERS, ServerList};

fuzz_target!(|text: &str| {
    let list = ServerList::parse(text);
    assert!(list.servers.len() < MAX_SERVERS);
    for problem in &list.problems {
        assert!(problem.character <= text.chars().count() + 1);
        assert!(!problem.to_string().contains('\n'));
    }
    for server in &list.servers {
        assert_eq!(list.url_of(&server.name), Some(server.url.as_str()));
    }
});
