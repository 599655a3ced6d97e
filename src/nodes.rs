//! Reading and making the server's nodes and lists.
use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, NodeTag};

/// Whether a node is of that type; a null pointer is of none.
///
/// # Safety
/// `node` must be null or point to a node of the server.
pub unsafe fn is_a<T>(node: *const T, tag: NodeTag) -> bool {
    // SAFETY: every node begins with its tag.
    !node.is_null() && unsafe { (*node.cast::<pg_sys::Node>()).type_ } == tag
}

/// The members of a list of pointers.
///
/// # Safety
/// `list` must be null or a pointer list whose members are `T`; it must not change while iterated.
pub unsafe fn items<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: as the caller promises; a null list has length 0.
    let length = if list.is_null() {
        0
    } else {
        unsafe { (*list).length }
    };
    (0..length as usize).map(move |i| {
        // SAFETY: i is below the list's length.
        unsafe { (*(*list).elements.add(i)).ptr_value.cast::<T>() }
    })
}

/// The members of a list of Oids.
///
/// # Safety
/// `list` must be null or an Oid list; it must not change while iterated.
pub unsafe fn oids(list: *mut pg_sys::List) -> impl Iterator<Item = pg_sys::Oid> {
    // SAFETY: as in `items`.
    let length = if list.is_null() {
        0
    } else {
        unsafe { (*list).length }
    };
    (0..length as usize).map(move |i| {
        // SAFETY: i is below the list's length.
        unsafe { (*(*list).elements.add(i)).oid_value }
    })
}

/// The members of a list of integers.
///
/// # Safety
/// `list` must be null or an integer list; it must not change while iterated.
pub unsafe fn integers(list: *mut pg_sys::List) -> impl Iterator<Item = i32> {
    // SAFETY: as in `items`.
    let length = if list.is_null() {
        0
    } else {
        unsafe { (*list).length }
    };
    (0..length as usize).map(move |i| {
        // SAFETY: i is below the list's length.
        unsafe { (*(*list).elements.add(i)).int_value }
    })
}

/// A C string of the server, empty for a null pointer.
///
/// # Safety
/// `text` must be null or end in a NUL byte and live as long as `'a`.
pub unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}
