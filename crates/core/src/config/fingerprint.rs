//! Fingerprints of mappings and of the whole list (rule 9: everyone reads the same list).
//!
//! FNV-1a over canonical text and the effective database, with a mixing step at the end: the same number in
//! every process, build and machine, unlike the hashers of Rust's standard library. It tells lists apart
//! that an administrator wrote; it is no protection against lists made to collide.

use super::{DEFAULT_SERVER, Mapping};

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a.
struct Fnv(u64);

impl Fnv {
    /// Takes in `bytes` and their number, so that "ab" + "c" and "a" + "bc" differ.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// MurmurHash3's final mix; 0 becomes 1, because 0 stands for "nothing is mapped".
    fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (hash ^ (hash >> 33)).max(1)
    }
}

impl Mapping {
    /// The database that holds the table.
    pub fn effective_database<'a>(&'a self, default_database: &'a str) -> &'a str {
        self.database.as_deref().unwrap_or(default_database)
    }

    /// The name of the server that has the keys.
    pub fn effective_server(&self) -> &str {
        self.server.as_deref().unwrap_or(DEFAULT_SERVER)
    }

    /// A number that changes with anything that matters about the mapping; never 0. `default_database` is
    /// `pg_redis_cache.database`.
    pub fn fingerprint(&self, default_database: &str) -> u64 {
        let mut hash = Fnv(OFFSET_BASIS);
        hash.add(self.to_string().as_bytes());
        hash.add(self.effective_database(default_database).as_bytes());
        hash.finish()
    }
}

/// The fingerprint of a list: 0 exactly if nothing is mapped (an empty list, or not `enabled`). It depends
/// on the order of the mappings, as their numbers in shared memory do.
pub fn list_fingerprint(mappings: &[Mapping], default_database: &str, enabled: bool) -> u64 {
    if mappings.is_empty() || !enabled {
        return 0;
    }
    let mut hash = Fnv(OFFSET_BASIS);
    for mapping in mappings {
        hash.add(&mapping.fingerprint(default_database).to_le_bytes());
    }
    hash.finish()
}
