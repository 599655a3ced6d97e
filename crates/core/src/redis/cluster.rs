//! The control of a cluster: a connection to each master. Learns of masters and slots, watches who they are, answers
//! pings and purges. Holds no lane up.
//!
//! It asks all masters for what they know, each second, and sooner when a lane was redirected, told to wait, or has
//! lost a connection. While it has a connection to none, it asks the nodes of the address and those that it knew, one
//! after the other. What has a lower configuration epoch than what is known is not believed: a master that is cut off
//! tells how the cluster was. Only if all say so for [`DOUBT`], the cluster has been made anew.
//!
//! When masters come, go or change, everything is purged ([`Shared::announce`]).

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::batch::Redirected;
use super::chart::{Chart, View};
use super::control::{Errand, WATCH, not_connected, ping};
use super::engine::Note;
use super::event::Event;
use super::fault::Cause;
use super::gauge::Gauges;
use super::line::Line;
use super::master::Master;
use super::openings::Openings;
use super::purge::Purge;
use super::shared::Shared;
use super::slots::slot;
use super::sweep::Sweep;
use super::timer;

/// The shortest time between two looks at the cluster that somebody asks for.
const SOONEST: Duration = Duration::from_millis(50);
/// How long a lower epoch than the known one is not believed.
const DOUBT: Duration = Duration::from_secs(10);
/// How often a note follows a redirection.
const MOST_REDIRECTIONS: usize = 5;

mod absent;
mod purge;
mod scout;

use absent::Absent;

/// See the module.
pub(super) struct ClusterControl<'c> {
    shared: Rc<Shared>,
    errands: &'c mut UnboundedReceiver<Errand>,
    purges: &'c mut VecDeque<Purge>,
    /// The settings that it serves under.
    generation: u64,
    /// In the order of the routes, as far as they are there.
    lines: Vec<(Rc<Master>, Line)>,
    openings: Openings,
    gauges: Gauges,
    /// At most one that asks nodes of which none is connected.
    scouting: JoinSet<Result<View, Cause>>,
    scouts: Backoff,
    looked: Instant,
    next_look: Instant,
    /// What was believed last.
    known: Option<Chart>,
    /// Since when all that is told is older than that.
    doubted: Option<Instant>,
    absent: Absent,
    /// Whether slots have no master, as was told last.
    lacks_masters: Option<bool>,
    /// How far the first purge has come.
    sweep: Option<Sweep>,
    patience: Backoff,
    /// Not before this time does it go on with it, as a master has refused.
    purge_again: Option<Instant>,
}

impl<'c> ClusterControl<'c> {
    pub fn new(
        shared: &Rc<Shared>,
        errands: &'c mut UnboundedReceiver<Errand>,
        purges: &'c mut VecDeque<Purge>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            errands,
            purges,
            generation: shared.generation(),
            lines: Vec::new(),
            openings: Openings::default(),
            gauges: Gauges::new("control".to_owned()),
            scouting: JoinSet::new(),
            scouts: Backoff::default(),
            looked: Instant::now(),
            next_look: Instant::now(),
            known: None,
            doubted: None,
            absent: Absent::default(),
            lacks_masters: None,
            sweep: None,
            patience: Backoff::default(),
            purge_again: None,
        }
    }

    /// Serves until the settings change.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let changed = shared.changed.notified();
            if shared.generation() != self.generation {
                break;
            }
            self.let_go_of_others();
            self.replace_old_lines();
            self.openings
                .open_missing(&self.shared, &mut self.gauges, &self.lines);
            let is_scouting = !self.scouting.is_empty();
            let (can_purge, purge_again, next_look) = (self.can_purge(), self.purge_again, self.next_look);
            tokio::select! {
                biased;
                Some(errand) = self.errands.recv() => self.run_errand(errand).await,
                (master, opened) = self.openings.next() => {
                    if let Ok(line) = opened {
                        self.take_line(master, line);
                    }
                }
                Some(view) = self.scouting.join_next(), if is_scouting => {
                    if let Ok(Ok(view)) = view {
                        self.scouts.reset();
                        self.believe(&[view]);
                    }
                }
                () = shared.survey.notified() => self.next_look = self.next_look.min(self.looked + SOONEST),
                () = sleep_until(next_look) => {
                    self.look().await;
                }
                () = changed => {}
                () = timer::not_before(purge_again), if can_purge => self.purge().await,
            }
        }
        while !self.lines.is_empty() {
            self.lose(0, Cause::Reconfigured);
        }
    }

    fn let_go_of_others(&mut self) {
        for place in (0..self.lines.len()).rev() {
            let (master, line) = &self.lines[place];
            if !self.shared.is_current(master, line) {
                self.lose(place, Cause::Reconfigured);
            }
        }
    }

    /// A purge would begin again.
    fn replace_old_lines(&mut self) {
        let Some(lifetime) = self
            .shared
            .tuning()
            .max_lifetime
            .filter(|_| self.purges.is_empty())
        else {
            return;
        };
        for place in (0..self.lines.len()).rev() {
            let end = self.lines[place].1.ends_at(lifetime);
            if end.is_some_and(|end| end <= Instant::now().into_std()) {
                let (master, line) = self.lines.remove(place);
                self.openings.try_at_once(&master);
                self.shared.replace(&master, line);
            }
        }
    }

    fn lose(&mut self, place: usize, cause: Cause) {
        let (master, line) = self.lines.remove(place);
        self.absent.add(&master);
        self.shared.lose(&master, line, cause);
        self.sweep = None;
    }

    fn take_line(&mut self, master: Rc<Master>, line: Line) {
        self.lines.push((master, line));
        let routes = self.shared.routes();
        let number = |master: &Rc<Master>| routes.masters.iter().position(|other| Rc::ptr_eq(other, master));
        self.lines.sort_by_key(|(master, _)| number(master));
        self.sweep = None;
        self.shared.tell_working();
    }

    /// Asks all masters what they know. Returns what follows from it, if all have answered and stay.
    async fn look(&mut self) -> Option<Chart> {
        self.looked = Instant::now();
        self.next_look = self.looked + WATCH;
        if self.lines.is_empty() {
            self.scout();
            return None;
        }
        let mut views = Vec::new();
        let mut lost = Vec::new();
        let mut early = Vec::new();
        let lines = self.lines.iter_mut().enumerate();
        let mut asked: FuturesUnordered<_> = lines
            .map(|(place, (master, line))| async move { (place, look_at(master, line).await) })
            .collect();
        let mut newest = self.known.as_ref().map_or(0, Chart::epoch);
        while let Some((place, view)) = asked.next().await {
            match view {
                Ok(view) => views.push(view),
                Err(cause) => lost.push((place, cause)),
            }
            // One that hangs may not be a master any more: who knows that is not kept waiting.
            if let Some(chart) = Chart::of(&views)
                && chart.epoch() > newest
                && self.shared.apply(&chart).is_ok()
            {
                newest = chart.epoch();
                early.push((chart, views.len()));
            }
        }
        drop(asked);
        for (chart, answers) in early {
            self.note_chart(chart, &views[..answers]);
        }
        lost.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        let is_whole = lost.is_empty();
        for (place, cause) in lost {
            self.lose(place, cause);
        }
        if !views.iter().any(View::has_slots) {
            // Those that are connected have left the cluster; others may know where it is.
            self.scout();
        }
        let chart = self.believe(&views)?;
        self.meet_again().await;
        self.let_go_of_others();
        let is_whole = is_whole && self.lines.len() == chart.masters.len();
        is_whole.then_some(chart)
    }

    /// Takes what follows from views, unless the cluster was further on already.
    fn believe(&mut self, views: &[View]) -> Option<Chart> {
        let chart = Chart::of(views)?;
        if self
            .known
            .as_ref()
            .is_some_and(|known| chart.is_older_than(known))
        {
            let since = *self.doubted.get_or_insert_with(Instant::now);
            if since.elapsed() < DOUBT {
                return None;
            }
        }
        self.doubted = None;
        self.note_chart(chart.clone(), views);
        if let Err(cause) = self.shared.apply(&chart) {
            self.shared.tell_trouble(self.shared.fault(cause));
            return None;
        }
        self.tell_of_slots(&chart);
        Some(chart)
    }

    /// Tells once that slots have no master, and once that all have one. While nodes disagree, who has answered first would
    /// decide.
    fn tell_of_slots(&mut self, chart: &Chart) {
        if chart.is_contested() {
            return;
        }
        let without = chart.unserved();
        if self.lacks_masters.replace(without.is_some()) == Some(without.is_some()) {
            return;
        }
        let fault = without.map(|(first, count)| {
            self.shared.fault(Cause::Server {
                code: "CLUSTERDOWN".to_owned(),
                text: match count {
                    1 => format!("no master has slot {first}"),
                    _ => format!("no master has {count} slots, the first {first}"),
                },
            })
        });
        self.shared.events.emit(Event::Unserved { fault });
    }

    /// A chart that is written by from now on, and the views that it follows from.
    fn note_chart(&mut self, chart: Chart, views: &[View]) {
        if let Some(sweep) = &mut self.sweep {
            sweep.see(&chart);
        }
        self.see_who_is_back(&chart, views);
        self.known = Some(chart);
    }

    /// Rule 8: another process, or another data set, at the end of a line.
    async fn meet_again(&mut self) {
        for place in (0..self.lines.len()).rev() {
            let (master, line) = &mut self.lines[place];
            self.openings.try_at_once(master);
            if let Err(cause) = self.shared.meet(master, line).await {
                self.lose(place, cause);
            }
        }
    }

    async fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Purge(job) => self.purges.push_back(Purge::new(job)),
            Errand::Ping(ticket) => {
                let round_trip = match self.lines.first_mut() {
                    None => Err(not_connected()),
                    Some((_, line)) => {
                        let (round_trip, result) = ping(line).await;
                        if let Err(cause) = result {
                            self.lose(0, cause);
                        }
                        round_trip
                    }
                };
                let round_trip = round_trip.map_err(|cause| self.shared.fault(cause));
                self.shared.events.emit(Event::Pong { ticket, round_trip });
            }
            Errand::Note(note) => {
                let result = self.note(&note).await.map_err(|cause| self.shared.fault(cause));
                let ticket = note.ticket;
                self.shared.events.emit(Event::Noted { ticket, result });
            }
        }
    }

    /// Stores or deletes a key where its slot is.
    async fn note(&mut self, note: &Note) -> Result<(), Cause> {
        if !self.shared.is_told(&note.server) {
            return Err(Cause::Reconfigured);
        }
        let mut asked = None;
        for _ in 0..MOST_REDIRECTIONS {
            let routes = self.shared.routes();
            let owner = routes
                .table
                .as_ref()
                .and_then(|table| table.owner(slot(&note.key)));
            let numbering = routes.table.as_ref().map_or(0, |table| table.numbering());
            let number = asked.map(usize::from).or(owner).ok_or_else(not_connected)?;
            let is_it = |(master, _): &(Rc<Master>, Line)| Rc::ptr_eq(master, &routes.masters[number]);
            let place = self.lines.iter().position(is_it).ok_or_else(not_connected)?;
            let (master, line) = &mut self.lines[place];
            match line.note(note, asked.is_some()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Cause::Server { code, text })) if code == "MOVED" || code == "ASK" => {
                    asked = self.shared.redirected(
                        master,
                        &Redirected {
                            by: number,
                            is_ask: code == "ASK",
                            to: &text,
                            numbering,
                        },
                    );
                }
                Ok(Some(cause)) => return Err(cause),
                Err(cause) => {
                    self.lose(place, cause.clone());
                    return Err(cause);
                }
            }
        }
        Err(not_connected())
    }
}

async fn look_at(master: &Master, line: &mut Line) -> Result<View, Cause> {
    let host = master.seat.as_ref().map_or("", |seat| seat.node.host.as_str());
    line.view(host).await
}

#[cfg(test)]
mod tests;
