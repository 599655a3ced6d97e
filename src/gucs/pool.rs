//! The settings of how connections are kept, and what is logged of them.
use std::{ffi::CStr, time::Duration};

use pg_redis_cache_core::redis::Tuning;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static IDLE_TIMEOUT_MS: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_LIFETIME_MS: GucSetting<i32> = GucSetting::<i32>::new(0);
static BACKOFF_MAX_MS: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static LOG_MIN_PUSH_MS: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// How the engine keeps its connections.
pub fn tuning() -> Tuning {
    Tuning {
        idle_timeout: idle_timeout(),
        max_lifetime: max_lifetime(),
        backoff_max: Duration::from_millis(BACKOFF_MAX_MS.get() as u64),
        // Negative: off.
        slow_push: u64::try_from(LOG_MIN_PUSH_MS.get())
            .ok()
            .map(Duration::from_millis),
    }
}

/// After how long without work a connection is given up; `None`: never.
pub fn idle_timeout() -> Option<Duration> {
    positive(&IDLE_TIMEOUT_MS)
}

/// At what age a connection is replaced; `None`: never.
pub fn max_lifetime() -> Option<Duration> {
    positive(&MAX_LIFETIME_MS)
}

fn positive(setting: &GucSetting<i32>) -> Option<Duration> {
    Some(super::milliseconds(setting)).filter(|time| !time.is_zero())
}

/// A time in milliseconds.
struct Time {
    name: &'static CStr,
    description: &'static CStr,
    more: &'static CStr,
    setting: &'static GucSetting<i32>,
    least: i32,
    most: i32,
}

const TIMES: [Time; 4] = [
    Time {
        name: c"pg_redis_cache.pool_idle_timeout",
        description: c"How long a connection to Redis is kept without work.",
        more: c"It is opened again when it is needed. 0: for ever.",
        setting: &IDLE_TIMEOUT_MS,
        least: 0,
        most: i32::MAX,
    },
    Time {
        name: c"pg_redis_cache.pool_max_lifetime",
        description: c"At what age a connection to Redis is replaced.",
        more: c"Never while something is on its way over it. 0: never.",
        setting: &MAX_LIFETIME_MS,
        least: 0,
        most: i32::MAX,
    },
    Time {
        name: c"pg_redis_cache.reconnect_backoff_max",
        description: c"The longest wait between two attempts to connect to Redis.",
        more: c"The first is 50 ms, each further one twice as long.",
        setting: &BACKOFF_MAX_MS,
        least: 50,
        most: 600_000,
    },
    Time {
        name: c"pg_redis_cache.log_min_push_duration",
        description: c"Logs what is written to Redis at once when that takes at least so long.",
        more: c"0 logs everything, -1 nothing. Keys and values are never logged.",
        setting: &LOG_MIN_PUSH_MS,
        least: -1,
        most: i32::MAX,
    },
];

pub fn init() {
    for time in TIMES {
        GucRegistry::define_int_guc(
            time.name,
            time.description,
            time.more,
            time.setting,
            time.least,
            time.most,
            GucContext::Sighup,
            GucFlags::UNIT_MS,
        );
    }
}
