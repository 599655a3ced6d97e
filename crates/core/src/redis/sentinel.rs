//! Where the master of a service is: what its sentinels say.
//!
//! What is asked and how it is answered is the same for the engine and for backends, which have sockets of
//! their own: [`question`], [`master_in`], [`Inquiry`]. What only the engine does follows behind these.
//!
//! - **When a line is opened** the sentinels are asked in turn, beginning with the one that answered last; one
//!   that cannot be reached within its share of `connect_timeout`, refuses, or does not know the service is
//!   passed over. If the master that one names cannot be opened, the next attempt begins with the next sentinel.
//!   If none answers at all, the line goes to the master that was known, but only if the same process is there.
//! - **Once a second** ([`watch`]) all of them are asked at once, and what the latest configuration says counts
//!   (`config-epoch`, which grows with each failover; sentinels that were cut off have an older one). If that is
//!   another master than the lines go to, these are out of date, as after new settings: they are closed and
//!   opened anew. So a master that is cut off from its sentinels, and not from here, is left, although it goes on
//!   taking writes. They are lost with it; the new master is another process, and everything is purged there
//!   (rule 8). Nothing changes while no sentinel answers.
//!
//! Does not decide whether what answers at that place is a master: a line asks that itself (`line`). A replica
//! there means that a failover is under way.
//!
//! A sentinel is asked without credentials, and once more with those of the address if it wants some. Sockets
//! to sentinels last for one question.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, Value};
use deadpool_redis::Connection;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::address::{HostPort, Service};
use super::engine::Settings;
use super::fault::{Cause, Kind};
use super::pool::{Pool, pool};
use super::shared::Shared;

/// How often the engine asks all sentinels.
const WATCH: Duration = Duration::from_secs(1);

/// How many questions to one sentinel may be on their way: those of the lanes, the control and the watch.
const AT_ONCE: usize = 128;

/// What a sentinel is asked.
pub fn question(service: &Service<'_>) -> Cmd {
    let mut question = ::redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(service.name);
    question
}

/// The master that a sentinel's answer names.
///
/// # Errors
///
/// It names none, and why; [`wants_credentials`] tells whether it would with some.
pub fn master_in(answer: &Value) -> Result<HostPort, Cause> {
    match answer {
        Value::Array(parts) => parse_master(parts).ok_or(Cause::Protocol {
            expected: "host and port from a sentinel",
        }),
        Value::Nil => Err(Cause::UnknownService),
        Value::ServerError(error) => Err(Cause::of_reply(error)),
        _ => Err(Cause::Protocol {
            expected: "host and port from a sentinel",
        }),
    }
}

fn parse_master(parts: &[Value]) -> Option<HostPort> {
    let [host, port] = parts else { return None };
    let host = text(host).filter(|host| !host.is_empty())?.to_owned();
    let port = text(port)?.parse().ok().filter(|port| *port > 0)?;
    Some(HostPort { host, port })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Whether an answer only means that nobody has authenticated.
pub fn wants_credentials(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOAUTH")
}

/// Sentinels that are asked one after the other, and why each has named no master.
#[derive(Debug, Default)]
pub struct Inquiry {
    failed: Vec<(HostPort, Cause)>,
}

impl Inquiry {
    /// The share that each of so many sentinels has of the time to connect.
    pub fn share(whole: Duration, sentinels: usize) -> Duration {
        whole / u32::try_from(sentinels.max(1)).unwrap_or(u32::MAX)
    }

    /// This one has named none.
    pub fn failed(&mut self, sentinel: &HostPort, cause: Cause) {
        self.failed.push((sentinel.clone(), cause));
    }

    /// Why no master is known, when all have been asked. The kind is that of the last sentinel that answered, else
    /// of the last one.
    pub fn end(self, service: &Service<'_>) -> Cause {
        let kinds = self.failed.iter().rev().map(|(_, cause)| cause.kind());
        let is_of_sentinel = |kind: &Kind| !matches!(kind, Kind::Refused | Kind::TimedOut | Kind::Lost);
        let kind = kinds.clone().find(is_of_sentinel).or(kinds.clone().next());
        // Those that failed alike stand together.
        let mut reasons: Vec<(String, String)> = Vec::new();
        for (sentinel, cause) in &self.failed {
            let reason = cause.to_string();
            match reasons.iter_mut().find(|(_, other)| *other == reason) {
                Some((sentinels, _)) => sentinels.push_str(&format!(", {sentinel}")),
                None => reasons.push((sentinel.to_string(), reason)),
            }
        }
        let reasons: Vec<String> = reasons.iter().map(|(who, why)| format!("{who}: {why}")).collect();
        Cause::NoMaster {
            kind: kind.unwrap_or(Kind::Refused),
            text: format!(
                "no sentinel names the master of {}: {}",
                service.name,
                reasons.join("; ")
            ),
        }
    }
}

/// What one sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    /// Which sentinel of the address.
    sentinel: usize,
    master: HostPort,
    /// Which configuration it knows; 0 if it does not tell.
    epoch: u64,
}

/// The sentinels of an address.
pub(super) struct Sentinels {
    settings: Settings,
    /// To each of them, in their order.
    pools: Vec<Pool>,
    share: Duration,
    /// Which one is asked first.
    first: Cell<usize>,
}

impl Sentinels {
    /// Those of the settings' address, if it names a service.
    ///
    /// # Errors
    ///
    /// The settings make no connections.
    pub fn of(settings: &Settings) -> Result<Option<Self>, Cause> {
        let Some(service) = settings.address.service() else {
            return Ok(None);
        };
        let share = Inquiry::share(settings.connect_timeout, service.sentinels.len());
        let bare = |sentinel| Settings {
            address: settings.address.bare_at(sentinel),
            password: None,
            connect_timeout: share,
            ..settings.clone()
        };
        let pool_to = |sentinel| {
            let there = bare(sentinel);
            pool(&there, there.address.place(), AT_ONCE)
        };
        Ok(Some(Self {
            settings: settings.clone(),
            pools: service.sentinels.iter().map(pool_to).collect::<Result<_, _>>()?,
            share,
            first: Cell::new(0),
        }))
    }

    /// Asks in turn, beginning with the one that answered last: the master that one names.
    ///
    /// # Errors
    ///
    /// None does.
    pub async fn master(&self) -> Result<HostPort, Cause> {
        let service = self.settings.address.service().ok_or(Cause::UnknownService)?;
        let (first, count) = (self.first.get(), self.pools.len());
        let mut inquiry = Inquiry::default();
        for number in (0..count).map(|step| (first + step) % count) {
            let answer = self.ask(number, vec![question(&service)]).await;
            match answer.and_then(|answers| master_in(&answers[0])) {
                Ok(master) => {
                    self.first.set(number);
                    return Ok(master);
                }
                Err(cause) => inquiry.failed(&service.sentinels[number], cause),
            }
        }
        Err(inquiry.end(&service))
    }

    /// The master that was named is none, or cannot be reached: another sentinel may know better.
    pub fn doubt(&self) {
        self.first.set((self.first.get() + 1) % self.pools.len());
    }

    /// Asks all at once: the master that the one names which knows best, which is then asked first. `known` is the one
    /// that the lines go to. None if none has answered.
    pub async fn newest(self: &Rc<Self>, known: &HostPort) -> Option<HostPort> {
        let mut asked = JoinSet::new();
        for number in 0..self.pools.len() {
            let sentinels = self.clone();
            asked.spawn_local(async move { sentinels.look(number).await });
        }
        let mut said = Vec::with_capacity(self.pools.len());
        while let Some(answer) = asked.join_next().await {
            said.extend(answer.ok().flatten());
        }
        let best = best(said, known)?;
        self.first.set(best.sentinel);
        Some(best.master)
    }

    async fn look(&self, number: usize) -> Option<Said> {
        let service = self.settings.address.service()?;
        let mut details = ::redis::cmd("SENTINEL");
        details.arg("MASTER").arg(service.name);
        let answers = self.ask(number, vec![question(&service), details]).await.ok()?;
        Some(Said {
            sentinel: number,
            master: master_in(&answers[0]).ok()?,
            epoch: answers.get(1).and_then(epoch_in).unwrap_or(0),
        })
    }

    /// Asks one, within its share of the time (where TLS may know why it does not answer, that takes as long once
    /// more); one answer for each question.
    async fn ask(&self, number: usize, questions: Vec<Cmd>) -> Result<Vec<Value>, Cause> {
        let pool = &self.pools[number];
        let answers = timeout(self.share, self.converse(pool, questions)).await;
        let late = |_| Err(Cause::Timeout { after: self.share });
        match answers.unwrap_or_else(late) {
            Err(cause) => Err(pool.diagnose(cause).await),
            answers => answers,
        }
    }

    async fn converse(&self, pool: &Pool, questions: Vec<Cmd>) -> Result<Vec<Value>, Cause> {
        // Out of the pool for good, so that it ends with this.
        let mut connection = Connection::take(pool.take().await?);
        let answers = exchange(&mut connection, questions.clone()).await?;
        let auth = self
            .settings
            .address
            .authentication(self.settings.password.as_ref());
        let Some(auth) = auth.filter(|_| answers.iter().any(wants_credentials)) else {
            return Ok(answers);
        };
        let again = std::iter::once(auth).chain(questions);
        let mut answers = exchange(&mut connection, again).await?;
        match answers.remove(0) {
            Value::ServerError(error) => Err(Cause::of_reply(&error)),
            _ => Ok(answers),
        }
    }
}

async fn exchange(
    connection: &mut MultiplexedConnection,
    commands: impl IntoIterator<Item = Cmd>,
) -> Result<Vec<Value>, Cause> {
    let mut questions = Pipeline::new();
    for command in commands {
        questions.add_command(command);
    }
    let answers = connection.send_packed_commands(&questions, 0, questions.len());
    let answers = answers.await.map_err(|error| Cause::of(&error))?;
    if answers.len() != questions.len() {
        return Err(Cause::Protocol {
            expected: "one answer to each command",
        });
    }
    Ok(answers)
}

/// Asks all sentinels once a second, and has the engine follow the newest answer, until the engine stops.
pub(super) async fn watch(shared: Rc<Shared>) {
    let mut tick = interval(WATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.look_for_master().await;
    }
}

/// `config-epoch` among the names and values that SENTINEL MASTER answers.
fn epoch_in(answer: &Value) -> Option<u64> {
    let Value::Array(fields) = answer else { return None };
    let mut pairs = fields.chunks_exact(2);
    let epoch = pairs.find(|pair| text(&pair[0]) == Some("config-epoch"))?;
    text(&epoch[1])?.parse().ok()
}

/// The answer of the newest configuration; among those of one, what most say, and then what is known already.
fn best(mut said: Vec<Said>, known: &HostPort) -> Option<Said> {
    let votes =
        |master: &HostPort, said: &[Said]| said.iter().filter(|other| other.master == *master).count();
    let ranks: Vec<_> = said
        .iter()
        .map(|one| (one.epoch, votes(&one.master, &said), one.master == *known))
        .collect();
    let (place, _) = ranks.iter().enumerate().max_by_key(|(_, rank)| **rank)?;
    Some(said.swap_remove(place))
}

/// For the fuzz target `resp`: whatever a sentinel might answer.
#[cfg(fuzzing)]
pub(super) fn read_answer(answer: &Value) {
    let (_named, _epoch) = (master_in(answer), epoch_in(answer));
}

#[cfg(test)]
mod tests;
