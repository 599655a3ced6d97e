//! Everything that a history has brought about so far: small numbers only, so that it can be copied
//! for each step and known again by its bytes.

pub(super) const WRITERS: usize = 3;
pub(super) const READERS: usize = 2;
pub(super) const KEYS: usize = 2;
const ENTRIES: usize = WRITERS + READERS;
const COMMANDS: usize = ENTRIES * KEYS;

/// Where a writer is.
pub(super) mod writer {
    pub const IDLE: u8 = 0;
    pub const HAS_XID: u8 = 1;
    /// Its rows are changed and locked.
    pub const CHANGED: u8 = 2;
    /// PRE_COMMIT is over.
    pub const NUMBERED: u8 = 3;
    pub const VISIBLE: u8 = 4;
    /// It holds the ring's lock and has made the first of the two stores of a loss.
    pub const LOSING: u8 = 5;
    pub const DONE: u8 = 6;
}

/// Where a reader is.
pub(super) mod reader {
    pub const IDLE: u8 = 0;
    pub const HAS_SNAPSHOT: u8 = 1;
    /// Half-way between snapshot and test: it has done the first of noting and testing.
    pub const HALF: u8 = 2;
    pub const ADMITTED: u8 = 3;
    pub const DONE: u8 = 4;
}

/// Where a purge is.
pub(super) mod purge {
    pub const NONE: u8 = 0;
    pub const WAITING: u8 = 1;
    pub const DELETING: u8 = 2;
}

#[derive(Clone, Copy, Default)]
pub(super) struct Writer {
    pub at: u8,
    pub xid: u8,
    pub s: u8,
    pub epoch: u8,
    /// The version it gives each key's row; 0 for a key that it does not change.
    pub made: [u8; KEYS],
}

#[derive(Clone, Copy, Default)]
pub(super) struct Reader {
    pub at: u8,
    pub xmin: u8,
    pub xmax: u8,
    /// The version of each key's row in its snapshot; 0 if there is none.
    pub found: [u8; KEYS],
    pub version: u8,
    pub epoch: u8,
    pub s: u8,
}

/// A row as committed. The version also grows when it is deleted.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub version: u8,
    pub alive: u8,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    pub version: u8,
    pub floor: u8,
    pub applied: u8,
    pub seen: u8,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Gate {
    pub epoch: u8,
    pub purged: u8,
    pub floor: u8,
}

/// What a lane has to do for a key.
#[derive(Clone, Copy, Default)]
pub(super) struct Command {
    pub key: u8,
    /// The version to be set; 0 deletes. [`NOTHING`] does neither.
    pub value: u8,
    /// Whether its entry is through with it.
    pub ends_entry: u8,
}

/// The command of an entry of which nothing is left to do.
pub(super) const NOTHING: u8 = u8::MAX;

#[derive(Clone, Copy, Default)]
pub(super) struct Purge {
    pub at: u8,
    /// The epoch it has read.
    pub epoch: u8,
    /// While waiting, the entries to wait for; while deleting, the next key.
    pub left: u8,
}

/// A key in Redis: 0 or the version, and the highest that ever was there.
#[derive(Clone, Copy, Default)]
pub(super) struct Cached {
    pub value: u8,
    pub highest: u8,
}

/// A queue of a few.
#[derive(Clone, Copy)]
pub(super) struct Queue<T, const N: usize> {
    items: [T; N],
    len: u8,
}

impl<T: Copy + Default, const N: usize> Default for Queue<T, N> {
    fn default() -> Self {
        Queue {
            items: [T::default(); N],
            len: 0,
        }
    }
}

impl<T: Copy + Default, const N: usize> Queue<T, N> {
    pub fn as_slice(&self) -> &[T] {
        &self.items[..self.len as usize]
    }

    pub fn push(&mut self, item: T) {
        self.items[self.len as usize] = item;
        self.len += 1;
    }

    pub fn pop(&mut self) -> Option<T> {
        let first = *self.as_slice().first()?;
        self.items.copy_within(1.., 0);
        self.len -= 1;
        // So that equal queues are equal bytes.
        self.items[self.len as usize..].fill(T::default());
        Some(first)
    }

    /// The newest item; there is one.
    pub fn last_mut(&mut self) -> &mut T {
        &mut self.items[self.len as usize - 1]
    }

    pub fn clear(&mut self) {
        *self = Queue {
            items: [T::default(); N],
            len: 0,
        };
    }

    pub fn len(&self) -> u8 {
        self.len
    }
}

#[derive(Clone, Copy)]
pub(super) struct State {
    pub writers: [Writer; WRITERS],
    pub readers: [Reader; READERS],
    pub rows: [Row; KEYS],
    pub next_xid: u8,
    /// The highest xid that has ended: PostgreSQL's latestCompletedXid.
    pub completed: u8,
    /// The counter of rule 2.
    pub s: u8,
    /// Entries not acknowledged: a writer's number, or [`WRITERS`] and a reader's.
    pub ring: Queue<u8, ENTRIES>,
    /// How many of them the worker has taken, and how many of those are through.
    pub taken: u8,
    pub through: u8,
    /// Whether the first store for the next entry is made.
    pub half_taken: u8,
    pub lane: Queue<Command, COMMANDS>,
    pub slot: Slot,
    pub gate: Gate,
    pub purge: Purge,
    pub redis: [Cached; KEYS],
    pub restarts: u8,
}

impl State {
    pub fn first() -> State {
        State {
            writers: [Writer::default(); WRITERS],
            readers: [Reader::default(); READERS],
            rows: [Row { version: 1, alive: 1 }; KEYS],
            next_xid: 1,
            completed: 0,
            s: 0,
            ring: Queue::default(),
            taken: 0,
            through: 0,
            half_taken: 0,
            lane: Queue::default(),
            slot: Slot::default(),
            gate: Gate::default(),
            purge: Purge::default(),
            redis: [Cached::default(); KEYS],
            restarts: 0,
        }
    }

    /// A number that stands for the state. Two of the few million states of a search share one with
    /// a probability of less than one in a million.
    pub fn fingerprint(&self) -> u64 {
        const { assert!(align_of::<State>() == 1) };
        let bytes = std::ptr::from_ref(self).cast::<u8>();
        // SAFETY: made of `u8`s alone, hence without padding.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, size_of::<State>()) };
        crate::encode::key::key_hash(bytes)
    }
}
