//! Who is at the end of a line (rule 8), and who is not to write there any more (rule 5).
//!
//! Each server process is met once for all lines: clients of earlier engines and of this one are killed there, and the
//! marker is taken, before anybody writes to it. What all masters together are is told to the reader of the events.

use std::rc::Rc;

use super::super::event::{Client, Event, LossReason, Server};
use super::super::fault::Cause;
use super::super::line::Line;
use super::super::master::Master;
use super::Shared;

/// How many clients on servers that were left are remembered. There is at most one for each lane and change of
/// the server.
const LEFT_BEHIND: usize = 1024;

impl Shared {
    /// Compares who answers at the end of this line with who did before (rule 8). Before anything is sent to a
    /// server that is new, or under new settings (its database may be another one), what earlier clients may have
    /// left is ended, and its marker is taken. So no purge can be over before an old command runs (rules 5 and 7).
    ///
    /// # Errors
    ///
    /// The clients or the marker may still be there, or the settings have changed: close the line.
    pub async fn meet(&self, master: &Rc<Master>, line: &mut Line) -> Result<(), Cause> {
        let is_known = || self.routes.borrow().has(master);
        if !is_known() {
            return Err(Cause::Reconfigured);
        }
        if master.has_met(&line.server) {
            return Ok(());
        }
        let _turn = master.meeting.lock().await;
        if master.has_met(&line.server) {
            return Ok(());
        }
        // Once is enough, and what is lost by its being refused is told once, should the marker be long in coming.
        let run_id = line.server.run_id.clone();
        if !master.is_swept(&run_id) {
            self.sweep(line).await?;
            master.was_swept(&run_id);
        }
        self.bury(line).await?;
        let marker = match &self.setup.marker {
            Some(key) if self.holds(master, key) => line.take_marker(key).await?,
            _ => None,
        };
        // What a lane has left behind meanwhile, which did not know yet that the process is met.
        self.bury(line).await?;
        // Nothing is awaited from here on until it is known.
        if !is_known() {
            return Err(Cause::Reconfigured);
        }
        if marker.is_some() {
            self.marker.replace(marker);
        }
        master.became(line.server.clone());
        self.revision.set(self.revision.get() + 1);
        self.named.take();
        self.tell_master();
        self.announce();
        Ok(())
    }

    /// Whether this is the server that was told of last.
    pub fn is_told(&self, server: &Server) -> bool {
        let told = self.server.borrow();
        told.as_ref().is_some_and(|told| told.is_same(server))
    }

    /// Whether all masters that there are were met, and those that were told of last are these.
    pub fn is_announced(&self) -> bool {
        let server = self.routes.borrow().server();
        server.is_some_and(|server| self.is_told(&server))
    }

    /// Tells of the server, once it is met, unless it is the one that was told of last.
    pub fn announce(&self) {
        let Some(server) = self.routes.borrow().server() else {
            return;
        };
        let marker = self.marker.take();
        if self.is_told(&server) {
            return;
        }
        self.server.replace(Some(server.clone()));
        // Another process may be told from a first one only by its trouble being over.
        self.trouble.replace(None);
        self.events.emit(Event::Connected {
            server,
            changed: true,
            marker,
        });
        self.changed.notify_waiters();
    }

    /// Rule 5: kills the clients of earlier engines of the same owner, whose commands may still run on a server that is
    /// met: one whose process has died, however it died, may have left some on their way. They are told by their names.
    async fn sweep(&self, line: &mut Line) -> Result<(), Cause> {
        match line.clients().await? {
            Ok(named) => {
                for (id, name) in named {
                    if self.is_predecessor(&name) {
                        self.kill(line, id).await?;
                    }
                }
            }
            Err(cause) => self.events.emit(Event::Lost {
                mapping: None,
                reason: LossReason::Unlisted { cause },
                address: line.gauge().address(),
            }),
        }
        Ok(())
    }

    /// Rule 5, too: kills those of this engine's own clients that were left behind on the process at the end of this line. At its
    /// return there is none, until somebody else has run.
    async fn bury(&self, line: &mut Line) -> Result<(), Cause> {
        let run_id = line.server.run_id.clone();
        while let Some(id) = self.left_on(&run_id) {
            self.kill(line, id).await?;
            self.left_behind
                .borrow_mut()
                .retain(|client| client.id != id || client.run_id != run_id);
        }
        Ok(())
    }

    async fn kill(&self, line: &mut Line, id: u64) -> Result<(), Cause> {
        if let Some(cause) = line.kill(id).await? {
            // What it had in flight is not known here.
            self.tell_unkillable(id, &cause, None, line);
        }
        Ok(())
    }

    /// One of this engine's clients that were left behind on a server process.
    fn left_on(&self, run_id: &str) -> Option<u64> {
        let left_behind = self.left_behind.borrow();
        let client = left_behind.iter().find(|client| client.run_id == run_id)?;
        Some(client.id)
    }

    /// Remembers a client of another server than the one that was met last: should that server be met again, the
    /// client is killed there first.
    pub fn leave_behind(&self, client: Client) {
        let mut left_behind = self.left_behind.borrow_mut();
        left_behind.push_back(client);
        if left_behind.len() > LEFT_BEHIND {
            left_behind.pop_front();
        }
    }
}
