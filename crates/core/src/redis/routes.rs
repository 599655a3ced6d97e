//! Which masters there are, and which slots each of them has, as lanes and control go by it.
//!
//! The routes are replaced when the control has learned of other masters; of slots that have found another master the
//! lanes learn first, by what masters answer, and whatever is in between costs a redirection.

use std::rc::Rc;
use std::sync::Arc;

use super::batch::Redirected;
use super::chart::Chart;
use super::engine::Settings;
use super::event::Server;
use super::fault::Cause;
use super::master::{Master, Seat};
use super::shared::Shared;
use super::slots::{Node, slot};
use super::table::Table;

/// All masters, and which slots they have.
#[derive(Clone, Default)]
pub(super) struct Routes {
    /// In the order of the table's numbers. Empty while nothing is known of the cluster.
    pub masters: Vec<Rc<Master>>,
    /// `None`: one server has all keys.
    pub table: Option<Rc<Table>>,
}

impl Routes {
    /// The one server that the settings mean, or nothing, until the control has asked their cluster.
    ///
    /// # Errors
    ///
    /// The settings make no connections.
    pub fn of(settings: &Settings, size: usize) -> Result<Self, Cause> {
        let masters = if settings.address.cluster().is_some() {
            Vec::new()
        } else {
            vec![Rc::new(Master::alone(settings, size)?)]
        };
        Ok(Self { masters, table: None })
    }

    pub fn has(&self, master: &Rc<Master>) -> bool {
        self.masters.iter().any(|other| Rc::ptr_eq(other, master))
    }

    /// The number of the master at that place.
    pub fn at(&self, node: &Node) -> Option<usize> {
        let is_it = |master: &Rc<Master>| master.seat.as_ref().is_some_and(|seat| seat.node == *node);
        self.masters.iter().position(is_it)
    }

    /// The servers of all masters as one, once all are met: what one changes about, changes about it.
    pub fn server(&self) -> Option<Arc<Server>> {
        let servers: Option<Vec<Arc<Server>>> = self.masters.iter().map(|master| master.server()).collect();
        let mut servers = servers?;
        if servers.len() <= 1 {
            return servers.pop();
        }
        servers.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        let joined = |part: fn(&Server) -> &str| {
            let parts: Vec<&str> = servers.iter().map(|server| part(server)).collect();
            parts.join(",")
        };
        Some(Arc::new(Server {
            run_id: joined(|server| &server.run_id),
            replication_id: joined(|server| &server.replication_id),
            version: servers[0].version.clone(),
        }))
    }
}

impl Shared {
    /// Takes what the cluster says of itself. Masters that stay where they are stay as they are.
    ///
    /// # Errors
    ///
    /// The settings make no connections.
    pub fn apply(&self, chart: &Chart) -> Result<(), Cause> {
        let before = self.routes();
        let masters: Result<Vec<Rc<Master>>, Cause> = chart
            .masters
            .iter()
            .map(|seat| self.master_at(&before, seat))
            .collect();
        let masters = masters?;
        let pairs = || masters.iter().zip(&before.masters);
        let are_same =
            masters.len() == before.masters.len() && pairs().all(|(new, old)| Rc::ptr_eq(new, old));
        let numbering = match &before.table {
            Some(table) if are_same => table.numbering(),
            _ => self.next_numbering(),
        };
        let table = chart.table(numbering);
        if are_same && before.table.as_deref() == Some(&table) {
            return Ok(());
        }
        self.set_routes(Routes {
            masters,
            table: Some(Rc::new(table)),
        });
        if !are_same {
            self.has_prospects();
            self.announce();
            // One that has left may have been all that there was trouble with.
            self.tell_working();
            self.changed.notify_waiters();
        }
        Ok(())
    }

    fn master_at(&self, before: &Routes, seat: &Seat) -> Result<Rc<Master>, Cause> {
        let is_it = |master: &&Rc<Master>| master.seat.as_ref() == Some(seat);
        match before.masters.iter().find(is_it) {
            Some(master) => Ok(master.clone()),
            None => {
                let size = self.setup.lanes + 1;
                let master = Master::of_cluster(seat.clone(), &self.settings(), size);
                Ok(Rc::new(master?))
            }
        }
    }

    /// Takes note of what a master has said about a slot that is not its own, and has the cluster looked at again.
    /// Returns the number of the master that the slot is on its way to, if that is what it said, and it is known, and if
    /// the masters have the numbers still that whoever asks goes by: otherwise it is nobody's number to him, or another's.
    pub fn redirected(&self, by: &Master, said: &Redirected<'_>) -> Option<u16> {
        self.survey.notify_one();
        let (slot, place) = said.to.split_once(' ')?;
        let asked = by.seat.as_ref()?;
        let node = Node::read(place, &asked.node.host)?;
        let routes = self.routes();
        let number = routes.at(&node)?;
        let table = routes.table.as_ref()?;
        if said.is_ask {
            return (table.numbering() == said.numbering).then_some(number as u16);
        }
        let slot: u16 = slot.parse().ok()?;
        if table.owner(slot) != Some(number) {
            let mut routes = (*routes).clone();
            Rc::make_mut(routes.table.as_mut()?).give(slot, number);
            self.set_routes(routes);
        }
        None
    }

    /// Whether a key of the worker's own lies with this master.
    pub fn holds(&self, master: &Rc<Master>, key: &[u8]) -> bool {
        let routes = self.routes();
        match &routes.table {
            None => true,
            Some(table) => table
                .owner(slot(key))
                .is_some_and(|owner| Rc::ptr_eq(&routes.masters[owner], master)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
