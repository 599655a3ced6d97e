//! The rules of coherence as plain state machines over shared memory: what may still be written to
//! Redis, decided without PostgreSQL and without Redis.
//!
//! > Redis never keeps a value that Postgres has replaced. When in doubt, delete the key.
//!
//! The rules, by number, and where each is kept:
//!
//! 1. Only committed rows. [`transaction`]: captured ops and ops to be sent are different types,
//!    and only PRE_COMMIT makes one of the other.
//! 2. Writes are numbered before they are visible. [`commits`].
//! 3. A fill never beats a write. [`slots`] and [`mappings`]; [`admit`] is the reader's side.
//! 4. A key never goes back. [`slots`].
//! 6. Nothing is lost silently. [`mappings`]; [`tally`] finds out what was not captured.
//! 7. A purge is a barrier. [`mappings`] says when one is due; the waiting and deleting are the
//!    worker's.
//! 8. An unknown past is purged. [`past`] says whether it is known.
//!
//! (5, lanes, is kept in [`crate::redis`]; 9 and 10 in the extension.)
//!
//! `model` searches small histories exhaustively with the very code of this module, and shows for
//! each condition the history that breaks without it.
//!
//! Every structure in shared memory is a plain type with `layout`, `init_in_place` and `attach`. A
//! handle is a copyable pointer. Whoever writes what is fixed per type, and said there.

pub mod commits;
pub mod hints;
pub mod lag;
pub mod mappings;
pub mod past;
pub mod reason;
pub mod register;
pub mod replies;
pub mod slots;
mod table;
pub mod tally;
pub mod transaction;

#[cfg(test)]
mod model;

pub use reason::Reason;
pub use table::BadLayout;

use mappings::Gates;
use slots::Slots;

/// Mapping numbers are below this: sets of mappings are then small enough to be copied about, and
/// never need memory at a moment at which none can be asked for.
pub const MAX_MAPPINGS: usize = 1024;

/// What a fill proves itself with when the worker takes it (rule 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FillTicket {
    /// The slot's version.
    pub version: u64,
    /// The mapping's epoch.
    pub epoch: u64,
}

/// The reader's half of rule 3: may a row seen by a snapshot with this `xmin` be offered as a fill?
///
/// Version and epoch are noted before the floors are tested. `None`: a writer that the snapshot
/// does not see may have gone by, or the mapping is not what this backend takes it for
/// (`fingerprint`, rule 9); do not fill. `mapping` is a number that `gates` has.
pub fn admit(
    slots: &Slots,
    gates: &Gates,
    mapping: u16,
    fingerprint: u64,
    hash: u64,
    xmin: u64,
) -> Option<FillTicket> {
    let ticket = FillTicket {
        version: slots.note(hash),
        epoch: gates.note(mapping),
    };
    let admitted = slots.admits(hash, xmin) && gates.admits(mapping, fingerprint, xmin);
    admitted.then_some(ticket)
}

/// A set of mappings, by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct MappingSet([u64; MAX_MAPPINGS / 64]);

impl MappingSet {
    /// The set of none.
    pub const EMPTY: MappingSet = MappingSet([0; MAX_MAPPINGS / 64]);

    fn place(mapping: u16) -> (usize, u64) {
        debug_assert!(
            (mapping as usize) < MAX_MAPPINGS,
            "no mapping has number {mapping}"
        );
        (mapping as usize / 64 % (MAX_MAPPINGS / 64), 1 << (mapping % 64))
    }

    pub fn insert(&mut self, mapping: u16) {
        let (word, bit) = Self::place(mapping);
        self.0[word] |= bit;
    }

    pub fn contains(&self, mapping: u16) -> bool {
        let (word, bit) = Self::place(mapping);
        self.0[word] & bit != 0
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Adds what `other` holds.
    pub fn union(&mut self, other: &MappingSet) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(word, more)| *word |= more);
    }

    /// Takes away what `other` holds.
    pub fn subtract(&mut self, other: &MappingSet) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(word, less)| *word &= !less);
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let rest = std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
            rest.take_while(|rest| *rest != 0)
                .map(move |rest| (index * 64) as u16 + rest.trailing_zeros() as u16)
        })
    }
}
