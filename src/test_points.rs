//! The cargo feature `test_points`, for the tests alone: places at which a session can be made to wait, so that a
//! test can have others come in between. Without the feature there are none.
//!
//! `SET pg_redis_cache.test_points = 'append=500'` has this session wait half a second at each such place.

/// A place.
#[derive(Clone, Copy, Debug)]
pub enum TestPoint {
    /// In COMMIT: the transaction is visible, and its entry not yet in the ring.
    Append,
    /// After rule 3 has let the rows of a statement pass, before they are in the ring.
    Fill,
    /// A view has looked up the places of the mappings, and tells of each afterwards.
    Places,
}

#[cfg(not(feature = "test_points"))]
mod point {
    pub fn init() {}

    #[inline]
    pub fn wait_at(_point: super::TestPoint) {}
}

#[cfg(feature = "test_points")]
mod point {
    use std::{ffi::CString, time::Duration};

    use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

    use super::TestPoint;

    static POINTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

    pub fn init() {
        GucRegistry::define_string_guc(
            c"pg_redis_cache.test_points",
            c"Where this session waits, and for how many milliseconds.",
            c"For tests: append=500,fill=300.",
            &POINTS,
            GucContext::Suset,
            GucFlags::NO_SHOW_ALL,
        );
    }

    pub fn wait_at(point: TestPoint) {
        let Some(points) = POINTS.get() else { return };
        let name = match point {
            TestPoint::Append => "append",
            TestPoint::Fill => "fill",
            TestPoint::Places => "places",
        };
        let points = points.to_string_lossy();
        let asked = points.split(',').filter_map(|point| point.split_once('='));
        let wait = asked.into_iter().find(|(asked, _)| *asked == name);
        if let Some(Ok(milliseconds)) = wait.map(|(_, wait)| wait.parse()) {
            std::thread::sleep(Duration::from_millis(milliseconds));
        }
    }
}

pub use point::{init, wait_at};
