//! The setting `servers`: further places for mappings, each with a name.
//!
//! Its urls hold passwords, so it is kept as the url is: guc.c holds a constant, the list itself travels in the check
//! hook's `extra`, and SHOW gives it masked. Nothing is refused; what cannot be read is told by [`problems`].
use std::ffi::{CString, c_char, c_void};

use pg_redis_cache_core::config::{self, DEFAULT_SERVER, ServerList};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use super::{check_secret, note_assignment, url};
use crate::nodes;

/// What guc.c holds in place of the list.
static PLACEHOLDER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
/// The list itself, in memory that guc.c owns as the `extra` of the value in force.
static mut LIST: *const c_char = std::ptr::null();

pub(super) fn init() {
    // SAFETY: the hooks are guarded and have the signatures that guc.c expects.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_redis_cache.servers",
            c"Further servers for mappings with the option server.",
            c"A list of <name> => <url>, separated by semicolons; passwords are never shown.",
            &PLACEHOLDER,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
            Some(check_secret),
            Some(assign),
            Some(show),
        );
    }
}

/// The list with its passwords.
fn list() -> ServerList {
    // SAFETY: guc.c keeps the extra of the value in force, and ends it with the NUL that the hook wrote.
    let bytes = unsafe { nodes::bytes(LIST) };
    ServerList::parse(&String::from_utf8_lossy(bytes))
}

/// The url of a server with its password: for the connection alone, never to be shown. `None` if there is no server of
/// that name.
pub fn url_of(name: &str) -> Option<String> {
    if name == DEFAULT_SERVER {
        return Some(url());
    }
    list().url_of(name).map(str::to_owned)
}

/// The names of all servers, first that of the setting `url`, and their urls as they may be shown.
pub fn masked() -> Vec<(String, String)> {
    let default = (DEFAULT_SERVER.to_owned(), config::masked(&url()));
    let others = list().servers.into_iter().map(|server| {
        let masked = server.masked();
        (server.name, masked)
    });
    std::iter::once(default).chain(others).collect()
}

/// What is wrong with the list, without anything of its text.
pub fn problems() -> Vec<String> {
    let problems = list().problems;
    problems
        .iter()
        .map(|problem| format!("the setting servers: {problem}"))
        .collect()
}

#[pg_guard]
unsafe extern "C-unwind" fn assign(_new: *const c_char, extra: *mut c_void) {
    // SAFETY: assigned on the one thread of the process; guc.c keeps the extra while the value is in force.
    unsafe { LIST = extra.cast() };
    note_assignment();
}

#[pg_guard]
unsafe extern "C-unwind" fn show() -> *const c_char {
    let masked = CString::new(list().masked()).unwrap_or_default();
    // SAFETY: the server copies or sends what a show hook returns before the context is reset.
    unsafe { pg_sys::pstrdup(masked.as_ptr()) }
}
