//! Starts throw-away PostgreSQL and Redis servers for the tests, and judges what they hold.
//!
//! What it does: [`Postgres`] and [`Redis`] are servers in temporary folders, [`World`] is both with the
//! extension loaded; [`RowOracle`] and [`VersionOracle`] tell whether Redis holds what it should, from
//! outside and without knowing how the extension works.
//!
//! What it guarantees: nothing of the machine is touched. Servers listen in folders of their own and on a
//! port that no other harness uses, run on a private copy of the PostgreSQL installation (so the extension
//! is not installed anywhere), stop when dropped and also when this process is killed. Started by root, the
//! servers run as an unprivileged user, because PostgreSQL refuses to run as root.
//!
//! What it does not: report errors. A server that does not start is a failed test, so everything here
//! panics with the reason and the server's log.

mod address;
mod authority;
mod folder;
mod installation;
mod load;
mod memory;
mod pgserver;
mod port;
mod process;
mod proxy;
mod rediscluster;
mod redissentinel;
mod redisserver;
mod row_oracle;
mod secure;
mod statement;
mod topic;
mod trial;
mod version_oracle;
mod world;

pub use address::own_address;
pub use authority::{Authority, Paper, Validity};
pub use installation::{Installation, installation, repository};
pub use load::{Dice, Done, Load, MAPPINGS, STEADY, Shape};
pub use memory::private_kilobytes;
pub use pgserver::{Postgres, PostgresBuilder, Shutdown};
pub use port::Port;
pub use proxy::Proxy;
pub use rediscluster::{RedisCluster, redis_cli};
pub use redissentinel::RedisSentinel;
pub use redisserver::{Redis, redis_version};
pub use row_oracle::{Comparison, Difference, Format, RowOracle};
pub use secure::Secure;
pub use statement::{number, refusal, replace_server};
pub use topic::{topic_environment, topic_world, topics};
pub use trial::Trial;
pub use version_oracle::{VersionOracle, Watched};
pub use world::{World, WorldBuilder, literal};

pub use folder::{Folder, shown};

use std::time::{Duration, Instant};

/// Calls `probe` until it gives a value, every 5 ms.
///
/// # Panics
/// After `limit`, naming `what` was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match attempt(limit, probe) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Calls `probe` until it gives a value, every 5 ms; `None` after `limit`.
pub fn attempt<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        match probe() {
            None if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(5)),
            found => return found,
        }
    }
}
