//! A lane between two batches: it waits, replaces lines that are old, and gives them up when nothing comes for long.
//!
//! Nothing is in flight then, so there is nothing on a line that it closes here that could run later (rule 5).

use std::rc::Rc;
use std::time::Instant;

use super::super::batch::Batch;
use super::super::line::Line;
use super::super::master::Master;
use super::super::timer;
use super::Lane;

impl Lane {
    /// Waits for operations, or for another reason to go on. Without lines, if nothing comes for long.
    pub(super) async fn rest(&mut self, next: &Batch) {
        self.queue.is_cut_off.set(self.misses_any());
        self.queue.takes_more.set(self.backlog.reaches_any());
        self.wait_for_work(next).await;
        self.queue.is_cut_off.set(false);
        self.queue.takes_more.set(false);
    }

    async fn wait_for_work(&mut self, next: &Batch) {
        let has_work = !next.is_empty() || !self.backlog.is_clear();
        self.queue.is_busy.set(has_work);
        let idle_since = *self.idle_since.get_or_insert_with(Instant::now);
        let tuning = self.shared.tuning();
        let idle = tuning
            .idle_timeout
            .filter(|_| !has_work && self.openings.is_empty())
            .and_then(|timeout| idle_since.checked_add(timeout));
        let (old, again, can_send) = (self.first_end(), self.next_try(), self.backlog.reaches_any());
        tokio::select! {
            biased;
            () = self.queue.arrived.notified(), if can_send => return,
            () = self.shared.changed.notified() => return,
            () = self.shared.rerouted.notified(), if has_work => return,
            opened = self.openings.next() => {
                if self.take_line(opened) {
                    self.shared.tell_working();
                }
                return;
            }
            () = timer::at(old) => return,
            () = timer::at(again) => return,
            () = timer::at(idle) => {}
        }
        // Nothing is in flight on them: no command of theirs can run later (rule 5).
        self.shared.put_to_rest(std::mem::take(&mut self.lines));
        self.queue.arrived.notified().await;
        self.shared.wake();
        self.backoff.reset();
        self.courses.clear();
        self.openings.forget();
    }

    /// When the first of its lines has lived long enough.
    fn first_end(&self) -> Option<Instant> {
        let lifetime = self.shared.tuning().max_lifetime?;
        self.lines
            .iter()
            .filter_map(|(_, line)| line.ends_at(lifetime))
            .min()
    }

    /// Called between two batches. Nothing is in flight: what is said in `rest` holds.
    pub(super) fn replace_old_lines(&mut self) {
        while self.first_end().is_some_and(|end| end <= Instant::now()) {
            let lifetime = self.shared.tuning().max_lifetime;
            let end = |(_, line): &(Rc<Master>, Line)| lifetime.and_then(|lifetime| line.ends_at(lifetime));
            let is_old = |line: &(Rc<Master>, Line)| end(line).is_some_and(|end| end <= Instant::now());
            let Some(place) = self.lines.iter().position(is_old) else {
                return;
            };
            let (master, line) = self.lines.remove(place);
            self.shared.replace(&master, line);
            self.tries_at_once(&master);
        }
    }
}
