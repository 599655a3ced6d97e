//! The real decisions, made on the model's states; and what they would be with one condition less.

use super::super::FillTicket;
use super::super::mappings::Gates;
use super::super::slots::{FillVerdict, Slots, Verdict};
use super::super::table::OnHeap;
use super::state::{NOTHING, Slot, State};
use crate::ring::batch::Kind;
use std::sync::atomic::Ordering::Relaxed;

/// All keys share the one slot, and all belong to the one mapping.
const HASH: u64 = 0;
const MAPPING: u16 = 0;
const FINGERPRINT: u64 = 0;

/// A condition that is left out, or an order that is turned round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    /// A reader does not test the slot's floor.
    NoFloor,
    /// A write does not move the version.
    NoVersion,
    /// A reader tests first and notes then.
    TestBeforeNote,
    /// The worker moves the version first and raises the floor then.
    VersionBeforeFloor,
    /// A write does not look at `applied`.
    NoApplied,
    FillLeavesApplied,
    DelLeavesApplied,
    /// A fill does not look at `seen`.
    NoSeen,
    /// A SET stays one whatever became of its epoch.
    OldEpochsWrite,
    OldEpochsFill,
    NoMappingFloor,
    /// A loss moves the epoch first and raises the floor then.
    EpochBeforeFloor,
    PurgeWithoutBarrier,
    /// A purge stores the epoch that is when it ends.
    PurgedTooFar,
    /// The tail moves when an entry is taken.
    AcknowledgedEarly,
}

pub(super) struct Decisions {
    slots: OnHeap<Slots>,
    gates: OnHeap<Gates>,
    pub mutant: Mutant,
}

impl Decisions {
    pub fn new(mutant: Mutant) -> Decisions {
        let slots = OnHeap::new(Slots::layout(1).unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Slots::init_in_place(mem, 1) }.unwrap()
        });
        let gates = OnHeap::new(Gates::layout(1).unwrap(), |mem| {
            // SAFETY: as above.
            unsafe { Gates::init_in_place(mem, 1) }.unwrap()
        });
        Decisions { slots, gates, mutant }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    fn load(&self, state: &State) {
        let slot = self.slots.slot(HASH);
        slot.version.store(state.slot.version.into(), Relaxed);
        slot.floor.store(state.slot.floor.into(), Relaxed);
        slot.applied.store(state.slot.applied.into(), Relaxed);
        slot.seen.store(state.slot.seen.into(), Relaxed);
        let gate = self.gates.gate(MAPPING).unwrap();
        gate.epoch.store(state.gate.epoch.into(), Relaxed);
        gate.purged_epoch.store(state.gate.purged.into(), Relaxed);
        gate.floor.store(state.gate.floor.into(), Relaxed);
    }

    fn store(&self, state: &mut State) {
        let slot = self.slots.slot(HASH);
        state.slot = Slot {
            version: slot.version.load(Relaxed) as u8,
            floor: slot.floor.load(Relaxed) as u8,
            applied: slot.applied.load(Relaxed) as u8,
            seen: slot.seen.load(Relaxed) as u8,
        };
        let gate = self.gates.gate(MAPPING).unwrap();
        state.gate.epoch = gate.epoch.load(Relaxed) as u8;
        state.gate.purged = gate.purged_epoch.load(Relaxed) as u8;
        state.gate.floor = gate.floor.load(Relaxed) as u8;
    }

    /// A reader's first step. True if it goes on.
    pub fn reader_first(&self, state: &mut State, reader: usize) -> bool {
        if self.is(Mutant::TestBeforeNote) {
            self.test(state, reader)
        } else {
            self.note(state, reader)
        }
    }

    /// A reader's second step. True if it fills.
    pub fn reader_second(&self, state: &mut State, reader: usize) -> bool {
        if self.is(Mutant::TestBeforeNote) {
            self.note(state, reader)
        } else {
            self.test(state, reader)
        }
    }

    fn note(&self, state: &mut State, reader: usize) -> bool {
        self.load(state);
        let s = state.s;
        let reader = &mut state.readers[reader];
        reader.version = self.slots.note(HASH) as u8;
        reader.epoch = self.gates.note(MAPPING) as u8;
        reader.s = s;
        true
    }

    fn test(&self, state: &State, reader: usize) -> bool {
        self.load(state);
        let xmin = state.readers[reader].xmin.into();
        (self.is(Mutant::NoFloor) || self.slots.admits(HASH, xmin))
            && (self.is(Mutant::NoMappingFloor) || self.gates.admits(MAPPING, FINGERPRINT, xmin))
    }

    /// The epoch that a transaction notes in PRE_COMMIT.
    pub fn epoch(&self, state: &State) -> u8 {
        self.load(state);
        self.gates.note(MAPPING) as u8
    }

    /// The first of the stores that take a write.
    pub fn half_take_write(&self, state: &mut State, writer: usize) {
        self.load(state);
        let slot = self.slots.slot(HASH);
        if self.is(Mutant::VersionBeforeFloor) {
            Slots::move_version(slot);
        } else {
            Slots::raise_floor(slot, state.writers[writer].xid.into());
        }
        self.store(state);
    }

    /// Takes one op of a writer's entry. Returns the version to be set, or 0 to delete.
    pub fn take_write(&self, state: &mut State, writer: usize, key: usize, kind: Kind) -> u8 {
        let (before, writer) = (state.slot, state.writers[writer]);
        self.load(state);
        if self.is(Mutant::NoApplied) {
            self.slots.slot(HASH).applied.store(0, Relaxed);
        }
        let noted = Some(u64::from(writer.epoch));
        let current = self.is(Mutant::OldEpochsWrite) || self.gates.is_current(MAPPING, noted);
        let verdict = self
            .slots
            .take_write(HASH, writer.xid.into(), writer.s.into(), current, kind);
        self.store(state);
        if self.is(Mutant::NoVersion) || (self.is(Mutant::VersionBeforeFloor) && state.half_taken != 0) {
            state.slot.version = before.version;
        }
        if self.is(Mutant::NoApplied) {
            state.slot.applied = before.applied.max(writer.s);
        }
        if self.is(Mutant::DelLeavesApplied) && kind == Kind::Del {
            state.slot.applied = before.applied;
        }
        if verdict == Verdict::Set {
            writer.made[key]
        } else {
            0
        }
    }

    /// Takes the fills of a reader's entry. Returns the version to be set for each key.
    pub fn take_fills(&self, state: &mut State, reader: usize, keys: &[u8]) -> Vec<(u8, u8)> {
        let (before, reader) = (state.slot, state.readers[reader]);
        self.load(state);
        if self.is(Mutant::NoSeen) {
            self.slots.slot(HASH).seen.store(0, Relaxed);
        }
        let mut epoch = self.gates.note(MAPPING);
        if self.is(Mutant::OldEpochsFill) {
            epoch = reader.epoch.into();
        }
        let ticket = FillTicket {
            version: reader.version.into(),
            epoch: reader.epoch.into(),
        };
        let mut fills = self
            .slots
            .take_fills(reader.s.into(), reader.xmin.into(), reader.xmax.into());
        let mut decide = |key: &u8| {
            let found = reader.found[*key as usize];
            let applied = found != 0 && fills.take(HASH, ticket, epoch) == FillVerdict::Apply;
            (*key, if applied { found } else { NOTHING })
        };
        let decided = keys.iter().map(&mut decide).collect();
        drop(fills);
        self.store(state);
        if self.is(Mutant::FillLeavesApplied) {
            state.slot.applied = before.applied;
        }
        decided
    }

    /// The first of the stores that declare a writer's loss.
    pub fn half_lose(&self, state: &mut State, writer: usize) {
        self.load(state);
        let gate = self.gates.gate(MAPPING).unwrap();
        if self.is(Mutant::EpochBeforeFloor) {
            Gates::move_epoch(gate);
        } else {
            Gates::raise_floor(gate, state.writers[writer].xid.into());
        }
        self.store(state);
    }

    /// Declares a writer's loss; `after_half` says whether [`Decisions::half_lose`] came before.
    pub fn lose(&self, state: &mut State, writer: usize, after_half: bool) {
        let before = state.gate;
        self.load(state);
        self.gates.lose_locked(MAPPING, state.writers[writer].xid.into());
        self.store(state);
        if self.is(Mutant::EpochBeforeFloor) && after_half {
            state.gate.epoch = before.epoch;
        }
    }

    /// The epoch to purge for, if a purge is due.
    pub fn purge_due(&self, state: &State) -> Option<u8> {
        self.load(state);
        self.gates.purge_due(MAPPING).map(|epoch| epoch as u8)
    }

    /// A purge for this epoch is done.
    pub fn purged(&self, state: &mut State, epoch: u8) {
        self.load(state);
        let epoch = if self.is(Mutant::PurgedTooFar) {
            state.gate.epoch
        } else {
            epoch
        };
        self.gates.purged(MAPPING, epoch.into());
        self.store(state);
    }
}
