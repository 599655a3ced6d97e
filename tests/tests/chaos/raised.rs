//! Rows that a fault itself writes to, so that it can wait for their keys while it lasts.

use pg_redis_cache_tests::{STEADY, World, eventually};
use redis::{Connection, RedisError};

use crate::run::SOON;

/// The keys of all rows that there were at one time, with the versions that they were given.
pub struct Raised(Vec<(i32, i64)>);

impl Raised {
    /// Gives each row a newer version.
    pub fn of(world: &World) -> Raised {
        let mut client = world.connect();
        let sql = "UPDATE doc SET version = version + 1 RETURNING id, version";
        // It may meet those of the load in a deadlock.
        let rows = eventually("all rows to be written to", SOON, || client.query(sql, &[]).ok());
        Raised(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Whether these masters show nothing older of the rows that are never deleted, but for those `left_out`, and have
    /// the keys of some.
    pub fn are_shown(&self, masters: &mut [Connection], left_out: &[i32]) -> bool {
        let steady = self
            .0
            .iter()
            .filter(|(id, _)| *id <= STEADY && !left_out.contains(id));
        let mut any = false;
        for (id, version) in steady {
            for master in &mut *masters {
                match shown(master, *id) {
                    Ok(shown) if shown < Some(*version) => return false,
                    Ok(_) => any = true,
                    Err(error) if error.code() == Some("MOVED") => {}
                    Err(_) => return false,
                }
            }
        }
        any
    }

    /// Whether this master shows one of these rows, and not as it was before.
    pub fn is_any_shown(&self, master: &mut Connection, ids: &[i32]) -> bool {
        let mut meant = self.0.iter().filter(|(id, _)| ids.contains(id));
        meant.any(|(id, version)| shown(master, *id).is_ok_and(|shown| shown >= Some(*version)))
    }
}

fn shown(master: &mut Connection, id: i32) -> Result<Option<i64>, RedisError> {
    let mut command = redis::cmd("HGET");
    command.arg(format!("doc:{id}")).arg("version").query(master)
}
