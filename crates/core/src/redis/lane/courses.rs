//! How a lane fares with each master of a cluster: one that is away, or refuses writes for now, does not hold up what
//! goes to the others. One that leaves a command unanswered does, for as long as that is waited for; the attempts become
//! rarer.
//!
//! Lines are opened beside the batches, each master with waits of its own. What cannot be sent meanwhile is in the
//! backlog. Nothing is sent to anybody while a master of the list was never met, or what was told of them last is not what
//! they are (rule 8).

use std::rc::Rc;
use std::time::Instant;

use super::super::backlog::Reach;
use super::super::backoff::Backoff;
use super::super::batch::Answers;
use super::super::fault::Cause;
use super::super::master::Master;
use super::super::openings::Opened;
use super::Lane;

/// See the module.
pub(super) struct Course {
    master: Rc<Master>,
    /// Between attempts to write, while it refuses, or answers everything but writes.
    patience: Backoff,
    /// Until that is taken notice of.
    refuses_until: Option<Instant>,
}

impl Course {
    fn new(master: &Rc<Master>) -> Self {
        Self {
            master: master.clone(),
            patience: Backoff::default(),
            refuses_until: None,
        }
    }

    fn refuses(&self) -> bool {
        self.refuses_until.is_some()
    }
}

impl Lane {
    /// Has the lines opened that are missing, takes those that are there by now, and buries what can be buried. Returns
    /// whether anything has changed by that.
    pub(super) async fn tend(&mut self) -> bool {
        if self.is_connected() && self.openings.is_empty() {
            return false;
        }
        self.let_go_of_others();
        let mut has_changed = self.take_opened();
        let routes = self.shared.routes();
        self.courses.retain(|course| routes.has(&course.master));
        self.openings
            .open_missing(&self.shared, &mut self.gauges, &self.lines);
        has_changed |= self.bury().await;
        if has_changed {
            self.shared.tell_working();
        }
        has_changed
    }

    /// Takes the lines that were opened. Returns whether there was any.
    pub(super) fn take_opened(&mut self) -> bool {
        let mut any = false;
        while let Some(opened) = self.openings.try_next() {
            any |= self.take_line(opened);
        }
        any
    }

    /// Takes a line that was opened meanwhile, if it is still wanted. Returns whether it is.
    pub(super) fn take_line(&mut self, (master, opened): Opened) -> bool {
        let Ok(line) = opened else {
            return false;
        };
        let is_wanted = self.shared.is_current(&master, &line) && !self.has_line(&master);
        if is_wanted {
            self.lines.push((master, line));
        } else {
            self.shared.lose(&master, line, Cause::Reconfigured);
        }
        is_wanted
    }

    /// The next attempt to reach this master does not wait.
    pub(super) fn tries_at_once(&mut self, master: &Rc<Master>) {
        self.backoff.reset();
        self.openings.try_at_once(master);
    }

    /// Something has gone through, at the masters that have answered.
    pub(super) fn note_working(&mut self, answers: &[Answers]) {
        self.backoff.reset();
        let answers = self.routes.masters.iter().zip(answers);
        for (master, _) in answers.filter(|(_, answer)| answer.is_some()) {
            self.openings.try_at_once(master);
            let mut courses = self.courses.iter_mut();
            if let Some(course) = courses.find(|course| Rc::ptr_eq(&course.master, master)) {
                course.patience.reset();
                course.refuses_until = None;
            }
        }
        self.shared.tell_working();
    }

    /// The master of this number refuses writes for now. Of a cluster the others are written to meanwhile.
    pub(super) async fn wait_for(&mut self, at: usize, cause: Cause) {
        self.shared.tell_refusing(self.trouble(at, cause));
        self.shared.survey.notify_one();
        if self.routes.table.is_none() {
            return self.pause().await;
        }
        let master = self.routes.masters[at].clone();
        self.spare(&master);
    }

    /// Nothing is sent to this master of a cluster for a while, the longer the more often in a row.
    pub(super) fn spare(&mut self, master: &Rc<Master>) {
        let longest = self.shared.tuning().backoff_max;
        let course = course_of(&mut self.courses, master);
        course.refuses_until = Instant::now().checked_add(course.patience.next(longest));
    }

    /// Whether a master of a cluster cannot be reached.
    pub(super) fn misses_any(&self) -> bool {
        let mut failing = self.openings.failing();
        failing.any(|master| self.routes.has(master) && !self.has_line(master))
    }

    /// When something that waits may be tried again without anything having happened. A time that has passed is one that
    /// has not been acted upon.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let refusing = self.courses.iter().filter_map(|course| course.refuses_until);
        let waiting = self.backlog.next_try().filter(|_| self.backlog.reaches_any());
        refusing.chain(waiting).min()
    }

    /// Whether nothing has changed since all masters were found to be there, and to take writes. It is asked several times
    /// for each batch, and must cost little.
    pub(super) fn is_settled(&self) -> bool {
        self.settled == Some(self.shared.revision())
            && self.lines.len() == self.routes.masters.len()
            && !self.courses.iter().any(Course::refuses)
    }

    /// Takes note of the masters that there are, and of those that can be written to now.
    pub(super) fn look_who_is_there(&mut self) {
        if self.is_settled() {
            return;
        }
        self.routes = self.shared.routes();
        let now = Instant::now();
        for course in &mut self.courses {
            course.refuses_until.take_if(|until| *until <= now);
        }
        let has_all = self.has_all_lines();
        let may_send = has_all || self.shared.is_announced();
        let refuses = |master: &Rc<Master>| {
            let is_it = |course: &&Course| Rc::ptr_eq(&course.master, master);
            self.courses.iter().find(is_it).is_some_and(Course::refuses)
        };
        let is_open = |master: &Rc<Master>| may_send && self.has_line(master) && !refuses(master);
        let reach = Reach {
            table: self.routes.table.clone(),
            open: self.routes.masters.iter().map(is_open).collect(),
        };
        self.settled = (has_all && !reach.open.contains(&false)).then(|| self.shared.revision());
        self.backlog.set_reach(reach);
    }
}

fn course_of<'c>(courses: &'c mut Vec<Course>, master: &Rc<Master>) -> &'c mut Course {
    let is_it = |course: &Course| Rc::ptr_eq(&course.master, master);
    let place = courses.iter().position(is_it).unwrap_or_else(|| {
        courses.push(Course::new(master));
        courses.len() - 1
    });
    &mut courses[place]
}

#[cfg(test)]
mod tests;
