//! Where the engine's lines go behind sentinels: to the master that these name.

use std::rc::Rc;

use super::super::address::HostPort;
use super::super::engine::Settings;
use super::super::event::Event;
use super::super::fault::{Cause, Kind};
use super::super::master::Master;
use super::super::routes::Routes;
use super::Shared;

impl Shared {
    pub(super) fn outdate_lines(&self) {
        self.generation.set(self.generation.get() + 1);
        self.changed.notify_waiters();
    }

    /// Asks the sentinels, if there are some, whether this is the master.
    ///
    /// # Errors
    ///
    /// They do not say; or it is another one, which is in the routes now.
    pub(super) async fn ask_sentinels(&self, master: &Rc<Master>) -> Result<(), Cause> {
        let (sentinels, generation) = (self.sentinels.borrow().clone(), self.generation.get());
        let Some(sentinels) = sentinels else {
            return Ok(());
        };
        let named = sentinels.master().await?;
        if generation == self.generation.get() {
            self.follow(named)?;
        }
        if self.routes().has(master) {
            Ok(())
        } else {
            Err(Cause::Reconfigured)
        }
    }

    /// Whether no sentinel has answered at all, and a master was known. If the server there is the very one that was met,
    /// a line to it is no other thing than one that has not broken.
    pub(super) fn is_silence(&self, cause: &Cause) -> bool {
        let is_silence = matches!(
            cause,
            Cause::NoMaster {
                kind: Kind::Refused | Kind::TimedOut | Kind::Lost,
                ..
            }
        );
        is_silence && self.master.borrow().is_some()
    }

    /// Takes note of who the master is. Lines to another one are out of date, as under new settings.
    fn follow(&self, named: HostPort) -> Result<(), Cause> {
        if self.master.borrow().as_ref() == Some(&named) {
            return Ok(());
        }
        let settings = self.settings();
        let there = Settings {
            address: settings.address.clone().at(named.host.clone(), named.port),
            ..(*settings).clone()
        };
        let master = Master::alone(&there, self.setup.lanes + 1)?;
        self.set_routes(Routes {
            masters: vec![Rc::new(master)],
            table: None,
        });
        if !self.named.borrow().contains(&named) {
            self.named.borrow_mut().push(named.clone());
            self.has_prospects();
        }
        self.master.replace(Some(named));
        self.outdate_lines();
        Ok(())
    }

    /// Asks all sentinels, if there are some and one has been followed, whether another master has taken over.
    pub async fn look_for_master(&self) {
        let (sentinels, known) = (self.sentinels.borrow().clone(), self.master.borrow().clone());
        let (Some(sentinels), Some(known)) = (sentinels, known) else {
            return;
        };
        let generation = self.generation.get();
        if let Some(master) = sentinels.newest(&known).await
            && generation == self.generation.get()
            && let Err(cause) = self.follow(master)
        {
            self.tell_trouble(self.fault(cause));
        }
    }

    /// Tells where the lines go, when one has met who is there.
    pub(super) fn tell_master(&self) {
        let master = self.master.borrow().clone();
        if *self.told_master.borrow() != master {
            self.told_master.replace(master.clone());
            self.events.emit(Event::Followed { master });
        }
    }
}
