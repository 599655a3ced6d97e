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

/// How many elements a generation remembers: 16 bytes each, two generations at most.
const GENERATION: usize = 128 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Seen {
    hashers: (RandomState, RandomState),
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

impl Seen {
    /// Whether the element has not come lately. It has now.
    pub fn is_new(&mut self, element: &[u8]) -> bool {
        let high = u128::from(self.hashers.0.hash_one(element));
        let hash = high << 64 | u128::from(self.hashers.1.hash_one(element));
        if self.old.contains(&hash) || !self.young.insert(hash) {
            return false;
        }
        if self.young.len() == GENERATION {
            self.old = std::mem::take(&mut self.young);
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
