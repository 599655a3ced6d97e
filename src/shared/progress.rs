//! What the long functions (`verify`, `warm`) tell of themselves while they run: one entry for each backend.
//!
//! Each entry is written by its own backend and read by anybody, word by word: a reader may see figures of two
//! moments. A backend that is terminated leaves its entry behind; the entry then has a process id that the
//! backend in its place no longer has, and is not shown.
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::Shared;
use crate::compat;

/// What a function is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// `verify` with a sample: how many keys there are to pick from.
    Counting = 1,
    /// `verify`: keys against rows.
    Comparing = 2,
    /// `verify`: a second look at what differs.
    Confirming = 3,
    /// `warm`: reading rows and handing them to the worker.
    Loading = 4,
    /// `warm`: the queue is full enough.
    Waiting = 5,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Counting,
        Self::Comparing,
        Self::Confirming,
        Self::Loading,
        Self::Waiting,
    ];

    /// The function, and what it does.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Counting => ("verify", "counting keys"),
            Self::Comparing => ("verify", "comparing"),
            Self::Confirming => ("verify", "looking again"),
            Self::Loading => ("warm", "loading rows"),
            Self::Waiting => ("warm", "waiting for room in the queue"),
        }
    }
}

/// The entry of a backend. All zero is a valid one: nothing runs.
#[repr(C)]
pub struct ProgressEntry {
    /// 0 while nothing runs.
    pid: AtomicI32,
    phase: AtomicU32,
    mapping: AtomicU32,
    done: AtomicU64,
    /// 0 while it is not known.
    total: AtomicU64,
    /// Microseconds since 2000, as TimestampTz.
    started_at: AtomicI64,
}

/// What an entry shows.
pub struct Shown {
    pub pid: i32,
    pub phase: Phase,
    pub mapping: u16,
    pub done: u64,
    pub total: Option<u64>,
    pub started_at: i64,
}

/// The entry of this backend, until it goes.
pub struct Progress(&'static ProgressEntry);

impl Progress {
    /// Begins to tell of a function over `mapping`.
    pub fn begin(shared: Shared, mapping: u16, phase: Phase) -> Self {
        let entry = &shared.progress_entries()[compat::backend_number()];
        // SAFETY: reads the clock.
        let now = unsafe { compat::unguarded::GetCurrentTimestamp() };
        entry.mapping.store(mapping.into(), Ordering::Relaxed);
        entry.phase.store(phase as u32, Ordering::Relaxed);
        entry.done.store(0, Ordering::Relaxed);
        entry.total.store(0, Ordering::Relaxed);
        entry.started_at.store(now, Ordering::Relaxed);
        // Release: whoever sees the process id sees the rest of this beginning.
        entry.pid.store(std::process::id() as i32, Ordering::Release);
        Self(entry)
    }

    pub fn phase(&self, phase: Phase) {
        self.0.phase.store(phase as u32, Ordering::Relaxed);
    }

    /// `done` of about `total` rows or keys; 0 for a total that is not known.
    pub fn at(&self, done: u64, total: u64) {
        self.0.done.store(done, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.pid.store(0, Ordering::Release);
    }
}

impl Shared {
    fn progress_entries(&self) -> &'static [ProgressEntry] {
        // SAFETY: there is one for each backend, zeroed by the startup hook, in memory that lives as long as the
        // process.
        unsafe { std::slice::from_raw_parts(self.progress, self.control().max_backends as usize) }
    }

    /// What runs now.
    pub fn progress(&self) -> Vec<Shown> {
        let entries = self.progress_entries().iter().enumerate();
        entries
            .filter_map(|(backend, entry)| {
                let pid = entry.pid.load(Ordering::Acquire);
                if pid == 0 || !compat::is_backend(backend, pid) {
                    return None;
                }
                let phase = entry.phase.load(Ordering::Relaxed);
                Some(Shown {
                    pid,
                    phase: Phase::ALL.into_iter().find(|known| *known as u32 == phase)?,
                    mapping: entry.mapping.load(Ordering::Relaxed) as u16,
                    done: entry.done.load(Ordering::Relaxed),
                    total: Some(entry.total.load(Ordering::Relaxed)).filter(|total| *total > 0),
                    started_at: entry.started_at.load(Ordering::Relaxed),
                })
            })
            .collect()
    }
}
