//! No element twice: what a cursor has lately returned.
//!
//! SCAN and its relatives visit the buckets of a hash table in the order of their reversed bits (dict.c, dictScan).
//! While the table stays as it is, or grows, nothing comes twice. When it shrinks, buckets that lie next to each
//! other in that order become one, and what the cursor was just then half through is returned again: what may
//! come twice has come lately. So the last `GENERATION` to twice as many elements are remembered, which bounds
//! the memory; the table would have to shrink so far that more than that many of the elements read fall into
//! one bucket for anything to come twice.
use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use siphasher::sip128::SipHasher13;

/// How many elements a generation remembers: as many as fit a table of 2^15 places, of 17 bytes each. There are two
/// generations at most, which fit a processor's cache.
const GENERATION: usize = (1 << 15) / 8 * 7;

/// See the module.
#[derive(Debug)]
pub struct Seen {
    /// Keyed, so that nobody can make up elements whose 128 bits are the same.
    hasher: SipHasher13,
    young: HashSet<u128, BuildHasherDefault<AsItIs>>,
    old: HashSet<u128, BuildHasherDefault<AsItIs>>,
}

/// What is a hash already needs no other.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl Default for Seen {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            hasher: SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1)),
            young: HashSet::default(),
            old: HashSet::default(),
        }
    }
}

impl Seen {
    /// Whether the element has not come lately. It has now.
    pub fn is_new(&mut self, element: &[u8]) -> bool {
        let hash = u128::from(self.hasher.hash(element));
        if self.old.contains(&hash) || !self.young.insert(hash) {
            return false;
        }
        if self.young.len() == GENERATION {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_lately_is_known() {
        let mut seen = Seen::default();
        for number in 0..3 * GENERATION {
            assert!(seen.is_new(&number.to_le_bytes()));
        }
        for number in 2 * GENERATION..3 * GENERATION {
            assert!(!seen.is_new(&number.to_le_bytes()));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..5 * GENERATION {
            seen.is_new(&number.to_le_bytes());
        }
        assert!(seen.young.len() + seen.old.len() <= 2 * GENERATION);
    }
}
