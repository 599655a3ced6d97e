//! A master that answers and takes no writes: what is for the others goes on, and is waited for.

use std::fs;

use pg_redis_cache_tests::{Dice, Redis, eventually};

use super::Cluster;
use crate::deployment::{Fault, fault};
use crate::run::SOON;
use crate::server_faults::pause;

/// How often the keys of the others have to become fresh meanwhile.
const ROUNDS: usize = 3;

pub fn faults() -> Vec<Fault<Cluster>> {
    vec![
        fault(
            "a master that cannot save (MISCONF) while others are written to",
            unsaved,
        ),
        fault("a master without memory (OOM) while others are written to", full),
        fault(
            "a master that lets writes wait (CLIENT PAUSE) while others are written to",
            paused,
        ),
    ]
}

fn set(redis: &Redis, name: &str, value: &str) {
    assert_eq!(redis.cli(&["CONFIG", "SET", name, value]), "OK");
}

fn while_one_refuses(here: &Cluster, dice: &mut Dice, begin: fn(&Redis), end: fn(&Redis)) {
    let (master, _) = here.pair(dice);
    let others = here.others(master);
    let redis = &here.nodes.nodes[master];
    begin(redis);
    for _ in 0..ROUNDS {
        here.are_fresh(&others, &[]);
        pause(dice, 500);
    }
    end(redis);
}

/// Where there is a folder of the file's name, no file can be put.
fn unsaved(here: &mut Cluster, dice: &mut Dice) {
    let begin = |redis: &Redis| {
        fs::create_dir(redis.folder().join("dump.rdb")).expect("nothing else is saved there");
        set(redis, "save", "3600 100000000");
        eventually("a master that cannot save", SOON, || {
            // One that is on its way, as to a replica, has to be over.
            redis.cli(&["BGSAVE"]);
            let info = redis.cli(&["INFO", "persistence"]);
            info.contains("rdb_last_bgsave_status:err").then_some(())
        });
    };
    let end = |redis: &Redis| {
        set(redis, "save", "");
        fs::remove_dir(redis.folder().join("dump.rdb")).expect("it is there, and empty");
    };
    while_one_refuses(here, dice, begin, end);
}

fn full(here: &mut Cluster, dice: &mut Dice) {
    let begin = |redis: &Redis| {
        set(redis, "maxmemory-policy", "noeviction");
        set(redis, "maxmemory", "1");
    };
    while_one_refuses(here, dice, begin, |redis| set(redis, "maxmemory", "0"));
}

fn paused(here: &mut Cluster, dice: &mut Dice) {
    let begin = |redis: &Redis| {
        let longer_than_that = (2 * SOON * ROUNDS as u32).as_millis().to_string();
        assert_eq!(redis.cli(&["CLIENT", "PAUSE", &longer_than_that, "WRITE"]), "OK");
    };
    let end = |redis: &Redis| assert_eq!(redis.cli(&["CLIENT", "UNPAUSE"]), "OK");
    while_one_refuses(here, dice, begin, end);
}
