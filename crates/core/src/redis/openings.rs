//! Lines that are being opened to the masters of a cluster, for a lane or the control.
//!
//! Each master has waits of its own: one that is away keeps nobody from the others. A change of the masters cuts the
//! waits short, and ends the attempts at those that are none any more. So does the first one who reaches a master for
//! all who could not: otherwise all would be fresh again only once the last of them has waited to the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
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
    others: Others,
}

/// What others have reached since an attempt began that could not open a line. (Nobody is heeded after one that could:
/// what breaks once it is open would be opened all the time.)
#[derive(Clone, Default)]
pub(super) struct Others(Rc<RefCell<Option<watch::Receiver<()>>>>);

impl Others {
    /// Waits so long before an attempt, unless settings or masters change, or one of them can open a line.
    pub async fn wait(&self, shared: &Shared, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let others = self.0.take();
        let reached = async {
            match others {
                // If the master has left, there is nothing to wait for either.
                Some(mut others) => drop(others.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.changed.notified() => {}
            () = reached => {}
        }
    }

    /// Makes an attempt at this master.
    pub async fn attempt<T>(
        &self,
        master: &Master,
        opening: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, Cause> {
        let others = master.opened.subscribe();
        let opened = opening.await;
        self.0.replace(opened.is_err().then_some(others));
        opened
    }
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
            let (wait, others) = (way.backoff.next(longest), way.others.clone());
            let gauge = gauges.of(shared, master);
            let (shared, master) = (shared.clone(), master.clone());
            self.attempts.spawn_local(async move {
                others.wait(&shared, wait).await;
                let opened = others.attempt(&master, open(&shared, &master, &gauge)).await;
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
            others: Others::default(),
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
    use std::sync::Arc;

    use super::super::doorman::{Doorman, PATIENCE, beside_others, server};
    use super::super::routes::tests::{chart, shared};
    use super::super::tuning::Tuning;
    use super::*;

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
        beside_others(change_until_all_are_tried(Rc::new(shared))).await;
    }

    /// Two who want a line to a master, of whom one is to wait for long, and what both get.
    async fn first_and_last(could_open: bool) -> [Option<Opened>; 2] {
        let (shared, _reader) = shared();
        shared.tune(Tuning {
            backoff_max: Duration::from_secs(3600),
            ..Tuning::default()
        });
        let shared = Rc::new(shared);
        let (doorman, _says) = Doorman::new("process-a").await;
        shared.apply(&chart(&[("a", doorman.port, "0-16383")])).unwrap();
        doorman.stand();
        let master = &shared.routes().masters[0];
        master.became(Arc::new(server("process-a")));
        let [mut first, mut last] = [Openings::default(), Openings::default()];
        let way = way_to(&mut last.ways, master);
        while way.backoff.next(shared.tuning().backoff_max) < 2 * PATIENCE {}
        let before = match could_open {
            true => Ok(()),
            false => Err(Cause::Reconfigured),
        };
        let _ = way.others.attempt(master, async { before }).await;
        for openings in [&mut last, &mut first] {
            openings.open_missing(&shared, &mut Gauges::new("lane-0".to_owned()), &[]);
            // It begins to wait.
            tokio::task::yield_now().await;
        }
        let opened = first.next().await;
        let other = match could_open {
            // It would be there at once.
            true => tokio::time::timeout(Duration::from_millis(100), last.next())
                .await
                .ok(),
            false => Some(last.next().await),
        };
        [Some(opened), other]
    }

    #[tokio::test]
    async fn who_reaches_a_master_ends_the_waits_of_all_who_could_not() {
        let opened = beside_others(first_and_last(false)).await;
        assert!(opened.iter().flatten().all(|(_, line)| line.is_ok()));
        assert!(opened[1].is_some());
    }

    #[tokio::test]
    async fn who_fails_after_another_has_reached_the_master_does_not_wait() {
        let (shared, _reader) = shared();
        shared.apply(&chart(&[("a", 1, "0-16383")])).unwrap();
        let master = &shared.routes().masters[0];
        let others = Others::default();
        let fails: Result<(), Cause> = others
            .attempt(master, async {
                master.opened.send_replace(());
                Err(Cause::Reconfigured)
            })
            .await;
        assert!(fails.is_err());
        beside_others(others.wait(&shared, 2 * PATIENCE)).await;
    }

    #[tokio::test]
    async fn who_has_lost_its_line_waits_all_the_same() {
        let opened = beside_others(first_and_last(true)).await;
        assert!(opened[0].is_some() && opened[1].is_none());
    }
}
