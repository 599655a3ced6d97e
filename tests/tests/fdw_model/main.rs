//! Random statements on tables over Redis, and the same changes to a model in plain Rust: after each of them the
//! table, the model and Redis hold the same, and what the statement returned is what the model says.
//!
//! Each of Redis's types is tried over one key and over the keys of a pattern, with literals and with prepared
//! statements that have generic plans. `PG_REDIS_CACHE_FDW_SEED` runs one seed alone, `PG_REDIS_CACHE_FDW_SEEDS` that
//! many from 1 on, `PG_REDIS_CACHE_FDW_STATEMENTS` so many statements with each.

mod condition;
mod model;
mod session;
mod shape;
mod trial;

use pg_redis_cache_tests::World;

use shape::Kind;
use trial::Trial;

const SEEDS: u64 = 3;
const STATEMENTS: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn try_all(kind: Kind) {
    let world = World::builder().start();
    world.execute(&format!(
        "CREATE FOREIGN DATA WRAPPER redis_wrapper \
             HANDLER redis_cache.redis_fdw_handler VALIDATOR redis_cache.redis_fdw_validator; \
         CREATE SERVER redis_server FOREIGN DATA WRAPPER redis_wrapper OPTIONS (host_port '127.0.0.1:{}'); \
         CREATE FUNCTION stable(anyelement) RETURNS anyelement STABLE LANGUAGE plpgsql \
             AS 'BEGIN RETURN $1; END'",
        world.redis.port()
    ));
    let seeds = match number("PG_REDIS_CACHE_FDW_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("PG_REDIS_CACHE_FDW_SEEDS").unwrap_or(SEEDS),
    };
    let statements = number("PG_REDIS_CACHE_FDW_STATEMENTS").unwrap_or(STATEMENTS);
    for seed in seeds {
        for many in [false, true] {
            for prepared in [false, true] {
                println!("{kind:?}: seed {seed}, many keys: {many}, prepared: {prepared}");
                Trial::new(&world, kind, many, prepared, seed).run(statements);
            }
        }
    }
}

#[test]
fn strings_hold_what_was_written() {
    try_all(Kind::String);
}

#[test]
fn hashes_hold_what_was_written() {
    try_all(Kind::Hash);
}

#[test]
fn lists_hold_what_was_written() {
    try_all(Kind::List);
}

#[test]
fn sets_hold_what_was_written() {
    try_all(Kind::Set);
}

#[test]
fn zsets_hold_what_was_written() {
    try_all(Kind::Zset);
}

#[test]
fn streams_hold_what_was_written() {
    try_all(Kind::Stream);
}
