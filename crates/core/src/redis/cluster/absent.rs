//! Masters that were away, or did not know what the others knew, and slots that they have when they are back.
//!
//! A slot that is handed over in one step (Valkey's CLUSTER MIGRATESLOTS) is its new master's from the moment at which
//! that says so. If that is then cut off before it has told the old one, the old one goes on after a while
//! (cluster_migrateslots.c, the pause ends), takes writes, and gives slot and keys up when both see each other again:
//! what is left are the values of before. No process is another one, and no data set, so rule 8 does not notice. While
//! there is a line to the new master its word is known a second later, long before that pause is over. So what counts
//! is which slots a master has won while there was none.
//!
//! Slots may also be given to another master, and written there, while their own one hangs, or has not heard of it. When
//! it goes on and claims them back (its epoch may be the higher one) it has the values of before. So for each slot that
//! a master has lost its own word is waited for; what it has back before it has said so is not believed.

use std::collections::BTreeSet;

use super::super::chart::{Chart, View};
use super::super::event::{Event, LossReason};
use super::super::master::Master;
use super::ClusterControl;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Absent {
    /// The ids of masters to which the line was lost, until all agree again.
    away: BTreeSet<String>,
    /// The slots that a master has lost without having said so, each behind its id.
    unsaid: BTreeSet<(String, u16)>,
}

impl Absent {
    pub fn add(&mut self, master: &Master) {
        self.away.extend(master.id().map(str::to_owned));
    }

    /// Those that have slots of others now, or slots back.
    fn winners<'a>(&'a self, before: &'a Chart, now: &'a Chart) -> BTreeSet<&'a str> {
        let with_more = self.away.iter().filter(|id| now.gives_more_to(id, before));
        let is_back = |(id, slot): &&(String, u16)| now.owner(*slot) == Some(id);
        let back = self.unsaid.iter().filter(is_back).map(|(id, _)| id);
        with_more.chain(back).map(String::as_str).collect()
    }

    /// Takes note of what masters have lost, and of what they say of it themselves. One that has no slot any more is no
    /// master: should it become one again, everything is purged.
    fn see_losses(&mut self, before: Option<&Chart>, now: &Chart, views: &[View]) {
        if let Some(before) = before.filter(|before| *before != now) {
            let lost = now.lost_since(before);
            self.unsaid.extend(lost.map(|(id, slot)| (id.to_owned(), slot)));
        }
        self.unsaid.retain(|(id, slot)| {
            now.masters.iter().any(|seat| seat.id == *id)
                && now.owner(*slot) != Some(id)
                && !views.iter().any(|view| view.disclaims(id, *slot))
        });
    }
}

impl ClusterControl<'_> {
    /// Called with each chart that is written by and the views that it follows from, before it is the known one.
    pub(super) fn see_who_is_back(&mut self, chart: &Chart, views: &[View]) {
        if let Some(known) = &self.known {
            for id in self.absent.winners(known, chart) {
                let routes = self.shared.routes();
                let master = routes.masters.iter().find(|master| master.id() == Some(id));
                self.shared.events.emit(Event::Lost {
                    mapping: None,
                    reason: LossReason::TakenOver,
                    address: match master {
                        Some(master) => master.address(),
                        None => self.shared.settings().address.masked(),
                    },
                });
            }
        }
        self.absent.see_losses(self.known.as_ref(), chart, views);
        let has_line = |id: &String| self.lines.iter().any(|(master, _)| master.id() == Some(id));
        if !chart.is_contested() {
            self.absent.away.retain(|id| !has_line(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::rc::Rc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::redis::cluster::tests::is_taken_over;
    use crate::redis::routes::tests::{shared, view_of};

    const OWN: [(&str, u16, &str); 2] = [("a", 1, "0-8191"), ("b", 2, "8192-16383")];
    const GIVEN_AWAY: [(&str, u16, &str); 2] = [("a", 1, "0-9000"), ("b", 2, "9001-16383")];

    /// Whether `b` is not believed once all say that it has its slots; before that the two have told this, look by look.
    fn is_lost_after(looks: &[&[View]]) -> bool {
        let (shared, reader) = shared();
        let shared = Rc::new(shared);
        let (_sender, mut errands) = mpsc::unbounded_channel();
        let mut purges = VecDeque::new();
        let mut control = ClusterControl::new(&shared, &mut errands, &mut purges);
        let agreed = [view_of("a", &OWN), view_of("b", &OWN)];
        control.believe(&agreed);
        for views in looks {
            control.believe(views);
        }
        control.believe(&agreed);
        is_taken_over(&reader)
    }

    #[test]
    fn one_that_was_silent_and_has_its_slots_back_is_not_believed() {
        assert!(is_lost_after(&[&[view_of("a", &GIVEN_AWAY)]]));
    }

    #[test]
    fn one_that_has_not_heard_and_has_its_slots_back_is_not_believed() {
        let unheard = [view_of("a", &GIVEN_AWAY), view_of("b", &OWN)];
        assert!(is_lost_after(&[&unheard]));
        assert!(is_lost_after(&[&unheard, &unheard]));
    }

    /// As ever when slots go to and fro.
    #[test]
    fn one_that_has_said_so_and_has_its_slots_back_is_believed() {
        let heard = [view_of("a", &GIVEN_AWAY), view_of("b", &GIVEN_AWAY)];
        let unheard = [view_of("a", &GIVEN_AWAY), view_of("b", &OWN)];
        assert!(!is_lost_after(&[&heard]));
        assert!(!is_lost_after(&[&unheard, &heard]));
        assert!(!is_lost_after(&[]));
    }
}
