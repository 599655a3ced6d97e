//! The shape that the structures in shared memory have in common: a head, then `len` cells.
//!
//! Heads and cells are made of atomics alone, for which zeroed memory is a valid and the first
//! state. Nothing here synchronises anything; that is each structure's own matter.

use std::alloc::Layout;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// More cells were asked for than memory has addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLayout {
    /// The number of cells asked for.
    pub cells: usize,
}

impl fmt::Display for BadLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table of {} cells is larger than memory", self.cells)
    }
}

impl std::error::Error for BadLayout {}

/// Types that zeroed memory is a valid value of and that any number of processes may share.
///
/// # Safety
/// Made of atomics alone (or of nothing), with no padding that anybody reads and no Drop.
pub(super) unsafe trait Shared: Sync {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an atomic.
unsafe impl Shared for AtomicI64 {}
// SAFETY: nothing.
unsafe impl Shared for () {}

#[repr(C, align(64))]
struct Preamble<H> {
    len: u64,
    head: H,
}

/// A handle on a table; copies are handles on the same table.
pub(super) struct Table<H, T> {
    preamble: NonNull<Preamble<H>>,
    cells: NonNull<T>,
    len: usize,
}

impl<H, T> Clone for Table<H, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H, T> Copy for Table<H, T> {}

// SAFETY: nothing but shared references to `Sync` types is ever handed out.
unsafe impl<H: Shared, T: Shared> Send for Table<H, T> {}
// SAFETY: as above.
unsafe impl<H: Shared, T: Shared> Sync for Table<H, T> {}

impl<H: Shared, T: Shared> Table<H, T> {
    fn parts(len: usize) -> Result<(Layout, usize), BadLayout> {
        let bad = |_| BadLayout { cells: len };
        Layout::new::<Preamble<H>>()
            .extend(Layout::array::<T>(len).map_err(bad)?)
            .map_err(bad)
    }

    /// The memory that a table of `len` cells needs.
    pub(super) fn layout(len: usize) -> Result<Layout, BadLayout> {
        Ok(Self::parts(len)?.0.pad_to_align())
    }

    /// Makes a table of zeroes.
    ///
    /// # Safety
    /// `mem` is valid for `layout(len)`, nobody else uses it yet, and it outlives every copy of the
    /// handle.
    pub(super) unsafe fn init_in_place(mem: *mut u8, len: usize) -> Result<Self, BadLayout> {
        let layout = Self::layout(len)?;
        // SAFETY: valid for the whole layout (caller).
        unsafe { mem.write_bytes(0, layout.size()) };
        // SAFETY: the layout begins with the preamble, whose head may be all zeroes (`Shared`).
        unsafe { (*mem.cast::<Preamble<H>>()).len = len as u64 };
        // SAFETY: just initialised.
        Ok(unsafe { Self::attach(mem) })
    }

    /// A handle on the table that [`Table::init_in_place`] made at `mem`.
    ///
    /// # Safety
    /// `mem` holds such a table, of the same types, and outlives every copy of the handle.
    pub(super) unsafe fn attach(mem: *mut u8) -> Self {
        // SAFETY: not null, as it holds a table (caller).
        let preamble = unsafe { NonNull::new_unchecked(mem.cast::<Preamble<H>>()) };
        // SAFETY: initialised (caller), and never changed after that.
        let len = unsafe { (*preamble.as_ptr()).len } as usize;
        // The preamble's size is a multiple of 64 bytes, so that this is where `Layout::extend` has
        // put the cells: none of the types used is aligned more strictly.
        const { assert!(align_of::<T>() <= 64) };
        // SAFETY: within the table.
        let cells = unsafe { NonNull::new_unchecked(mem.add(size_of::<Preamble<H>>()).cast::<T>()) };
        Table { preamble, cells, len }
    }

    pub(super) fn head(&self) -> &H {
        // SAFETY: initialised and outliving the handle (contract of `attach`).
        unsafe { &self.preamble.as_ref().head }
    }

    pub(super) fn cells(&self) -> &[T] {
        // SAFETY: `len` initialised cells that outlive the handle (contract of `attach`).
        unsafe { std::slice::from_raw_parts(self.cells.as_ptr(), self.len) }
    }
}

/// A table on the heap, for tests.
#[cfg(test)]
pub(super) struct OnHeap<S> {
    mem: *mut u8,
    layout: Layout,
    shared: S,
}

#[cfg(test)]
impl<S> OnHeap<S> {
    /// `init` is a structure's own `init_in_place` with its arguments.
    pub(super) fn new(layout: Layout, init: impl FnOnce(*mut u8) -> S) -> Self {
        // SAFETY: no layout here has size zero.
        let mem = unsafe { std::alloc::alloc(layout) };
        assert!(!mem.is_null());
        OnHeap {
            mem,
            layout,
            shared: init(mem),
        }
    }

    pub(super) fn memory(&self) -> *mut u8 {
        self.mem
    }
}

#[cfg(test)]
impl<S> std::ops::Deref for OnHeap<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.shared
    }
}

#[cfg(test)]
impl<S> Drop for OnHeap<S> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.mem, self.layout) };
    }
}
