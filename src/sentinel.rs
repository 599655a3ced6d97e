//! Where a service's master is, for a backend: its sentinels are asked in turn, over sockets that a cancel interrupts.
//!
//! They are asked whenever a connection is made, and again before one that is kept is used for another statement, at
//! most once a second: a master that is demoted closes its connections (Sentinel has it do so), one that is cut off
//! from its sentinels does not. While none of them answers a connection that there is stays.
use std::{
    cell::Cell,
    io::{self, Write},
    time::{Duration, Instant},
};

use pg_redis_cache_core::redis::{
    Address, Cause, HostPort, Inquiry, Place, Secret, Service, Tls, master_in, question, wants_credentials,
};
use redis::{Cmd, Parser, Value};

use crate::{
    gucs,
    socket::{self, Patient},
};

/// How long a master counts as one without asking, and how long if no sentinel answered: each may take its whole share
/// of `connect_timeout` for that.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_IN_VAIN: Duration = Duration::from_secs(30);
/// How long to wait before sentinels that have named a replica are asked again.
const PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    /// Which sentinel of a list answered last: it is asked first.
    static FIRST: Cell<usize> = const { Cell::new(0) };
}

/// Whom a connection is made as, and how.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    pub password: Option<&'a Secret>,
    pub tls: Option<&'a Tls>,
}

/// Connects to the place that an address names, or to the master of the service that it names: `connect` is given that
/// master's address and returns a connection, or none if what is there is a replica. Then a failover is under way, and
/// the sentinels are asked again until `connect_timeout` is over.
///
/// # Errors
/// No sentinel names a master, or there is none where they say.
pub fn reach<C>(
    address: &Address,
    means: Means<'_>,
    mut connect: impl FnMut(&Address) -> io::Result<Option<C>>,
) -> io::Result<C> {
    let Some(service) = address.service() else {
        return connect(address)?.ok_or_else(|| Cause::Replica.into_io());
    };
    let deadline = Instant::now() + gucs::connect_timeout();
    loop {
        let master = master(address, &service, means).map_err(Cause::into_io)?;
        let there = address.clone().at(master.host.clone(), master.port);
        if let Some(connection) = connect(&there).map_err(|error| at(&master, &error))? {
            return Ok(connection);
        }
        if Instant::now() >= deadline {
            return Err(Cause::Replica.into_io());
        }
        socket::pause(PAUSE);
    }
}

/// A server that sentinels have named, and whom they are asked as.
pub struct Named {
    /// That of the service.
    address: Address,
    password: Option<Secret>,
    tls: Option<Tls>,
    /// The server's.
    place: HostPort,
    /// When the sentinels are asked again.
    next_look: Cell<Instant>,
    is_demoted: Cell<bool>,
}

impl Named {
    /// The server `there`, if `address` is a service's that has led to it.
    pub fn new(address: &Address, there: &Address, means: Means<'_>) -> Option<Self> {
        let (Some(_), Place::Tcp { host, port }) = (address.service(), there.place()) else {
            return None;
        };
        let host = host.to_owned();
        Some(Self {
            address: address.clone(),
            password: means.password.cloned(),
            tls: means.tls.cloned(),
            place: HostPort { host, port },
            next_look: Cell::new(Instant::now() + LOOK),
            is_demoted: Cell::new(false),
        })
    }

    /// It has turned out to be a replica.
    pub fn demote(&self) {
        self.is_demoted.set(true);
    }

    /// Whether it is the master, as far as anybody says.
    pub fn is_master(&self) -> bool {
        let Some(service) = self.address.service() else {
            return true;
        };
        if self.is_demoted.get() || Instant::now() < self.next_look.get() {
            return !self.is_demoted.get();
        }
        // A cancel counts as no answer.
        self.next_look.set(Instant::now() + LOOK_IN_VAIN);
        let (password, tls) = (self.password.as_ref(), self.tls.as_ref());
        match master(&self.address, &service, Means { password, tls }) {
            Ok(master) => {
                self.next_look.set(Instant::now() + LOOK);
                master == self.place
            }
            Err(_) => true,
        }
    }
}

/// An error with the master that it is about.
fn at(master: &HostPort, error: &io::Error) -> io::Error {
    let cause = match Cause::of_io(error) {
        Cause::Io { kind, text } => Cause::Io {
            kind,
            text: format!("{text}, master {master}"),
        },
        Cause::Tls { text } => Cause::Tls {
            text: format!("{text}, master {master}"),
        },
        other => other,
    };
    cause.into_io()
}

fn master(address: &Address, service: &Service<'_>, means: Means<'_>) -> Result<HostPort, Cause> {
    let count = service.sentinels.len();
    let share = Inquiry::share(gucs::connect_timeout(), count);
    let first = FIRST.get();
    let mut inquiry = Inquiry::default();
    for number in (0..count).map(|step| (first + step) % count) {
        let sentinel = &service.sentinels[number];
        let stream = socket::connect(&address.bare_at(sentinel), means.tls, share);
        let named = stream.map_err(|error| Cause::of_io(&error)).and_then(|stream| {
            let deadline = Instant::now() + share;
            let mut sentinel = Sentinel {
                stream: Patient { stream, deadline },
                parser: Parser::new(),
            };
            sentinel.name(service, address.authentication(means.password))
        });
        match named {
            Ok(master) => {
                FIRST.set(number);
                return Ok(master);
            }
            Err(cause) => inquiry.failed(sentinel, cause),
        }
    }
    Err(inquiry.end(service))
}

/// A connection to one sentinel.
struct Sentinel {
    stream: Patient,
    parser: Parser,
}

impl Sentinel {
    fn name(&mut self, service: &Service<'_>, auth: Option<Cmd>) -> Result<HostPort, Cause> {
        let question = question(service);
        let answer = self.ask(&question)?;
        let Some(auth) = auth.filter(|_| wants_credentials(&answer)) else {
            return master_in(&answer);
        };
        if let Value::ServerError(error) = self.ask(&auth)? {
            return Err(Cause::of_reply(&error));
        }
        master_in(&self.ask(&question)?)
    }

    fn ask(&mut self, command: &Cmd) -> Result<Value, Cause> {
        let sent = self.stream.write_all(&command.get_packed_command());
        sent.and_then(|()| self.stream.flush())
            .map_err(|error| Cause::of_io(&error))?;
        let answer = self.parser.parse_value(&mut self.stream);
        answer.map_err(|error| Cause::of(&error))
    }
}
