//! What is in trouble, each kind by itself: the log has one line when it begins and one when it is over, and an
//! outage is logged also while another kind of trouble goes on.
use std::time::Instant;

use pg_redis_cache_core::redis::{Episode, Fault};
use pgrx::pg_sys;

use super::destination::Destination;
use crate::shared::StatusText;

/// The trouble that there is.
#[derive(Default)]
pub struct Troubles {
    /// What is wrong with the settings of the connection; the worker stays with what it had.
    settings: Option<String>,
    /// A connection is lost, or cannot be had.
    connection: bool,
    /// That is in the log.
    connection_logged: bool,
    /// Redis refuses writes for now; the connection itself is there.
    refusing: bool,
    /// Slots of a cluster have no master.
    unserved: bool,
    /// Redis has no memory for writes.
    full: Episode,
}

impl Destination {
    /// The settings of the connection cannot be used.
    pub(super) fn settings_in_trouble(&mut self, problem: String) {
        self.note_error(&problem);
        if self.troubles.settings.as_ref() != Some(&problem) {
            pgrx::log!("pg_redis_cache: {}", self.said(&problem));
        }
        self.troubles.settings = Some(problem);
    }

    /// Whether the settings of the connection could not be used when they were looked at last.
    pub(super) fn has_bad_settings(&self) -> bool {
        self.troubles.settings.is_some()
    }

    /// The settings of the connection can be used.
    pub(super) fn settings_in_order(&mut self) {
        if self.troubles.settings.take().is_some() {
            pgrx::log!(
                "pg_redis_cache: {}",
                self.said("the settings of the connection can be used again")
            );
        }
    }

    /// A connection is lost, or cannot be had.
    pub(super) fn connection_in_trouble(&mut self, fault: &Fault) {
        self.note_error(&fault.to_string());
        self.troubles.connection = true;
        if !std::mem::replace(&mut self.troubles.connection_logged, true) {
            pgrx::log!("pg_redis_cache: {}", self.said(&fault.to_string()));
        }
    }

    /// All connections are there. Returns whether one was not.
    pub(super) fn connection_in_order(&mut self) -> bool {
        self.troubles.connection_logged = false;
        std::mem::take(&mut self.troubles.connection)
    }

    /// What is in trouble now is so for other settings: it is logged again.
    pub(super) fn connects_otherwise(&mut self) {
        self.troubles.connection_logged = false;
        self.troubles.unserved = false;
    }

    /// Redis refuses writes for now.
    pub(super) fn refuses_writes(&mut self, fault: &Fault) {
        self.note_error(&fault.to_string());
        if !std::mem::replace(&mut self.troubles.refusing, true) {
            pgrx::log!("pg_redis_cache: {}", self.said(&fault.to_string()));
        }
    }

    /// Slots of a cluster have no master; or all of them have one.
    pub(super) fn lacks_masters(&mut self, fault: Option<&Fault>) {
        let had = std::mem::replace(&mut self.troubles.unserved, fault.is_some());
        match fault {
            Some(fault) => {
                self.note_error(&fault.to_string());
                let text = format!("{fault}; what is for their keys waits");
                pgrx::log!("pg_redis_cache: {}", self.said(&text));
            }
            None if had => pgrx::log!("pg_redis_cache: {}", self.said("all slots have masters again")),
            None => {}
        }
    }

    /// Redis has no memory for writes.
    pub(super) fn has_no_memory(&mut self, fault: &Fault) {
        self.note_error(&fault.to_string());
        if self.troubles.full.happened(Instant::now()) {
            let text = format!("{fault}; keys that cannot be written are deleted");
            pgrx::log!("pg_redis_cache: {}", self.said(&text));
        }
    }

    /// Redis has acknowledged something; with `stored`, a row that it now holds.
    pub(super) fn takes_writes(&mut self, stored: bool) {
        if std::mem::take(&mut self.troubles.refusing) {
            pgrx::log!("pg_redis_cache: {}", self.said("Redis takes writes again"));
        }
        if stored && self.troubles.full.is_over(Instant::now()) {
            pgrx::log!(
                "pg_redis_cache: {}",
                self.said("Redis has memory for writes again")
            );
        }
    }

    /// Shows an error in `servers`, and in `status` if it is about the server that this shows.
    pub(super) fn note_error(&self, error: &str) {
        // SAFETY: reads the clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        self.show_text(StatusText::LastError, error);
        self.shown()
            .last_error_at
            .store(now, std::sync::atomic::Ordering::Relaxed);
    }
}
