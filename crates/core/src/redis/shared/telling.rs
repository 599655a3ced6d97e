//! What the reader of the events is told of trouble and of its end, each once.

use std::rc::Rc;

use super::super::event::{Event, LossReason, PoolState};
use super::super::fault::{Cause, Fault};
use super::super::line::Line;
use super::super::master::Master;
use super::Shared;

impl Shared {
    /// A client could not be killed over this line, so what it had sent may still run: the mapping is lost, `None` for
    /// all.
    pub fn tell_unkillable(&self, client: u64, cause: &Cause, mapping: Option<u16>, line: &Line) {
        let reason = LossReason::Unkillable {
            client,
            cause: cause.clone(),
        };
        self.events.emit(Event::Lost {
            mapping,
            reason,
            address: line.gauge().address(),
        });
    }

    /// Something went through this line: the trouble is over once all lines are open.
    pub fn tell_working(&self) {
        self.refusing.set(false);
        let is_whole = |master: &Rc<Master>| master.open.get() >= self.wanted();
        if self.trouble.borrow().is_none() || !self.routes().masters.iter().all(is_whole) {
            return;
        }
        if let Some(server) = self.server.borrow().clone() {
            self.trouble.replace(None);
            self.events.emit(Event::Connected {
                server,
                changed: false,
                marker: None,
            });
        }
    }

    /// Whether a line is missing, or could not be had.
    pub fn is_in_trouble(&self) -> bool {
        self.trouble.borrow().is_some()
    }

    /// The server refuses writes for now.
    pub fn tell_refusing(&self, fault: Fault) {
        if !self.refusing.replace(true) {
            self.events.emit(Event::Refusing { fault });
        }
    }

    /// The server has no memory for writes.
    pub fn tell_full(&self, fault: Fault) {
        self.events.emit(Event::Full { fault });
    }

    /// A line is lost, or cannot be had. Under other settings it is told again what the trouble is.
    pub fn tell_trouble(&self, fault: Fault) {
        let is_like = |known: &Cause| known.is_like(&fault.cause);
        let is_known = self.trouble.borrow().as_ref().is_some_and(is_like);
        let under = self.trouble_under.replace(self.generation());
        if !is_known || under != self.generation() {
            self.trouble.replace(Some(fault.cause.clone()));
            self.events.emit(Event::Disconnected { fault });
        }
    }

    pub(super) fn tell_pool(&self) {
        let mut state = PoolState::default();
        for master in &self.routes.borrow().masters {
            if let Ok(pool) = master.pool() {
                let status = pool.status();
                state.size += status.size;
                state.idle += status.available;
            }
            state.waiting += self.wanted().saturating_sub(master.open.get());
        }
        if self.pool_state.replace(state) != state {
            self.events.emit(Event::Pool(state));
        }
    }

    /// A cause, with the masked address that it has to do with, and the master there.
    pub fn fault(&self, cause: Cause) -> Fault {
        let mut address = self.settings.borrow().address.masked();
        if let (Some(master), false) = (&*self.master.borrow(), matches!(cause, Cause::NoMaster { .. })) {
            address = format!("{address}, master {master}");
        }
        Fault { address, cause }
    }

    /// The same, of a cluster with the address of this one of its masters.
    pub fn fault_at(&self, master: &Master, cause: Cause) -> Fault {
        match master.seat {
            Some(_) => Fault {
                address: master.address(),
                cause,
            },
            None => self.fault(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::redis::routes::tests::shared_at;

    #[tokio::test]
    async fn the_same_kind_of_trouble_is_told_once_under_the_same_settings() {
        let (shared, reader) = shared_at("redis://127.0.0.1:1");
        let told = |seconds| {
            let after = Duration::from_secs(seconds);
            shared.tell_trouble(shared.fault(Cause::Timeout { after }));
            let events = std::iter::from_fn(|| reader.try_recv());
            let count = |event: &Event| matches!(event, Event::Disconnected { .. });
            events.filter(count).count()
        };
        assert_eq!([told(1), told(2), told(3)], [1, 0, 0]);
        shared.reconfigure((*shared.settings()).clone());
        assert_eq!([told(4), told(5)], [1, 0]);
    }
}
