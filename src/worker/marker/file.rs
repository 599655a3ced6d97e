//! The document in the data directory, and what pg_control and the library's version say about it.
use std::{fs, io, path::Path};

use pg_redis_cache_core::coherence::past::{Past, Stop, Unknown};
use pgrx::pg_sys::{self, DBState};

/// In the data directory, beside the statistics that outlive a restart (pgstat.h, PGSTAT_STAT_PERMANENT_DIRECTORY).
pub(super) const NAME: &str = "pg_stat/pg_redis_cache.marker";
/// Written first, and then renamed.
const NEW_NAME: &str = "pg_stat/pg_redis_cache.marker.new";
/// The files that make a start recover (xlogrecovery.c, readRecoverySignalFile, read_backup_label).
const SIGNS_OF_RECOVERY: [&str; 3] = ["standby.signal", "recovery.signal", "backup_label"];

/// What the last stop has left, if pg_control says so, too. To be called before recovery.
pub(super) fn read() -> Result<Option<Past>, Unknown> {
    let document = match fs::read(NAME) {
        Ok(document) => document,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(Unknown::Unreadable),
    };
    let past = Past::from_document(&document)?;
    past.check_stop(&stop(), &versions())?;
    Ok(Some(past))
}

/// What pg_control says. The working directory is the data directory (postmaster.c, ChangeToDataDir).
fn stop() -> Stop {
    let mut intact = false;
    // SAFETY: the path is set; the answer is allocated, and is released here.
    unsafe {
        let control = pg_sys::get_controlfile(pg_sys::DataDir, &raw mut intact);
        let recovers = SIGNS_OF_RECOVERY.iter().any(|sign| Path::new(sign).exists());
        let stop = Stop {
            clean: intact && !recovers && (*control).state == DBState::DB_SHUTDOWNED,
            system_identifier: (*control).system_identifier,
            timeline: (*control).checkPointCopy.ThisTimeLineID,
            next_xid: (*control).checkPointCopy.nextXid.value,
        };
        pg_sys::pfree(control.cast());
        stop
    }
}

/// This library's version and the server's.
pub(super) fn versions() -> String {
    // SAFETY: the setting exists in every server; its text stays while it is copied.
    let server = unsafe {
        let text = pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false);
        if text.is_null() {
            String::new()
        } else {
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    format!("{} on {server}", env!("CARGO_PKG_VERSION"))
}

/// Nobody is to believe the file any more.
pub fn remove() {
    if let Err(error) = fs::remove_file(NAME)
        && error.kind() != io::ErrorKind::NotFound
    {
        pgrx::warning!("pg_redis_cache: {NAME} cannot be removed: {error}");
    }
}

/// Whether it could be written; if not, that is logged.
pub(super) fn write(document: &str) -> bool {
    let written = fs::write(NEW_NAME, document).and_then(|()| fs::rename(NEW_NAME, NAME));
    if let Err(error) = &written {
        pgrx::log!("pg_redis_cache: {NAME} cannot be written: {error}");
    }
    written.is_ok()
}
