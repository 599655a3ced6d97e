//! Lines that are being opened to the masters of a cluster, for a lane or the control.
//!
//! Each master has waits of its own: one that is away keeps nobody from the others. A change of the masters cuts the
//! waits short, and ends the attempts at those that are none any more.

use std::rc::Rc;

use tokio::task::{JoinError, JoinSet};

use super::backoff::Backoff;
use super::fault::Cause;
use super::gauge::{Gauge, Gauges};
use super::line::Line;
use super::master::Master;
use super::shared::Shared;

/// A master and the line to it, or what became of opening one.
pub(super) type Opened = (Rc<Master>, Result<Line, Cause>);

/// See the module.
#[derive(Default)]
pub(super) struct Openings {
    ways: Vec<Way>,
    attempts: JoinSet<Opened>,
}

struct Way {
    master: Rc<Master>,
    is_opening: bool,
    /// Attempts in a row that have failed.
    failures: u32,
    backoff: Backoff,
}

impl Openings {
    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Has the lines opened that are missing beside those that there are, and are not on their way.
    pub fn open_missing(&mut self, shared: &Rc<Shared>, gauges: &mut Gauges, lines: &[(Rc<Master>, Line)]) {
        let (routes, longest) = (shared.routes(), shared.tuning().backoff_max);
        self.ways.retain(|way| routes.has(&way.master));
        gauges.keep(&routes.masters);
        let is_there = |master: &&Rc<Master>| lines.iter().any(|(other, _)| Rc::ptr_eq(other, master));
        for master in routes.masters.iter().filter(|master| !is_there(master)) {
            let way = way_to(&mut self.ways, master);
            if std::mem::replace(&mut way.is_opening, true) {
                continue;
            }
            let wait = way.backoff.next(longest);
            let gauge = gauges.of(shared, master);
            let (shared, master) = (shared.clone(), master.clone());
            self.attempts.spawn_local(async move {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.changed.notified() => {}
                }
                let opened = open(&shared, &master, &gauge).await;
                (master, opened)
            });
        }
    }

    /// The next one that is there, or could not be had; never returns while nothing is on its way.
    pub async fn next(&mut self) -> Opened {
        match self.attempts.join_next().await {
            Some(ended) => self.take(ended),
            None => std::future::pending().await,
        }
    }

    /// The same, if there is one by now.
    pub fn try_next(&mut self) -> Option<Opened> {
        let ended = self.attempts.try_join_next()?;
        Some(self.take(ended))
    }

    fn take(&mut self, ended: Result<Opened, JoinError>) -> Opened {
        let (master, opened) = match ended {
            Ok(opened) => opened,
            // Nobody cancels one: it has panicked, and so does who waits for it.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let mut ways = self.ways.iter_mut();
        if let Some(way) = ways.find(|way| Rc::ptr_eq(&way.master, &master)) {
            way.is_opening = false;
            way.failures = if opened.is_ok() { 0 } else { way.failures + 1 };
        }
        (master, opened)
    }

    /// The next attempt at this master does not wait.
    pub fn try_at_once(&mut self, master: &Rc<Master>) {
        let mut ways = self.ways.iter_mut();
        if let Some(way) = ways.find(|way| Rc::ptr_eq(&way.master, master)) {
            way.backoff.reset();
        }
    }

    /// The masters at which several attempts in a row have failed.
    pub fn failing(&self) -> impl Iterator<Item = &Rc<Master>> {
        let failing = self.ways.iter().filter(|way| way.failures > 1);
        failing.map(|way| &way.master)
    }

    /// Begins anew with all masters. Nothing may be on its way.
    pub fn forget(&mut self) {
        self.ways.clear();
    }
}

fn way_to<'w>(ways: &'w mut Vec<Way>, master: &Rc<Master>) -> &'w mut Way {
    let is_it = |way: &Way| Rc::ptr_eq(&way.master, master);
    let place = ways.iter().position(is_it).unwrap_or_else(|| {
        ways.push(Way {
            master: master.clone(),
            is_opening: false,
            failures: 0,
            backoff: Backoff::default(),
        });
        ways.len() - 1
    });
    &mut ways[place]
}

/// Opens a line, unless there is no such master any more before there is one.
pub(super) async fn open(shared: &Shared, master: &Rc<Master>, gauge: &Rc<Gauge>) -> Result<Line, Cause> {
    let mut opening = std::pin::pin!(shared.open(master, gauge));
    loop {
        let changed = shared.changed.notified();
        tokio::select! {
            biased;
            opened = &mut opening => return opened,
            () = changed => {
                if !shared.routes().has(master) {
                    return Err(Cause::Reconfigured);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::LocalSet;

    use super::super::routes::tests::{chart, shared};
    use super::super::tuning::Tuning;
    use super::*;

    /// How long anything may take before a test fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Of two masters, of which the second one has another place each time: it need not have begun to wait.
    async fn change_until_all_are_tried(shared: Rc<Shared>) {
        let mut nodes = [("a", 1, "0-8191"), ("b", 2, "8192-16383")];
        shared.apply(&chart(&nodes)).unwrap();
        let mut openings = Openings::default();
        let longest = shared.tuning().backoff_max;
        for master in &shared.routes().masters {
            let backoff = &mut way_to(&mut openings.ways, master).backoff;
            while backoff.next(longest) < 2 * PATIENCE {}
        }
        openings.open_missing(&shared, &mut Gauges::new("lane-0".to_owned()), &[]);
        while !openings.is_empty() {
            nodes[1].1 += 1;
            shared.apply(&chart(&nodes)).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            while openings.try_next().is_some() {}
        }
    }

    #[tokio::test]
    async fn a_change_of_the_masters_cuts_the_waits_short() {
        let (shared, _reader) = shared();
        shared.tune(Tuning {
            backoff_max: Duration::from_secs(3600),
            ..Tuning::default()
        });
        let tasks = LocalSet::new();
        let changes = tasks.run_until(change_until_all_are_tried(Rc::new(shared)));
        tokio::time::timeout(PATIENCE, changes).await.unwrap();
    }
}
