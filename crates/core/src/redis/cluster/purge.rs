//! Purges on all masters: pass after pass, as [`Sweep`] asks for them.

use futures_util::future::join_all;
use tokio::time::Instant;

use super::super::event::Event;
use super::super::fault::Fault;
use super::super::purge::Step;
use super::super::sweep::Sweep;
use super::ClusterControl;

impl ClusterControl<'_> {
    /// Whether there is a purge, and a line to each master.
    pub(super) fn can_purge(&self) -> bool {
        let masters = self.shared.routes().masters.len();
        !self.purges.is_empty() && masters > 0 && self.lines.len() == masters
    }

    /// Takes a step of the oldest purge: a page of each master's keys, or a look at the cluster before or after that.
    pub(super) async fn purge(&mut self) {
        self.purge_again = None;
        if self.sweep.as_ref().is_none_or(Sweep::is_scanned) {
            let Some(chart) = self.look().await else {
                self.sweep = None;
                return;
            };
            // Another master's line drops the sweep.
            match &mut self.sweep {
                None => self.sweep = Some(Sweep::begin(chart)),
                Some(sweep) => {
                    if let Some(keys) = sweep.end_pass(chart) {
                        self.end_purge(Ok(keys));
                    }
                }
            }
            return;
        }
        let (Some(purge), Some(sweep)) = (self.purges.front(), &mut self.sweep) else {
            return;
        };
        let scans = self.lines.iter_mut().zip(&mut sweep.scans).enumerate();
        let steps = scans
            .filter(|(_, (_, scan))| !scan.is_done)
            .map(|(place, ((_, line), scan))| {
                let step = scan.step(&purge.job, line);
                async move { (place, step.await) }
            });
        let (mut wait, mut refused, mut lost) = (None, None, Vec::new());
        for (place, step) in join_all(steps).await {
            match step {
                Ok(Step::More | Step::Done) => {}
                Ok(Step::Wait(cause)) => wait = Some((place, cause)),
                Ok(Step::Refused(cause)) => refused = Some((place, cause)),
                Err(cause) => lost.push((place, cause)),
            }
        }
        let trouble = refused.as_ref().or(wait.as_ref()).map(|(place, cause)| {
            let (master, line) = &self.lines[*place];
            line.gauge().trouble(cause.kind());
            self.shared.fault_at(master, cause.clone())
        });
        for (place, cause) in lost.into_iter().rev() {
            self.lose(place, cause);
        }
        if let (Some(_), Some(fault)) = (&refused, trouble.clone()) {
            self.end_purge(Err(fault));
        } else if let Some(fault) = trouble {
            self.shared.tell_refusing(fault);
            // Meanwhile the cluster is watched, and errands are run.
            let wait = self.patience.next(self.shared.tuning().backoff_max);
            self.purge_again = Instant::now().checked_add(wait);
        } else {
            self.patience.reset();
        }
    }

    fn end_purge(&mut self, outcome: Result<u64, Fault>) {
        self.sweep = None;
        let Some(purge) = self.purges.pop_front() else {
            return;
        };
        let (mapping, epoch) = (purge.job.mapping, purge.job.epoch);
        self.shared.events.emit(match outcome {
            Ok(keys) => Event::Purged { mapping, epoch, keys },
            Err(fault) => Event::PurgeFailed {
                mapping,
                epoch,
                fault,
            },
        });
    }
}
