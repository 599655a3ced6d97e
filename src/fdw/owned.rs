//! Values of ours that live as long as a memory context: an ERROR skips the callbacks that end a scan or a change.
use std::ffi::c_void;

use pgrx::{pg_guard, pg_sys};

use crate::compat::unguarded;

/// A value and what drops it.
#[repr(C)]
struct Owned<T> {
    callback: pg_sys::MemoryContextCallback,
    value: T,
}

/// Moves a value into a memory context, which drops it when it is reset. Its drop must not raise.
///
/// # Safety
/// `context` must be valid. The value may be used as long as the context lives.
pub unsafe fn keep<T>(context: pg_sys::MemoryContext, value: T) -> *mut T {
    let owned = Box::into_raw(Box::new(Owned {
        callback: pg_sys::MemoryContextCallback::default(),
        value,
    }));
    // SAFETY: the callback lies in the box, which it releases itself.
    unsafe {
        (*owned).callback.func = Some(release::<T>);
        (*owned).callback.arg = owned.cast();
        unguarded::MemoryContextRegisterResetCallback(context, &raw mut (*owned).callback);
        &raw mut (*owned).value
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn release<T>(owned: *mut c_void) {
    // SAFETY: called once, with what `keep` has boxed.
    drop(unsafe { Box::from_raw(owned.cast::<Owned<T>>()) });
}
