//! The lines of a lane: opened, and what was sent through earlier ones buried, before anything of it is sent again.
//!
//! To a server of its own nothing is sent before that. For a cluster see `courses`.

use std::rc::Rc;
use std::time::Duration;

use super::super::control::WATCH;
use super::super::event::Client;
use super::super::fault::Cause;
use super::super::line::Line;
use super::super::master::Master;
use super::super::openings::open;
use super::Lane;

/// How often a lane looks whether its cluster cannot be found.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a line that has broken must have lived to have been good. The control's is asked something that often.
const GOOD: Duration = WATCH;

impl Lane {
    /// Makes sure that there is a line to the server, and that nothing sent through an earlier one can run any more; to
    /// the masters of a cluster, as far as that can be had at once.
    /// Returns whether there was anything to do.
    pub(super) async fn connect(&mut self) -> bool {
        if self.is_settled() && self.backlog.doubted(0).is_none() && self.openings.is_empty() {
            return false;
        }
        let mut had_to = false;
        while self.shared.routes().table.is_none() {
            if self.is_connected() {
                if had_to {
                    self.queue.is_cut_off.set(false);
                    self.shared.tell_working();
                }
                return had_to;
            }
            had_to = true;
            // Those of a cluster that it was before.
            self.take_opened();
            self.let_go_of_others();
            if self.open_line().await {
                self.bury().await;
            }
        }
        self.tend().await || had_to
    }

    pub(super) fn is_connected(&self) -> bool {
        self.has_all_lines() && self.backlog.doubted(0).is_none()
    }

    /// Whether there is a line to each master as they are now, and to no other.
    pub(super) fn has_all_lines(&self) -> bool {
        let routes = self.shared.routes();
        !routes.masters.is_empty()
            && self.lines.len() == routes.masters.len()
            && self
                .lines
                .iter()
                .all(|(master, line)| self.shared.is_current(master, line))
    }

    pub(super) fn has_line(&self, master: &Rc<Master>) -> bool {
        self.lines.iter().any(|(other, _)| Rc::ptr_eq(other, master))
    }

    /// Closes the lines to what is not, or not any more, a master of those that there are.
    pub(super) fn let_go_of_others(&mut self) {
        let others = self
            .lines
            .iter()
            .filter(|(master, line)| !self.shared.is_current(master, line));
        let others: Vec<_> = others
            .map(|(master, _)| (master.clone(), Cause::Reconfigured))
            .collect();
        if !others.is_empty() {
            self.lose_lines(others);
            // Behind an address that leads to one server and then to another, lanes must not spin.
            self.backoff.next(self.shared.tuning().backoff_max);
        }
    }

    /// Opens the line to the only server. Returns whether it is there.
    async fn open_line(&mut self) -> bool {
        let shared = self.shared.clone();
        let changed = shared.changed.notified();
        let (routes, prospects) = (shared.routes(), shared.prospects());
        let Some(master) = routes.masters.first() else {
            // The control finds out which there are.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
            self.queue.is_cut_off.set(shared.is_in_trouble());
            return false;
        };
        if self.has_line(master) {
            return true;
        }
        let wait = self.backoff.next(shared.tuning().backoff_max);
        self.others.wait(&shared, wait).await;
        self.gauges.keep(&routes.masters);
        let gauge = self.gauges.of(&shared, master);
        match self.others.attempt(master, open(&shared, master, &gauge)).await {
            Ok(line) => {
                self.lines.push((master.clone(), line));
                true
            }
            Err(Cause::Reconfigured) => {
                self.backoff.try_elsewhere(shared.prospects() != prospects);
                false
            }
            Err(_) => {
                self.queue.is_cut_off.set(self.backoff.attempts() > 1);
                false
            }
        }
    }

    /// Kills this lane's own clients whose commands may still run, where their process is reached. Those of processes
    /// that are not masters now are left to whoever meets them again. Returns whether there was anything to do, which may
    /// have taken time.
    pub(super) async fn bury(&mut self) -> bool {
        let (mut place, mut had_to) = (0, false);
        while let Some((client, mappings)) = self.backlog.doubted(place) {
            let (client, mappings) = (client.clone(), mappings.to_vec());
            let is_there = |(_, line): &(_, Line)| line.server.run_id == client.run_id;
            match self.lines.iter().position(is_there) {
                // It may be at one of the others.
                None if !self.is_left(&client) => {
                    place += 1;
                    continue;
                }
                None => self.shared.leave_behind(client),
                Some(reached) => match self.lines[reached].1.kill(client.id).await {
                    Ok(None) => {}
                    Ok(Some(refusal)) => {
                        for mapping in mappings {
                            let line = &self.lines[reached].1;
                            self.shared
                                .tell_unkillable(client.id, &refusal, Some(mapping), line);
                        }
                    }
                    Err(cause) => {
                        let lost = (self.lines[reached].0.clone(), cause);
                        self.lose_lines(vec![lost]);
                        had_to = true;
                        continue;
                    }
                },
            }
            self.backlog.believe(place);
            had_to = true;
        }
        had_to
    }

    /// Whether the process that this client is on is none of the masters. All of them were met then: should one turn out
    /// to be that process after all, it is met anew, which kills the client before anything is sent there
    /// (`Shared::meet`). One that is away need not be waited for.
    fn is_left(&self, client: &Client) -> bool {
        let routes = self.shared.routes();
        let is_met = |master: &Rc<Master>| {
            master
                .server()
                .is_some_and(|server| server.run_id == client.run_id)
        };
        self.has_all_lines() || self.shared.is_announced() && !routes.masters.iter().any(is_met)
    }

    /// Closes the lines to these masters.
    pub(super) fn lose_lines(&mut self, lost: Vec<(Rc<Master>, Cause)>) {
        for (master, cause) in lost {
            let Some(place) = self
                .lines
                .iter()
                .position(|(other, _)| Rc::ptr_eq(other, &master))
            else {
                continue;
            };
            let (master, line) = self.lines.remove(place);
            if matches!(cause, Cause::Timeout { .. }) && master.seat.is_some() {
                // A new line may be had at once all the same, and again nothing written through it: writes are paused, say.
                // Each attempt holds the batch's other parts up.
                self.spare(&master);
            } else if line.since.elapsed() > self.good_after(&cause) {
                // It was good, even if nothing was sent: the trouble before it is over.
                self.tries_at_once(&master);
            }
            self.shared.lose(&master, line, cause);
        }
    }

    /// How long a line that ends so has to have lived for what went before it not to count. One that hangs may do so again
    /// and again, and an address may lead to one server and then to another: these become rarer.
    fn good_after(&self, cause: &Cause) -> Duration {
        let longest = self.shared.tuning().backoff_max;
        match cause {
            Cause::Timeout { .. } | Cause::Reconfigured => longest,
            _ => GOOD.min(longest),
        }
    }

    /// Waits before the next attempt, unless the settings or the masters change.
    pub(super) async fn pause(&mut self) {
        let wait = self.backoff.next(self.shared.tuning().backoff_max);
        if wait == Duration::ZERO {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.shared.changed.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::doorman::{PATIENCE, beside_others};
    use crate::redis::queue::Queue;
    use crate::redis::routes::tests::shared_at;
    use crate::redis::tuning::Tuning;

    #[tokio::test]
    async fn one_that_hangs_is_not_good_for_having_been_there_a_while() {
        let (shared, _reader) = shared_at("redis://127.0.0.1:1");
        let lane = Lane::new(Rc::new(shared), Rc::new(Queue::default()), 0);
        let longest = lane.shared.tuning().backoff_max;
        let after = Duration::from_secs(2);
        assert!(longest > after);
        for cause in [Cause::Timeout { after }, Cause::Reconfigured] {
            assert_eq!(lane.good_after(&cause), longest);
        }
        assert_eq!(
            lane.good_after(&Cause::of_io(&std::io::ErrorKind::BrokenPipe.into())),
            GOOD
        );
    }

    #[tokio::test]
    async fn who_could_not_reach_the_server_tries_again_once_another_has() {
        let (shared, _reader) = shared_at("redis://127.0.0.1:1");
        let longest = Duration::from_secs(3600);
        shared.tune(Tuning {
            backoff_max: longest,
            ..Tuning::default()
        });
        let master = shared.routes().masters[0].clone();
        let mut lane = Lane::new(Rc::new(shared), Rc::new(Queue::default()), 0);
        assert!(!lane.open_line().await, "nobody is there");
        while lane.backoff.next(longest) < 2 * PATIENCE {}
        let other = async {
            tokio::task::yield_now().await;
            master.opened.send_replace(());
        };
        let again = async { tokio::join!(lane.open_line(), other) };
        assert!(
            !beside_others(again).await.0,
            "nobody is there yet, but it has tried"
        );
    }
}
