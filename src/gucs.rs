//! The settings, named `pg_redis_cache.…`.
//!
//! Two of them need more than a plain variable. The list of mappings is parsed by its check hook, so that a
//! bad list is refused with the place and the reason. The url holds a password: guc.c keeps a constant in its
//! place (a reload logs a changed value as it stands in the file, and `pg_settings.reset_val` shows it), the
//! url itself travels in the hook's `extra`, and SHOW gives it masked.
use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char, c_void},
    ptr,
    time::Duration,
};

use pg_redis_cache_core::config;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use crate::{compat, nodes, shared::Shared};

pub mod pool;
pub mod servers;
pub mod tls;

pub static DATABASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"postgres"));
pub static MAPPINGS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static PASSWORD_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static FILL: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static SYNCHRONOUS: GucSetting<bool> = GucSetting::<bool>::new(false);
static QUEUE_SIZE_KB: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static HASH_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(262_144);
static MAX_MAPPINGS: GucSetting<i32> = GucSetting::<i32>::new(64);
static TRANSACTION_BUFFER_KB: GucSetting<i32> = GucSetting::<i32>::new(32 * 1024);
static POOL_SIZE: GucSetting<i32> = GucSetting::<i32>::new(4);
static CONNECT_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static COMMAND_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static REFILL_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static SYNCHRONOUS_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static SHUTDOWN_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// What guc.c holds in place of the url.
static URL_PLACEHOLDER: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"redis://127.0.0.1:6379/0"));
/// The url itself, in memory that guc.c owns as the `extra` of the value in force.
static mut URL: *const c_char = ptr::null();

thread_local! {
    /// Set whenever the list of mappings, the default database or `enabled` was assigned.
    static LIST_CHANGED: Cell<bool> = const { Cell::new(true) };
    /// How often one of the settings with an assign hook was assigned.
    static ASSIGNMENTS: Cell<u64> = const { Cell::new(0) };
}

/// Bytes of the ring.
pub fn queue_bytes() -> usize {
    QUEUE_SIZE_KB.get() as usize * 1024
}

/// Number of slots, before rounding up to a power of two.
pub fn hash_slots() -> usize {
    HASH_SLOTS.get() as usize
}

/// How many mappings there can be.
pub fn max_mappings() -> usize {
    MAX_MAPPINGS.get() as usize
}

/// Bytes that one transaction may buffer.
pub fn transaction_buffer() -> usize {
    TRANSACTION_BUFFER_KB.get() as usize * 1024
}

/// Number of lanes.
pub fn pool_size() -> usize {
    POOL_SIZE.get() as usize
}

fn milliseconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(setting.get() as u64)
}

pub fn connect_timeout() -> Duration {
    milliseconds(&CONNECT_TIMEOUT_MS)
}

pub fn command_timeout() -> Duration {
    milliseconds(&COMMAND_TIMEOUT_MS)
}

pub fn refill_interval() -> Duration {
    milliseconds(&REFILL_INTERVAL_MS)
}

pub fn synchronous_timeout() -> Duration {
    milliseconds(&SYNCHRONOUS_TIMEOUT_MS)
}

pub fn shutdown_timeout() -> Duration {
    milliseconds(&SHUTDOWN_TIMEOUT_MS)
}

/// PostgreSQL's own `cluster_name`, which may be empty.
pub fn cluster_name() -> String {
    // SAFETY: guc.c keeps a string there.
    let bytes = unsafe { nodes::bytes(pg_sys::cluster_name) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// A string setting; what is not UTF-8 is replaced, which no valid value needs.
pub fn text(setting: &'static GucSetting<Option<CString>>) -> String {
    setting
        .get()
        .map(|value| value.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The url with its password: for the connection alone, never to be shown.
pub fn url() -> String {
    // SAFETY: guc.c keeps the extra of the value in force, and ends it with the NUL that the hook wrote.
    let bytes = unsafe { nodes::bytes(URL) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// The url without its password.
pub fn masked_url() -> String {
    config::masked(&url())
}

/// Whether the list, the default database or `enabled` was assigned since the last call.
pub fn take_list_changed() -> bool {
    LIST_CHANGED.replace(false)
}

/// Whether [`take_list_changed`] would return true.
pub fn list_changed() -> bool {
    LIST_CHANGED.get()
}

/// Makes the next [`take_list_changed`] return true.
pub fn note_list_changed() {
    LIST_CHANGED.set(true);
}

/// Whether the postmaster has read its configuration since this process was forked, as far as the list of mappings or
/// the url may have changed by it. To be asked before this process has read it itself.
pub fn postmaster_has_reloaded(shared: Shared) -> bool {
    shared.assignments() > ASSIGNMENTS.get()
}

/// Called in each process at each reload, for a setting that is in the file also if it has not changed (guc.c,
/// ProcessConfigFileInternal).
fn note_assignment() {
    let count = ASSIGNMENTS.get() + 1;
    ASSIGNMENTS.set(count);
    // SAFETY: a plain read of what the process is.
    if !unsafe { pg_sys::IsUnderPostmaster }
        && let Some(shared) = Shared::get()
    {
        shared.set_assignments(count);
    }
}

/// Defines every setting. Called once, while the postmaster preloads libraries.
pub fn init() {
    define_list();
    define_connection();
    pool::init();
    servers::init();
    tls::init();
    define_memory();
    define_behaviour();
    // SAFETY: called while libraries are preloaded.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_redis_cache".as_ptr()) };
}

fn define_list() {
    // SAFETY: the hooks are guarded and have the signatures that guc.c expects.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_redis_cache.mappings",
            c"Which rows belong to which Redis keys.",
            c"A list of <key template> => SELECT <columns> FROM <table> [WITH (<options>)], separated by semicolons.",
            &MAPPINGS,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_mappings),
            Some(list_assigned),
            None,
        );
        GucRegistry::define_string_guc_with_hooks(
            c"pg_redis_cache.database",
            c"The database of the mappings that name none.",
            c"",
            &DATABASE,
            GucContext::Sighup,
            GucFlags::default(),
            None,
            Some(list_assigned),
            None,
        );
        GucRegistry::define_bool_guc_with_hooks(
            c"pg_redis_cache.enabled",
            c"Whether changes are written to Redis and reads fill it.",
            c"When it is turned on again, every mapping is purged first.",
            &ENABLED,
            GucContext::Sighup,
            GucFlags::default(),
            None,
            Some(enabled_assigned),
            None,
        );
    }
}

fn define_connection() {
    // SAFETY: as in `define_list`.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_redis_cache.url",
            c"Where Redis is: redis://[user:password@]host:port/db, redis+unix:///path?db=n, redis-sentinel://host:port,host:port/service/db or redis-cluster://host:port,host:port; rediss for TLS.",
            c"A password is never shown; better still, put it into password_file.",
            &URL_PLACEHOLDER,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
            Some(check_secret),
            Some(assign_url),
            Some(show_url),
        );
    }
    GucRegistry::define_string_guc(
        c"pg_redis_cache.password_file",
        c"A file whose first line is the password for Redis.",
        c"It must be readable by the server's owner only.",
        &PASSWORD_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"pg_redis_cache.pool_size",
        c"The number of connections that write to Redis.",
        c"Every key has its lane, one connection; further ones serve purges.",
        &POOL_SIZE,
        1,
        64,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    let timeouts: [(&'static CStr, &'static CStr, &'static GucSetting<i32>); 2] = [
        (
            c"pg_redis_cache.connect_timeout",
            c"How long a connection to Redis may take to come up.",
            &CONNECT_TIMEOUT_MS,
        ),
        (
            c"pg_redis_cache.command_timeout",
            c"How long Redis may take to answer before its connection is given up.",
            &COMMAND_TIMEOUT_MS,
        ),
    ];
    for (name, description, setting) in timeouts {
        GucRegistry::define_int_guc(
            name,
            description,
            c"",
            setting,
            10,
            600_000,
            GucContext::Sighup,
            GucFlags::UNIT_MS,
        );
    }
}

fn define_memory() {
    GucRegistry::define_int_guc(
        c"pg_redis_cache.queue_size",
        c"Shared memory for what has been committed and is not yet in Redis.",
        c"When it is full, the keys of what does not fit are deleted rather than refreshed.",
        &QUEUE_SIZE_KB,
        64,
        16 * 1024 * 1024,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_redis_cache.hash_slots",
        c"The number of slots that keep reads and writes of a key in order.",
        c"Rounded up to a power of two; 64 bytes each. With more keys changing at a time than slots, fills are refused more often.",
        &HASH_SLOTS,
        1024,
        1 << 26,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_redis_cache.max_mappings",
        c"How many mappings there can be.",
        c"",
        &MAX_MAPPINGS,
        1,
        1024,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_redis_cache.transaction_buffer",
        c"Memory of a backend for the changes of one transaction.",
        c"Past it the changed keys are deleted rather than refreshed, and past that the mapping is purged.",
        &TRANSACTION_BUFFER_KB,
        64,
        4 * 1024 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
}

fn define_behaviour() {
    GucRegistry::define_int_guc(
        c"pg_redis_cache.refill_interval",
        c"How long a key that a read has filled is not filled again.",
        c"",
        &REFILL_INTERVAL_MS,
        0,
        86_400_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_redis_cache.shutdown_timeout",
        c"How long a stopping server may go on writing to Redis.",
        c"",
        &SHUTDOWN_TIMEOUT_MS,
        0,
        600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"pg_redis_cache.fill",
        c"Whether the reads of this session fill the cache.",
        c"",
        &FILL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_redis_cache.synchronous",
        c"Whether COMMIT returns only once Redis has the changes.",
        c"Waits synchronous_timeout at most, then warns and goes on.",
        &SYNCHRONOUS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_redis_cache.synchronous_timeout",
        c"How long a synchronous COMMIT waits for Redis.",
        c"",
        &SYNCHRONOUS_TIMEOUT_MS,
        1,
        3_600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
}

/// Leaves a message for the ERROR or LOG that guc.c makes of a refused value.
fn explain(place: *mut *mut c_char, text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: ErrorContext lives until the message has been reported, as format_elog_string relies on too.
    unsafe { *place = pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, text.as_ptr()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn check_mappings(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: guc.c passes a valid string.
    let text = unsafe { nodes::bytes(*new) };
    let parsed = match std::str::from_utf8(text) {
        Ok(text) => config::parse_list(text),
        Err(error) => {
            explain(
                &raw mut pg_sys::GUC_check_errdetail_string,
                &format!("The list is not valid UTF-8 at byte {}.", error.valid_up_to() + 1),
            );
            return false;
        }
    };
    match parsed {
        Ok(_) => true,
        Err(error) => {
            let message = error.message();
            let message =
                message.get(..1).unwrap_or_default().to_uppercase() + message.get(1..).unwrap_or_default();
            explain(
                &raw mut pg_sys::GUC_check_errdetail_string,
                &format!("{message}. {}", error.detail()),
            );
            if let Some(hint) = error.hint() {
                explain(&raw mut pg_sys::GUC_check_errhint_string, &hint);
            }
            false
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn list_assigned(_new: *const c_char, _extra: *mut c_void) {
    LIST_CHANGED.set(true);
    note_assignment();
}

#[pg_guard]
unsafe extern "C-unwind" fn enabled_assigned(_new: bool, _extra: *mut c_void) {
    LIST_CHANGED.set(true);
    note_assignment();
}

/// Copies a string into memory of guc.c; null when there is no memory.
fn guc_string(text: &[u8]) -> *mut c_char {
    let copy = compat::guc_allocate(text.len() + 1).cast::<u8>();
    if !copy.is_null() {
        // SAFETY: the allocation holds the text and its NUL.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
            *copy.add(text.len()) = 0;
        }
    }
    copy.cast()
}

/// Puts a constant in the place of a value that may hold a password; refuses none. The same one for every value, also the
/// empty one: where what guc.c holds has changed, a reload logs the text of the file (guc-file.l,
/// ProcessConfigFileInternal). So it is also what pg_settings shows as `reset_val`.
#[pg_guard]
unsafe extern "C-unwind" fn check_secret(
    new: *mut *mut c_char,
    extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: guc.c passes a valid string of its own allocator, and takes over what is put in its place.
    unsafe {
        let real = guc_string(nodes::bytes(*new));
        let shown = guc_string(b"***");
        if real.is_null() || shown.is_null() {
            return false;
        }
        compat::guc_release((*new).cast());
        *new = shown;
        *extra = real.cast();
    }
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn assign_url(_new: *const c_char, extra: *mut c_void) {
    // SAFETY: assigned on the one thread of the process; guc.c keeps the extra while the value is in force.
    unsafe { URL = extra.cast() };
    note_assignment();
}

#[pg_guard]
unsafe extern "C-unwind" fn show_url() -> *const c_char {
    let masked = CString::new(masked_url()).unwrap_or_default();
    // SAFETY: the server copies or sends what a show hook returns before the context is reset.
    unsafe { pg_sys::pstrdup(masked.as_ptr()) }
}
