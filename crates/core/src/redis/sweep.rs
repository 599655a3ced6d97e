//! A purge of a whole cluster: passes over all masters, until no key can have been missed.
//!
//! A key that goes from a master that is still to be scanned to one that is through is seen by neither scan. So before
//! and after each pass the cluster is looked at, and each look in between, whoever asked for it, is told here. If
//! nothing was on its way, and each slot is still where it was, one pass has seen all. (A slot that is handed over in one
//! step, as by Valkey's CLUSTER MIGRATESLOTS, is on its way at no look, and its keys are shown by its new master alone
//! from the moment at which that has the slot.) If something was, each key has been seen by one of two passes between
//! which it has moved once at most; see [`Chart::go_one_way`]. Otherwise another pass follows.

use super::chart::Chart;
use super::purge::Scan;

/// How far a purge has come.
pub(super) struct Sweep {
    /// The pass before this one.
    before: Option<Pass>,
    pass: Pass,
    /// Of each master.
    pub scans: Vec<Scan>,
    /// What earlier passes have deleted.
    keys: u64,
}

/// What was seen of the cluster while its masters were scanned once.
struct Pass {
    /// Before it.
    first: Chart,
    /// At the last look.
    last: Chart,
    /// No look has shown anything that was on its way, or had been.
    is_still: bool,
    /// No look has shown anything that went back.
    is_one_way: bool,
}

impl Pass {
    fn begin(chart: Chart) -> Self {
        Self {
            last: chart.clone(),
            first: chart,
            is_still: true,
            is_one_way: true,
        }
    }

    /// What goes back is at some look behind where it was at the one before. Not so where the nodes do not agree yet:
    /// there it may seem to be.
    fn see(&mut self, chart: &Chart) {
        self.is_still &= self.last.is_still(chart);
        if self.last != *chart && !chart.is_contested() {
            self.is_one_way &= Chart::go_one_way(&[&self.first, &self.last, chart]);
            self.last = chart.clone();
        }
    }
}

impl Sweep {
    /// Before the first pass over the masters of this chart.
    pub fn begin(chart: Chart) -> Self {
        Self {
            scans: scans(&chart),
            before: None,
            pass: Pass::begin(chart),
            keys: 0,
        }
    }

    /// Whether the pass is over.
    pub fn is_scanned(&self) -> bool {
        self.scans.iter().all(|scan| scan.is_done)
    }

    /// Takes note of a look at the cluster.
    pub fn see(&mut self, chart: &Chart) {
        self.pass.see(chart);
    }

    /// Ends a pass with the cluster as it is after it. Returns how many keys are deleted if none can have been missed;
    /// otherwise another pass begins.
    pub fn end_pass(&mut self, chart: Chart) -> Option<u64> {
        self.pass.see(&chart);
        self.keys += self.scans.iter().map(|scan| scan.keys).sum::<u64>();
        // A key that was found where it is not any more has moved, whether a look has shown it or not.
        let is_still = self.pass.is_still && !self.scans.iter().any(|scan| scan.was_redirected);
        let is_one_way = self.before.as_ref().is_some_and(|before| {
            let charts = [&before.first, &self.pass.first, &chart];
            before.is_one_way && self.pass.is_one_way && Chart::go_one_way(&charts)
        });
        if is_still || is_one_way {
            return Some(self.keys);
        }
        self.scans = scans(&chart);
        self.before = Some(std::mem::replace(&mut self.pass, Pass::begin(chart)));
        None
    }
}

fn scans(chart: &Chart) -> Vec<Scan> {
    chart.masters.iter().map(|_| Scan::default()).collect()
}

#[cfg(test)]
mod tests;
