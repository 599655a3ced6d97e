//! Compares every cached key of every active mapping with its row, and prints a line per mapping.
//!
//! Where to look is told by PGHOST (a socket's folder), PGPORT, PGUSER, PGDATABASE and REDIS_SOCKET. Ends
//! with 1 if anything differs, or if there was no key to compare. Nobody may be writing meanwhile.

use std::process::ExitCode;

use pg_redis_cache_tests::RowOracle;
use postgres::{Config, NoTls};

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut config = Config::new();
    config
        .host_path(variable("PGHOST"))
        .user(&variable("PGUSER"))
        .dbname(&variable("PGDATABASE"));
    config.port(variable("PGPORT").parse().expect("PGPORT is a number"));
    let mut client = config.connect(NoTls).expect("PostgreSQL can be reached");
    let redis = redis::Client::open(format!("redis+unix://{}", variable("REDIS_SOCKET")));
    let mut redis = redis
        .and_then(|client| client.get_connection())
        .expect("Redis can be reached");

    let mappings = RowOracle::of_database(&mut client);
    let (mut keys, mut differences) = (0, 0);
    for (name, oracle) in &mappings {
        let comparison = oracle.compare(&mut client, &mut redis);
        keys += comparison.keys;
        differences += comparison.differences.len();
        println!("{name}: {comparison}");
    }
    println!(
        "{} mappings, {keys} keys, {differences} differences",
        mappings.len()
    );
    if differences == 0 && keys > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
