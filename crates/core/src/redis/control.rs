//! The control connection: watches who the server is, answers pings, purges. Holds no lane up.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::redis::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

use super::backoff::Backoff;
use super::chunk::Ticket;
use super::cluster::ClusterControl;
use super::engine::{Note, PurgeJob};
use super::event::Event;
use super::fault::Cause;
use super::gauge::Gauges;
use super::line::Line;
use super::master::Master;
use super::openings::Others;
use super::purge::{Purge, Step};
use super::shared::Shared;
use super::timer;

/// How often the server is asked who it is (rule 8).
pub(super) const WATCH: Duration = Duration::from_secs(1);

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
    others: Others,
    patience: Backoff,
    /// Not before this time does it go on with the first purge, as the server has refused.
    purge_again: Option<tokio::time::Instant>,
    gauges: Gauges,
}

impl Control {
    pub fn new(shared: Rc<Shared>, errands: UnboundedReceiver<Errand>) -> Self {
        Self {
            shared,
            errands,
            purges: VecDeque::new(),
            backoff: Backoff::default(),
            others: Others::default(),
            patience: Backoff::default(),
            purge_again: None,
            gauges: Gauges::new("control".to_owned()),
        }
    }

    /// Runs until the engine stops.
    pub async fn run(mut self) {
        loop {
            if self.shared.settings().address.cluster().is_some() {
                // The connection to a server of its own is gone for good.
                self.gauges.keep(&[]);
                ClusterControl::new(&self.shared, &mut self.errands, &mut self.purges)
                    .run()
                    .await;
                continue;
            }
            let Some((master, mut line)) = self.connect().await else {
                continue;
            };
            self.purges.iter_mut().for_each(Purge::restart);
            match self.serve(&master, &mut line).await {
                Some(cause) => self.shared.lose(&master, line, cause),
                None => {
                    self.shared.replace(&master, line);
                    self.backoff.reset();
                }
            }
        }
    }

    /// `None`: the settings lead to a cluster now.
    async fn connect(&mut self) -> Option<(Rc<Master>, Line)> {
        let shared = self.shared.clone();
        loop {
            let prospects = shared.prospects();
            let wait = self.backoff.next(shared.tuning().backoff_max);
            let (gauges, others) = (&mut self.gauges, &self.others);
            let attempt = async {
                others.wait(&shared, wait).await;
                let Some(master) = shared.routes().masters.first().cloned() else {
                    return Err(Cause::Reconfigured);
                };
                let gauge = gauges.of(&shared, &master);
                let opened = others.attempt(&master, shared.open(&master, &gauge)).await;
                Ok((master, opened?))
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
                Ok(connected) => {
                    shared.tell_working();
                    return Some(connected);
                }
                Err(Cause::Reconfigured) if shared.routes().masters.is_empty() => return None,
                Err(Cause::Reconfigured) => {
                    self.backoff.try_elsewhere(shared.prospects() != prospects);
                }
                Err(_) => {}
            }
        }
    }

    /// Serves until the connection is lost, and returns how; `None` if it has lived long enough.
    async fn serve(&mut self, master: &Rc<Master>, line: &mut Line) -> Option<Cause> {
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is due at once, and who the server is has just been asked.
        watch.reset();
        let shared = self.shared.clone();
        loop {
            let changed = shared.changed.notified();
            if !shared.is_current(master, line) {
                return Some(Cause::Reconfigured);
            }
            let lifetime = shared.tuning().max_lifetime;
            let end = lifetime.and_then(|lifetime| line.ends_at(lifetime));
            let result = tokio::select! {
                biased;
                Some(errand) = self.errands.recv() => self.run_errand(line, errand).await,
                _ = watch.tick() => self.watch(master, line).await,
                () = changed => Ok(()),
                // A purge would begin again.
                () = timer::at(end), if self.purges.is_empty() => return None,
                () = timer::not_before(self.purge_again), if !self.purges.is_empty() => self.purge(line).await,
            };
            if let Err(cause) = result {
                return Some(cause);
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
                let (round_trip, result) = ping(line).await;
                let round_trip = round_trip.map_err(|cause| self.shared.fault(cause));
                self.shared.events.emit(Event::Pong { ticket, round_trip });
                result
            }
            Errand::Note(note) => {
                // One that was sent before another server was told of speaks of the one before.
                let result = if self.shared.is_told(&note.server) {
                    line.note(&note, false).await
                } else {
                    Ok(Some(Cause::Reconfigured))
                };
                let told = result.clone().and_then(|refused| refused.map_or(Ok(()), Err));
                self.shared.events.emit(Event::Noted {
                    ticket: note.ticket,
                    result: told.map_err(|cause| self.shared.fault(cause)),
                });
                result.map(|_| ())
            }
        }
    }

    async fn watch(&mut self, master: &Rc<Master>, line: &mut Line) -> Result<(), Cause> {
        line.server = line.identify().await?;
        self.backoff.reset();
        self.shared.meet(master, line).await
    }

    /// Takes a step of the oldest purge.
    async fn purge(&mut self, line: &mut Line) -> Result<(), Cause> {
        self.purge_again = None;
        let Some(purge) = self.purges.front_mut() else {
            return Ok(());
        };
        let (mapping, epoch) = (purge.job.mapping, purge.job.epoch);
        let event = match purge.scan.step(&purge.job, line).await? {
            Step::More => None,
            Step::Wait(cause) => {
                line.gauge().trouble(cause.kind());
                self.shared.tell_refusing(self.shared.fault(cause));
                // Meanwhile the server is watched, and errands are run.
                let wait = self.patience.next(self.shared.tuning().backoff_max);
                self.purge_again = tokio::time::Instant::now().checked_add(wait);
                return Ok(());
            }
            Step::Done => Some(Event::Purged {
                mapping,
                epoch,
                keys: purge.scan.keys,
            }),
            Step::Refused(cause) => {
                line.gauge().trouble(cause.kind());
                Some(Event::PurgeFailed {
                    mapping,
                    epoch,
                    fault: self.shared.fault(cause),
                })
            }
        };
        self.patience.reset();
        if let Some(event) = event {
            self.purges.pop_front();
            self.shared.events.emit(event);
        }
        Ok(())
    }
}

/// How long it takes to be answered, or why that is not known; and whether the line is still of use.
pub(super) async fn ping(line: &mut Line) -> (Result<Duration, Cause>, Result<(), Cause>) {
    let mut ping = ::redis::pipe();
    ping.cmd("PING");
    let start = Instant::now();
    match line.exchange(&ping, 0).await {
        Ok(replies) => match replies.first() {
            Some(Value::ServerError(error)) => (Err(Cause::of_reply(error)), Ok(())),
            _ => (Ok(start.elapsed()), Ok(())),
        },
        Err(cause) => (Err(cause.clone()), Err(cause)),
    }
}

pub(super) fn not_connected() -> Cause {
    Cause::Io {
        kind: std::io::ErrorKind::NotConnected,
        text: "not connected".to_owned(),
    }
}
