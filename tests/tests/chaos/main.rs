//! One fault after the other, picked at random, under a load of writers, readers and pollers. After each one,
//! once it is over: the row oracle, the counters, and how long it took until Redis was fresh again. All along:
//! the version oracle, which lets a server that has taken over show older values until everything is purged
//! (`deployment.rs` says when, and why).
//!
//! A short run by default; `make chaos` makes a long one and writes its tables to docs/CHAOS.md.
//! `PG_REDIS_CACHE_CHAOS_SECONDS` and `PG_REDIS_CACHE_CHAOS_SEED` say how long and which one: a run that ends before
//! each fault has been leaves out those that the seed would have had later. `PG_REDIS_CACHE_CHAOS_TABLES` names a folder
//! for the tables, `PG_REDIS_CACHE_CHAOS_FAULT` is a part of the names of those faults that alone are to be had.

mod cluster;
mod deployment;
mod lines;
mod postgres_faults;
mod raised;
mod run;
mod sentinel;
mod server_faults;
mod single;

use cluster::Cluster;
use sentinel::Sentinel;
use single::Single;

#[test]
fn with_the_usual_settings() {
    run::run("usual settings", 30, || Single::begin(|world| world));
}

#[test]
fn with_a_tiny_queue_and_buffer() {
    run::run("queue_size = 64kB, transaction_buffer = 64kB", 30, || {
        Single::begin(|world| {
            world
                .conf("pg_redis_cache.queue_size", "64kB")
                .conf("pg_redis_cache.transaction_buffer", "64kB")
        })
    });
}

#[test]
fn with_sentinels() {
    run::run("three sentinels, a master and two replicas", 10, Sentinel::begin);
}

#[test]
fn with_a_cluster() {
    run::run(
        "a cluster of three masters with a replica each",
        10,
        Cluster::begin,
    );
}
