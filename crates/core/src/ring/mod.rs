//! The ring: how committed changes travel from the backends to the worker.
//!
//! A byte ring in memory that all processes share. Many producers (backends at commit) append
//! entries; one consumer (the worker, which may be restarted) reads them in order. Positions are
//! `u64`, count bytes since the ring was made, and only grow.
//!
//! A producer *reserves* room under a lock that its caller holds, which is short, and *writes and
//! publishes* outside of it, so that a large entry keeps nobody else waiting. The order of entries
//! is the order of reservations.
//!
//! Guarantees:
//! - the consumer sees an entry whole or not at all, and stops at the first unpublished one;
//! - room is used again only after [`Ring::release`], so a worker that is restarted reads from
//!   [`Ring::tail`] whatever had not been acknowledged (rule 6);
//! - a reservation may become several entries in a row ([`Reservation::end_entry`]), which the consumer
//!   sees all at once and can release one by one;
//! - an entry whose producer gave up half-way is published with no bytes instead of holding up
//!   everything behind it. No valid entry is empty: the worker must take one for an unknown loss.
//!
//! Not here: the lock itself, waking the worker, and what an entry means ([`batch`]).

pub mod batch;
mod duplicates;
pub mod oplog;
pub mod pace;

#[cfg(test)]
pub(crate) mod tests;

use std::alloc::{Layout, LayoutError};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in front of each entry: its length (low half) and its state (high half), one atomic word.
/// Entries start at multiples of this size and so does the end of the ring: a header never wraps.
pub const ENTRY_HEADER: usize = 8;

/// States of an entry. The values are arbitrary; none is zero, the content of fresh memory.
const RESERVED: u32 = 0x5245_5356;
const READY: u32 = 0x5245_4459;
const ABANDONED: u32 = 0x4142_414e;

/// The ring has no room for an entry. Sizes are in bytes, headers and padding included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFull {
    /// What the entry takes.
    pub required: u64,
    /// What is free now.
    pub available: u64,
    /// What is free when the ring is empty; a larger `required` never fits.
    pub capacity: u64,
}

impl RingFull {
    /// Whether no amount of waiting would help.
    pub fn never_fits(&self) -> bool {
        self.required > self.capacity
    }
}

impl fmt::Display for RingFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RingFull {
            required,
            available,
            capacity,
        } = self;
        write!(
            f,
            "the ring has {available} of {capacity} bytes free, {required} are required"
        )
    }
}

impl std::error::Error for RingFull {}

/// A word on a cache line of its own: producers move `head`, the consumer moves `tail`.
#[repr(C, align(64))]
struct Line(AtomicU64);

#[repr(C)]
struct Header {
    capacity: u64,
    /// First byte not yet reserved.
    head: Line,
    /// First byte not yet released.
    tail: Line,
}

/// A handle on a ring in shared memory; copies are handles on the same ring.
#[derive(Clone, Copy)]
pub struct Ring {
    header: NonNull<Header>,
    bytes: NonNull<u8>,
    capacity: u64,
}

// SAFETY: all shared state is reached through atomics, or lies between positions that the protocol
// gives to one side at a time (a reservation before it is published, the consumer after).
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// The capacity that a ring asked to hold `capacity` bytes has: a multiple of the header's
    /// size, and room for at least one small entry.
    fn usable(capacity: usize) -> usize {
        capacity.max(64) / ENTRY_HEADER * ENTRY_HEADER
    }

    fn parts(capacity: usize) -> Result<(Layout, usize), LayoutError> {
        let bytes = Layout::array::<u8>(Self::usable(capacity))?;
        Layout::new::<Header>().extend(bytes)
    }

    /// The memory that a ring of `capacity` bytes needs. Fails only for sizes beyond `isize::MAX`.
    pub fn layout(capacity: usize) -> Result<Layout, LayoutError> {
        Ok(Self::parts(capacity)?.0.pad_to_align())
    }

    /// Makes an empty ring.
    ///
    /// # Safety
    /// `mem` is valid for `Ring::layout(capacity)`, nobody else uses it yet, and it outlives every
    /// copy of the handle.
    pub unsafe fn init_in_place(mem: *mut u8, capacity: usize) -> Result<Ring, LayoutError> {
        Self::parts(capacity)?;
        let header = Header {
            capacity: Self::usable(capacity) as u64,
            head: Line(AtomicU64::new(0)),
            tail: Line(AtomicU64::new(0)),
        };
        // SAFETY: valid and aligned for the layout, which begins with the header (caller).
        unsafe { mem.cast::<Header>().write(header) };
        // SAFETY: just initialised.
        Ok(unsafe { Self::attach(mem) })
    }

    /// A handle on a ring that [`Ring::init_in_place`] made at `mem`, maybe in another process.
    ///
    /// # Safety
    /// `mem` holds such a ring and outlives every copy of the handle.
    pub unsafe fn attach(mem: *mut u8) -> Ring {
        // SAFETY: not null, as it holds a ring (caller).
        let header = unsafe { NonNull::new_unchecked(mem.cast::<Header>()) };
        // SAFETY: the bytes follow the header, whose size is a multiple of their alignment (1).
        let bytes = unsafe { NonNull::new_unchecked(mem.add(size_of::<Header>())) };
        // SAFETY: initialised (caller), and never changed after that.
        let capacity = unsafe { (*header.as_ptr()).capacity };
        Ring {
            header,
            bytes,
            capacity,
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: initialised and outliving the handle (contract of `attach`); it holds only
        // atomics and a constant.
        unsafe { self.header.as_ref() }
    }

    /// Bytes that entries, their headers and padding can take.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The position behind the newest reservation.
    pub fn head(&self) -> u64 {
        self.header().head.0.load(Ordering::Acquire)
    }

    /// The position of the oldest entry not yet released: where a restarted consumer begins.
    pub fn tail(&self) -> u64 {
        self.header().tail.0.load(Ordering::Acquire)
    }

    /// Bytes between tail and head. The tail is read first: it never passes the head, so a
    /// concurrent release cannot make this negative.
    pub fn used(&self) -> u64 {
        let tail = self.tail();
        self.head().saturating_sub(tail)
    }

    /// What to reserve for several entries of these lengths in a row, in bytes: the headers between them and the
    /// padding in front of these included, the padding behind the last entry not. One entry's own length is what
    /// it gives for one.
    pub fn reservation_len(lens: impl Iterator<Item = usize>) -> usize {
        let end = lens.fold(0usize, |end, len| {
            let start = end.checked_next_multiple_of(ENTRY_HEADER).unwrap_or(usize::MAX);
            start.saturating_add(ENTRY_HEADER).saturating_add(len)
        });
        end.saturating_sub(ENTRY_HEADER)
    }

    /// What an entry of `len` bytes takes: header and padding included.
    pub fn entry_size(len: usize) -> u64 {
        let bytes = (ENTRY_HEADER as u64).saturating_add(len as u64);
        bytes
            .checked_next_multiple_of(ENTRY_HEADER as u64)
            .unwrap_or(u64::MAX)
    }

    fn index(&self, pos: u64) -> usize {
        (pos % self.capacity) as usize
    }

    fn entry_header(&self, pos: u64) -> &AtomicU64 {
        debug_assert!(pos.is_multiple_of(ENTRY_HEADER as u64));
        // SAFETY: the index is below the capacity and a multiple of 8, as the capacity is; the
        // bytes start on a 64-byte boundary. Between tail and head such a word is only ever used as
        // an atomic; before that, the release and reservation of its room order the accesses.
        unsafe { AtomicU64::from_ptr(self.bytes.as_ptr().add(self.index(pos)).cast()) }
    }

    /// Reserves room for an entry of `len` bytes and fixes its place in the order.
    ///
    /// An entry that does not fit now, or is larger than the ring or than `u32::MAX`, is refused
    /// and nothing changes.
    ///
    /// # Safety
    /// The caller holds the ring's lock, which it may let go as soon as this returns.
    pub unsafe fn reserve_locked(&self, len: usize) -> Result<Reservation, RingFull> {
        let required = Self::entry_size(len);
        // Relaxed: only holders of the lock move the head.
        let head = self.header().head.0.load(Ordering::Relaxed);
        // Acquire, against the Release of `release`: the consumer has copied what we overwrite.
        let available = self.capacity - (head - self.header().tail.0.load(Ordering::Acquire));
        if required > available || u32::try_from(len).is_err() {
            return Err(RingFull {
                required,
                available,
                capacity: self.capacity,
            });
        }
        // Before the head moves, so that the consumer never takes bytes of an earlier lap for a
        // header: it looks at headers below the head alone, and the Release below orders the two.
        self.entry_header(head)
            .store(entry_word(len as u32, RESERVED), Ordering::Relaxed);
        self.header().head.0.store(head + required, Ordering::Release);
        Ok(Reservation {
            ring: *self,
            pos: head,
            len: len as u32,
            written: 0,
            entry: 0,
            first: None,
        })
    }

    /// Whether [`Ring::read`] would return an entry at `pos`.
    pub fn is_published(&self, pos: u64) -> bool {
        (self.tail()..self.head()).contains(&pos)
            && is_published(split_word(self.entry_header(pos).load(Ordering::Acquire)).1)
    }

    /// Replaces `out` by the entry at `pos` and returns the next position, or returns `None` if
    /// none is published there yet. Nothing is released.
    pub fn read(&self, pos: u64, out: &mut Vec<u8>) -> Option<u64> {
        let head = self.head();
        if pos < self.tail() || pos >= head {
            return None;
        }
        // Acquire, against the Release of `publish`: the entry's bytes are there.
        let (len, state) = split_word(self.entry_header(pos).load(Ordering::Acquire));
        let next = pos + Self::entry_size(len as usize);
        if !is_published(state) || next > head {
            return None;
        }
        out.clear();
        if state == READY {
            self.copy_out(pos + ENTRY_HEADER as u64, len as usize, out);
        }
        Some(next)
    }

    fn copy_out(&self, pos: u64, len: usize, out: &mut Vec<u8>) {
        out.reserve(len);
        let start = self.index(pos);
        let first = len.min(self.capacity as usize - start);
        // SAFETY: both ranges lie in the ring, are published and not yet released, so no producer
        // writes them; `out` has room for `len` more bytes, all of which are written.
        unsafe {
            let target = out.as_mut_ptr().add(out.len());
            self.bytes
                .as_ptr()
                .add(start)
                .copy_to_nonoverlapping(target, first);
            self.bytes
                .as_ptr()
                .copy_to_nonoverlapping(target.add(first), len - first);
            out.set_len(out.len() + len);
        }
    }

    /// Gives the room of all entries before `pos` back. `pos` is one that [`Ring::read`] returned;
    /// called by the consumer alone, once these entries are acknowledged. Going back is ignored.
    pub fn release(&self, pos: u64) {
        let tail = &self.header().tail.0;
        // Relaxed: the consumer alone moves the tail.
        if pos > tail.load(Ordering::Relaxed) && pos <= self.head() {
            // Release: our copies of these entries come before their being overwritten.
            tail.store(pos, Ordering::Release);
        }
    }

    /// Drops what is published, for a worker that starts for the first time and purges every
    /// mapping anyway (rule 8). Stops at an entry that is still being written: it is read later.
    /// Called by the consumer alone. Returns how many entries were dropped.
    pub fn reset(&self) -> u64 {
        let mut dropped = 0;
        let mut pos = self.tail();
        while pos < self.head() {
            let (len, state) = split_word(self.entry_header(pos).load(Ordering::Acquire));
            if !is_published(state) {
                break;
            }
            pos += Self::entry_size(len as usize);
            dropped += 1;
        }
        self.release(pos);
        dropped
    }
}

fn entry_word(len: u32, state: u32) -> u64 {
    u64::from(state) << 32 | u64::from(len)
}

fn is_published(state: u32) -> bool {
    state == READY || state == ABANDONED
}

fn split_word(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Room for one entry, or for several in a row, to be written and published outside the ring's lock.
///
/// Dropped without [`Reservation::publish`], or published with another number of bytes than was
/// reserved, the entry is published empty, so that nothing behind it is held up for ever.
#[must_use = "an entry that is not published is a loss that the worker has to purge for"]
pub struct Reservation {
    ring: Ring,
    pos: u64,
    len: u32,
    /// Bytes behind the first header that are written, later headers and padding included.
    written: usize,
    /// Where the entry begins that is being written, counted in the same way.
    entry: usize,
    /// The length of the first entry, once it has ended and there is another one.
    first: Option<u32>,
}

impl Reservation {
    /// The entry's position in the ring.
    pub fn position(&self) -> u64 {
        self.pos
    }

    /// The position behind the entry; once the tail is there the entry is acknowledged.
    pub fn end(&self) -> u64 {
        self.pos + Ring::entry_size(self.len as usize)
    }

    /// Appends `part` to the entry. More than was reserved is not written, and spoils the entry.
    pub fn write(&mut self, part: &[u8]) {
        let offset = self.written;
        self.written = self.written.saturating_add(part.len());
        if self.written > self.len as usize {
            return;
        }
        let start = self.ring.index(self.pos + (ENTRY_HEADER + offset) as u64);
        let first = part.len().min(self.ring.capacity as usize - start);
        let (before_end, wrapped) = part.split_at(first);
        let bytes = self.ring.bytes.as_ptr();
        // SAFETY: the range lies in the reservation (checked above), which is ours alone until it
        // is published.
        unsafe {
            bytes
                .add(start)
                .copy_from_nonoverlapping(before_end.as_ptr(), before_end.len());
            bytes.copy_from_nonoverlapping(wrapped.as_ptr(), wrapped.len());
        }
    }

    /// Ends an entry and begins another one behind it. Nothing is published yet: the header in front of the
    /// first one holds the consumer up.
    pub fn end_entry(&mut self) {
        self.close_entry();
        self.entry = self.written.next_multiple_of(ENTRY_HEADER) + ENTRY_HEADER;
        self.written = self.entry;
    }

    /// Notes the length of the entry that has been written, in its header, but for the first one.
    fn close_entry(&mut self) {
        let len = self.written.saturating_sub(self.entry) as u32;
        if self.entry == 0 {
            self.first = Some(len);
        } else if self.written <= self.len as usize {
            // Relaxed: the consumer comes here by way of the first header, whose Release orders both.
            self.ring
                .entry_header(self.pos + self.entry as u64)
                .store(entry_word(len, READY), Ordering::Relaxed);
        }
    }

    /// Hands the entry, or all of them, to the consumer. False if it was not filled exactly, and so went out empty.
    pub fn publish(mut self) -> bool {
        self.close_entry();
        let is_whole = self.written == self.len as usize;
        if is_whole {
            let len = self.first.unwrap_or(self.len);
            // Without the Drop, which would mark it abandoned; there is nothing in it to free.
            std::mem::ManuallyDrop::new(self).mark(len, READY);
        }
        is_whole
    }

    /// Release, against the Acquire of `read`: the bytes first, then the state.
    fn mark(&self, len: u32, state: u32) {
        self.ring
            .entry_header(self.pos)
            .store(entry_word(len, state), Ordering::Release);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.mark(self.len, ABANDONED);
    }
}
