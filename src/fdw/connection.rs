//! A connection to Redis that several scans and writes of a backend share.
//!
//! Each has a [`Wire`] of its own: what it sends is answered to it, whoever reads the answer first. Commands go out
//! as they are sent, without waiting for their answers. While it waits, a cancel works: both directions can be
//! interrupted at any byte and gone on with, so a connection is only lost when the socket or the protocol is. What a
//! line that has ended was still to be answered is read and dropped.
use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, Read, Write},
    rc::Rc,
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    fdw::{
        Commands, Reply,
        resp::{self, Malformed},
    },
    redis::{Address, Cause, Place, Secret, Tls},
};
use rustc_hash::FxHashMap;

use super::error;
use crate::{
    gucs,
    sentinel::{self, Means, Named},
    socket::{self, Patient},
};

/// Which line something belongs to.
type Ticket = u64;

struct Connection {
    stream: Patient,
    address: Address,
    /// Whether anything has been.
    is_answered: bool,
    host: String,
    reader: resp::Reader,
    /// What is to be sent, and how much of it has been.
    out: Vec<u8>,
    sent: usize,
    /// Whose the coming answers are, and how many in a row.
    expected: VecDeque<(Ticket, usize)>,
    /// Answers that were read for a line while another waited for its own.
    inboxes: FxHashMap<Ticket, VecDeque<Reply>>,
    last_ticket: Ticket,
    buffer: Box<[u8]>,
    broken: bool,
    opened: Instant,
    /// When it was taken last.
    taken: Instant,
    /// Where sentinels have led to it.
    named: Option<Rc<Named>>,
}

/// Who a connection is made as.
#[derive(Clone)]
pub struct Credentials {
    pub password: Option<Secret>,
    /// For addresses that want it.
    pub tls: Option<Tls>,
}

/// A connection that is kept for the next statement.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Connection>>);

/// What a line has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub commands: u64,
    pub round_trips: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Figures {
    /// Adds what another line has done.
    pub fn add(&mut self, other: Figures) {
        self.commands += other.commands;
        self.round_trips += other.round_trips;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

/// One user of a connection.
pub struct Wire {
    connection: Shared,
    ticket: Ticket,
    pub figures: Figures,
}

impl Shared {
    /// Connects to the first of the addresses that can be reached, or raises.
    pub fn open(addresses: &[Address], credentials: &Credentials) -> Self {
        let mut last = None;
        for address in addresses {
            match Self::connect(address, credentials) {
                Ok(connection) => return connection,
                Err(problem) => last = Some((address, problem)),
            }
        }
        match last {
            Some((address, problem)) => error::unreachable_server(&address.masked(), &problem),
            None => error::unreachable_server("", &io::ErrorKind::NotFound.into()),
        }
    }

    /// Connects, to the master if the address names a service, and authenticates, or raises why it must not.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn connect(address: &Address, credentials: &Credentials) -> io::Result<Self> {
        let (password, tls) = (credentials.password.as_ref(), credentials.tls.as_ref());
        let means = Means { password, tls };
        sentinel::reach(address, means, |there| {
            let stream = socket::connect(there, tls, gucs::connect_timeout())?;
            let connection = Self::greet(stream, there, password);
            let named = Named::new(address, there, means);
            if named.is_some() && !connection.is_master() {
                return Ok(None);
            }
            connection.0.borrow_mut().named = named.map(Rc::new);
            Ok(Some(connection))
        })
    }

    /// Whether a server that sentinels have named is a master. One whose user may not ask is taken for it.
    fn is_master(&self) -> bool {
        let mut role = Commands::default();
        role.push(&[b"ROLE"]);
        let mut line = self.wire();
        line.send(&role);
        match line.receive() {
            Reply::Array(parts) => parts.first() != Some(&Reply::Bulk(b"slave".to_vec())),
            _ => true,
        }
    }

    fn greet(stream: Box<dyn socket::Stream>, address: &Address, password: Option<&Secret>) -> Self {
        let connection = Connection {
            stream: Patient {
                stream,
                deadline: Instant::now() + gucs::connect_timeout(),
            },
            address: address.clone(),
            is_answered: false,
            host: match address.place() {
                Place::Tcp { host, .. } => host.to_owned(),
                Place::Unix { .. } | Place::Service(_) | Place::Cluster(_) => String::new(),
            },
            reader: resp::Reader::default(),
            out: Vec::new(),
            sent: 0,
            expected: VecDeque::new(),
            inboxes: FxHashMap::default(),
            last_ticket: 0,
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
            broken: false,
            opened: Instant::now(),
            taken: Instant::now(),
            named: None,
        };
        let shared = Self(Rc::new(RefCell::new(connection)));
        let mut line = shared.wire();
        let greeting = socket::greeting(address, password, "fdw");
        line.send(&Commands {
            bytes: socket::in_one(&greeting),
            count: greeting.len(),
        });
        for _ in 1..greeting.len() {
            line.answer();
        }
        if let Some(text) = line.receive().error()
            && socket::is_turned_away(&Cause::of_text(text))
        {
            error::refused(text);
        }
        shared
    }

    /// Another user of the connection.
    pub fn wire(&self) -> Wire {
        let mut connection = self.0.borrow_mut();
        connection.last_ticket += 1;
        connection.taken = Instant::now();
        Wire {
            connection: self.clone(),
            ticket: connection.last_ticket,
            figures: Figures::default(),
        }
    }

    /// Whether the next statement can use it: it is not broken, and either something is on its way for another, or it
    /// may live longer by the settings and the server has not closed it meanwhile.
    pub fn is_usable(&self) -> bool {
        let Ok(mut connection) = self.0.try_borrow_mut() else {
            return false;
        };
        let lasts =
            |since: Instant, limit: Option<Duration>| limit.is_none_or(|limit| since.elapsed() < limit);
        let is_kept = lasts(connection.opened, gucs::pool::max_lifetime())
            && lasts(connection.taken, gucs::pool::idle_timeout());
        !connection.broken && (connection.is_busy() || is_kept && connection.stream.stream.is_idle())
    }

    /// Whether it leads to the master still, if sentinels have led to it. May wait for them.
    pub fn is_master_still(&self) -> bool {
        // They are not waited for while the connection is borrowed.
        let named = self
            .0
            .try_borrow()
            .ok()
            .and_then(|connection| connection.named.clone());
        named.is_none_or(|named| named.is_master())
    }

    /// Whether commands or answers are on their way.
    pub fn is_busy(&self) -> bool {
        self.0.try_borrow().is_ok_and(|connection| connection.is_busy())
    }
}

impl Connection {
    fn is_busy(&self) -> bool {
        !self.expected.is_empty() || self.sent < self.out.len()
    }

    fn send(&mut self, ticket: Ticket, commands: &Commands) {
        self.check();
        self.out.extend_from_slice(&commands.bytes);
        match self.expected.back_mut() {
            Some((last, count)) if *last == ticket => *count += commands.count,
            _ => self.expected.push_back((ticket, commands.count)),
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.stream.deadline = Instant::now() + gucs::command_timeout();
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => self.fail(&io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    self.stream.deadline = Instant::now() + gucs::command_timeout();
                }
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => self.fail(&problem),
            }
        }
        if let Err(problem) = self.stream.flush() {
            self.fail(&problem);
        }
        self.out.clear();
        self.out.shrink_to(1 << 20);
        self.sent = 0;
    }

    /// The next answer to a line, if it is there.
    fn take(&mut self, ticket: Ticket) -> Option<Reply> {
        let inbox = self.inboxes.get_mut(&ticket)?;
        let reply = inbox.pop_front();
        if inbox.is_empty() {
            self.inboxes.remove(&ticket);
        }
        reply
    }

    /// The beginning of a line's next answer, of which nobody has been given more.
    fn begun(&self, ticket: Ticket) -> &[Reply] {
        match self.expected.front() {
            Some((first, _)) if *first == ticket => self.reader.begun(),
            _ => &[],
        }
    }

    /// Puts the next answer into its line's inbox, or reads some more of it. Returns how many bytes were read.
    fn read_on(&mut self) -> usize {
        self.check();
        self.flush();
        match self.reader.next_reply() {
            Ok(Some(reply)) => {
                self.deliver(reply);
                0
            }
            Ok(None) => self.read_some(),
            Err(Malformed { .. }) => {
                self.broken = true;
                error::garbled(&self.address.masked());
            }
        }
    }

    fn read_some(&mut self) -> usize {
        self.stream.deadline = Instant::now() + gucs::command_timeout();
        match self.stream.read(&mut self.buffer) {
            Ok(0) => self.fail(&io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.is_answered = true;
                self.reader.feed(&self.buffer[..count]);
                count
            }
            Err(problem) if problem.kind() == io::ErrorKind::Interrupted => 0,
            Err(problem) => self.fail(&problem),
        }
    }

    fn deliver(&mut self, reply: Reply) {
        let Some((ticket, count)) = self.expected.front_mut() else {
            self.broken = true;
            error::garbled(&self.address.masked());
        };
        if let Some(named) = &self.named
            && reply.error().is_some_and(|text| text.starts_with("READONLY"))
        {
            named.demote();
        }
        let ticket = *ticket;
        *count -= 1;
        if *count == 0 {
            self.expected.pop_front();
        }
        if ticket != NOBODY {
            self.inboxes.entry(ticket).or_default().push_back(reply);
        }
    }

    fn check(&mut self) {
        if self.broken {
            error::lost(&self.address.masked(), &io::ErrorKind::NotConnected.into());
        }
    }

    fn fail(&mut self, problem: &io::Error) -> ! {
        self.broken = true;
        if self.is_answered {
            error::lost(&self.address.masked(), problem)
        } else {
            error::unanswered(&self.address, problem)
        }
    }
}

/// The ticket of answers that nobody waits for any more.
const NOBODY: Ticket = 0;

impl Wire {
    /// Sends commands; each will have one answer.
    pub fn send(&mut self, commands: &Commands) {
        if commands.count == 0 {
            return;
        }
        self.figures.commands += commands.count as u64;
        self.figures.round_trips += 1;
        self.figures.bytes_sent += commands.bytes.len() as u64;
        self.connection.0.borrow_mut().send(self.ticket, commands);
    }

    /// The next answer to what this line has sent.
    pub fn receive(&mut self) -> Reply {
        self.receive_foreseeing(|_, _| {})
    }

    /// The same. While only a part of it has come, `foresee` is shown that part and may append commands, which are sent
    /// at once.
    pub fn receive_foreseeing(&mut self, mut foresee: impl FnMut(&[Reply], &mut Commands)) -> Reply {
        loop {
            let mut commands = Commands::default();
            {
                let mut connection = self.connection.0.borrow_mut();
                if let Some(reply) = connection.take(self.ticket) {
                    return reply;
                }
                foresee(connection.begun(self.ticket), &mut commands);
                if commands.count == 0 {
                    self.figures.bytes_received += connection.read_on() as u64;
                }
            }
            self.send(&commands);
        }
    }

    /// The next answer, as [`Self::receive`]; raises if Redis has refused the command.
    pub fn answer(&mut self) -> Reply {
        let reply = self.receive();
        match reply.error() {
            Some(text) => error::refused(text),
            None => reply,
        }
    }

    /// The host that it leads to; empty for a unix socket.
    pub fn host(&self) -> String {
        self.connection.0.borrow().host.clone()
    }

    /// Where it leads to, without a password.
    pub fn address(&self) -> String {
        self.connection.0.borrow().address.masked()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // While a panic unwinds through a borrowed connection there is nothing to tidy: an abort drops what is busy.
        if let Ok(mut connection) = self.connection.0.try_borrow_mut() {
            connection.inboxes.remove(&self.ticket);
            for (ticket, _) in connection
                .expected
                .iter_mut()
                .filter(|(ticket, _)| *ticket == self.ticket)
            {
                *ticket = NOBODY;
            }
        }
    }
}
