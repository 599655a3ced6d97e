//! Faults of Redis through which every server lives.

use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::Dice;

use crate::deployment::{Deployment, Fault, fault};

/// Done to every master.
pub fn faults<D: Deployment>() -> Vec<Fault<D>> {
    vec![
        fault("Redis emptied (FLUSHALL)", emptied),
        fault("Redis without memory (noeviction)", memory_refused),
        fault("Redis without memory (allkeys-lru)", memory_evicted),
        fault("clients killed in Redis, five times", clients_killed),
    ]
}

/// Sleeps for a time that chance decides.
pub fn pause(dice: &mut Dice, longest_ms: u64) {
    sleep(Duration::from_millis(dice.below(longest_ms)));
}

fn emptied<D: Deployment>(here: &mut D, _: &mut Dice) {
    for redis in here.masters() {
        assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    }
}

fn without_memory(here: &impl Deployment, policy: &str) {
    let masters = here.masters();
    let set = |name: &str, value: &str| {
        for redis in &masters {
            assert_eq!(redis.cli(&["CONFIG", "SET", name, value]), "OK");
        }
    };
    set("maxmemory-policy", policy);
    set("maxmemory", "1mb");
    sleep(Duration::from_millis(500));
    set("maxmemory", "0");
}

fn memory_refused<D: Deployment>(here: &mut D, _: &mut Dice) {
    without_memory(here, "noeviction");
}

fn memory_evicted<D: Deployment>(here: &mut D, _: &mut Dice) {
    without_memory(here, "allkeys-lru");
}

fn clients_killed<D: Deployment>(here: &mut D, dice: &mut Dice) {
    for _ in 0..5 {
        for redis in here.servers() {
            redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        pause(dice, 150);
    }
}
