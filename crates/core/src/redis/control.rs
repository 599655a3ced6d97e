//! The control connection: watches who the server is, answers pings, purges. Holds no lane up.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::redis::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

use super::backoff::Backoff;
use super::chunk::Ticket;
use super::engine::{Note, PurgeJob};
use super::event::Event;
use super::fault::Cause;
use super::line::Line;
use super::purge::{Purge, Step};
use super::shared::Shared;

/// How often the server is asked who it is (rule 8).
const WATCH: Duration = Duration::from_secs(1);

/// What the router passes on to the control connection.
pub(super) enum Errand {
    Ping(Ticket),
    Purge(PurgeJob),
    Note(Note),
}

pub(super) struct Control {
    shared: Rc<Shared>,
    errands: UnboundedReceiver<Errand>,
    purges: VecDeque<Purge>,
    backoff: Backoff,
}

impl Control {
    pub fn new(shared: Rc<Shared>, errands: UnboundedReceiver<Errand>) -> Self {
        Self {
            shared,
            errands,
            purges: VecDeque::new(),
            backoff: Backoff::default(),
        }
    }

    /// Runs until the engine stops.
    pub async fn run(mut self) {
        loop {
            let mut line = self.connect().await;
            self.purges.iter_mut().for_each(Purge::restart);
            let cause = self.serve(&mut line).await;
            self.shared.lose(line, cause);
        }
    }

    async fn connect(&mut self) -> Line {
        let shared = self.shared.clone();
        loop {
            let wait = self.backoff.next();
            let attempt = async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.changed.notified() => {}
                }
                shared.open("control").await
            };
            let mut attempt = std::pin::pin!(attempt);
            let result = loop {
                tokio::select! {
                    result = &mut attempt => break result,
                    Some(errand) = self.errands.recv() => match errand {
                        Errand::Purge(job) => self.purges.push_back(Purge::new(job)),
                        Errand::Ping(ticket) => {
                            let round_trip = Err(shared.fault(not_connected()));
                            shared.events.emit(Event::Pong { ticket, round_trip });
                        }
                        Errand::Note(note) => {
                            let result = Err(shared.fault(not_connected()));
                            shared.events.emit(Event::Noted { ticket: note.ticket, result });
                        }
                    },
                }
            };
            match result {
                Ok(line) => {
                    shared.tell_working();
                    return line;
                }
                Err(Cause::Reconfigured) => self.backoff.reset(),
                Err(_) => {}
            }
        }
    }

    /// Serves until the connection is lost, and returns how.
    async fn serve(&mut self, line: &mut Line) -> Cause {
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is due at once, and who the server is has just been asked.
        watch.reset();
        let shared = self.shared.clone();
        loop {
            let changed = shared.changed.notified();
            if !shared.is_current(line) {
                return Cause::Reconfigured;
            }
            let result = tokio::select! {
                biased;
                Some(errand) = self.errands.recv() => self.run_errand(line, errand).await,
                _ = watch.tick() => self.watch(line).await,
                () = changed => Ok(()),
                () = std::future::ready(()), if !self.purges.is_empty() => self.purge(line).await,
            };
            if let Err(cause) = result {
                return cause;
            }
        }
    }

    async fn run_errand(&mut self, line: &mut Line, errand: Errand) -> Result<(), Cause> {
        match errand {
            Errand::Purge(job) => {
                self.purges.push_back(Purge::new(job));
                Ok(())
            }
            Errand::Ping(ticket) => {
                let mut ping = ::redis::pipe();
                ping.cmd("PING");
                let start = Instant::now();
                let result = line.exchange(&ping, 0).await;
                let round_trip = match &result {
                    Ok(replies) => match replies.first() {
                        Some(Value::ServerError(error)) => Err(self.shared.fault(Cause::of_reply(error))),
                        _ => Ok(start.elapsed()),
                    },
                    Err(cause) => Err(self.shared.fault(cause.clone())),
                };
                self.shared.events.emit(Event::Pong { ticket, round_trip });
                result.map(|_| ())
            }
            Errand::Note(note) => {
                let result = line.note(&note).await;
                let told = result.clone().and_then(|refused| refused.map_or(Ok(()), Err));
                self.shared.events.emit(Event::Noted {
                    ticket: note.ticket,
                    result: told.map_err(|cause| self.shared.fault(cause)),
                });
                result.map(|_| ())
            }
        }
    }

    async fn watch(&mut self, line: &mut Line) -> Result<(), Cause> {
        line.server = line.identify().await?;
        self.backoff.reset();
        self.shared.meet(line).await
    }

    /// Takes a step of the oldest purge.
    async fn purge(&mut self, line: &mut Line) -> Result<(), Cause> {
        let Some(purge) = self.purges.front_mut() else {
            return Ok(());
        };
        let (mapping, epoch) = (purge.job.mapping, purge.job.epoch);
        let event = match purge.step(line).await? {
            Step::More => {
                self.backoff.reset();
                return Ok(());
            }
            Step::Wait(cause) => {
                self.shared.tell_refusing(cause);
                tokio::time::sleep(self.backoff.next()).await;
                return Ok(());
            }
            Step::Done => Event::Purged {
                mapping,
                epoch,
                keys: purge.keys,
            },
            Step::Refused(cause) => Event::PurgeFailed {
                mapping,
                epoch,
                fault: self.shared.fault(cause),
            },
        };
        self.backoff.reset();
        self.purges.pop_front();
        self.shared.events.emit(event);
        Ok(())
    }
}

fn not_connected() -> Cause {
    Cause::Io {
        kind: std::io::ErrorKind::NotConnected,
        text: "not connected".to_owned(),
    }
}
