//! Finds the ops that a later op of the same key makes superfluous.
//!
//! A bulk statement has hundreds of thousands of ops and mostly no two of one key, so this is about
//! finding nothing fast: a bitmap with 16 bits for each op, small enough for the caches, tells for
//! almost all of them that no other op has their hash. Only the rest are looked up in a map, with
//! their keys compared exactly.

use super::batch::{Op, Ops};
use rustc_hash::FxHashMap;
use std::hash::{Hash, Hasher};

/// Up to this many ops are compared with each other, without a map or a bitmap.
const FEW: usize = 8;

/// Ops in a block of [`in_blocks`].
const BLOCK: usize = 32;

/// A set of small numbers.
#[derive(Debug, Default)]
pub(super) struct BitSet(Vec<u64>);

impl BitSet {
    /// For numbers below `bits`. `None` if memory is short.
    fn below(bits: usize) -> Option<BitSet> {
        let mut words = Vec::new();
        words.try_reserve_exact(bits.div_ceil(64)).ok()?;
        words.resize(bits.div_ceil(64), 0);
        Some(BitSet(words))
    }

    /// Returns whether the number was there before.
    fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (&mut self.0[number / 64], 1 << (number % 64));
        let was_there = *word & bit != 0;
        *word |= bit;
        was_there
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.0
            .get(number / 64)
            .is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// An op's key, hashed by the hash that it comes with and compared byte by byte.
#[derive(PartialEq, Eq)]
struct Key<'a> {
    mapping: u16,
    key: &'a [u8],
    mixed: u64,
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.mixed);
    }
}

/// The key's hash with the mapping in it: keys of two mappings are different keys.
fn mixed(op: &Op<'_>) -> u64 {
    op.hash ^ u64::from(op.mapping).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Which of the `count` ops, by their place in the order, are followed by one of the same key.
/// `None` if memory is short.
pub(super) fn superseded(ops: Ops<'_>, count: usize) -> Option<BitSet> {
    if count <= FEW {
        return superseded_few(ops, count);
    }
    let bits = count.checked_mul(16)?.checked_next_power_of_two()?;
    let bit = |op: &Op<'_>| mixed(op) as usize & (bits - 1);
    let (mut seen, mut shared) = (BitSet::below(bits)?, BitSet::below(bits)?);
    let mut any = false;
    in_blocks(ops, |block| {
        let bits = block.iter().map(bit);
        bits.filter(|bit| seen.insert(*bit))
            .for_each(|bit| any |= !shared.insert(bit));
        Some(())
    })?;
    if !any {
        return Some(BitSet::default());
    }
    let mut superseded = BitSet::below(count)?;
    let mut newest: FxHashMap<Key<'_>, usize> = FxHashMap::default();
    let mut before = 0;
    in_blocks(ops, |block| {
        for (place, op) in block
            .iter()
            .enumerate()
            .filter(|(_, op)| shared.contains(bit(op)))
        {
            newest.try_reserve(1).ok()?;
            let key = Key {
                mapping: op.mapping,
                key: op.key,
                mixed: mixed(op),
            };
            if let Some(older) = newest.insert(key, before + place) {
                superseded.insert(older);
            }
        }
        before += block.len();
        Some(())
    })?;
    Some(superseded)
}

/// Walks through the ops a block at a time. To find an op, the one before must have been read; to
/// look bits up, nothing must: apart from the walking, the processor waits for many at once. On half
/// a million ops this halves the time.
fn in_blocks<'a>(mut ops: Ops<'a>, mut each: impl FnMut(&[Op<'a>]) -> Option<()>) -> Option<()> {
    let mut block = Vec::new();
    block.try_reserve_exact(BLOCK).ok()?;
    loop {
        block.clear();
        block.extend(ops.by_ref().take(BLOCK));
        if block.is_empty() {
            return Some(());
        }
        each(&block)?;
    }
}

fn superseded_few(ops: Ops<'_>, count: usize) -> Option<BitSet> {
    let mut superseded = BitSet::default();
    let same = |a: &Op<'_>, b: &Op<'_>| a.hash == b.hash && a.mapping == b.mapping && a.key == b.key;
    let mut later = ops;
    for (place, op) in ops.enumerate() {
        later.next();
        if later.clone().any(|later| same(&op, &later)) {
            if superseded.0.is_empty() {
                superseded = BitSet::below(count)?;
            }
            superseded.insert(place);
        }
    }
    Some(superseded)
}
