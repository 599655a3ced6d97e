//! A connection to Redis for one call of a backend.
//!
//! No runtime and no thread in a backend: the socket is non-blocking and waited on with WaitLatchOrSocket, so
//! that a cancel works while waiting (not while a host's name is looked up). `connect_timeout` and `command_timeout` hold as in the worker.
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    config::Format,
    encode::difference::Held,
    redis::{Address, Cause, Place},
};
use pgrx::{PgSqlErrorCode, pg_sys};
use redis::{Parser, ServerError, Value};

use super::raise;
use crate::{gucs, worker};

pub trait Stream: Read + Write + AsRawFd {}
impl<T: Read + Write + AsRawFd> Stream for T {}

/// A non-blocking stream that waits where it would block, until its deadline.
pub struct Patient {
    pub stream: Box<dyn Stream>,
    pub deadline: Instant,
}

impl Patient {
    fn wait(&self, event: u32) -> io::Result<()> {
        wait(self.stream.as_raw_fd(), event, self.deadline).map(drop)
    }
}

/// Whether a socket can be read or written within a millisecond, as it mostly can: asked by one system call, where
/// WaitLatchOrSocket makes six. A cancel waits for so long.
fn comes_shortly(socket: RawFd, event: u32) -> bool {
    let mut asked = libc::pollfd {
        fd: socket,
        events: if event == pg_sys::WL_SOCKET_READABLE {
            libc::POLLIN
        } else {
            libc::POLLOUT
        },
        revents: 0,
    };
    // SAFETY: one descriptor, which is open. A signal ends the call early.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 1) };
    ready == 1
}

/// Waits until a socket can be read or written, something else wakes the process, or it takes too long; raises if the
/// statement is cancelled. Returns what of `event` has come.
fn wait(socket: RawFd, event: u32, deadline: Instant) -> io::Result<u32> {
    if comes_shortly(socket, event) {
        return Ok(event);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let events = event | pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's latch and an open socket.
    let came = unsafe {
        let came = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket,
            left.as_millis().max(1) as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
        came
    };
    pgrx::check_for_interrupts!();
    Ok(came as u32 & event)
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(pg_sys::WL_SOCKET_READABLE)?;
                }
                result => return result,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(pg_sys::WL_SOCKET_WRITEABLE)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// See the module.
pub struct Connection {
    stream: Patient,
    parser: Parser,
    address: Address,
}

impl Connection {
    /// Connects with the settings of the worker, or raises.
    pub fn open() -> Self {
        let (address, password) = worker::configured_address().unwrap_or_else(|problem| {
            raise(
                PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
                "the address of Redis cannot be used",
                problem,
                "See the settings pg_redis_cache.url and pg_redis_cache.password_file.",
            )
        });
        let timeout = gucs::connect_timeout();
        let stream = match connect(&address, timeout) {
            Ok(stream) => stream,
            Err(error) => unreachable_redis(&address, &error),
        };
        let deadline = Instant::now() + timeout;
        let mut connection = Self {
            stream: Patient { stream, deadline },
            parser: Parser::new(),
            address,
        };
        for command in connection.address.greeting(password.as_ref()) {
            connection.send(&command);
            connection.receive();
        }
        connection
    }

    fn send(&mut self, command: &redis::Cmd) {
        if let Err(error) = self.stream.write_all(&command.get_packed_command()) {
            unreachable_redis(&self.address, &error);
        }
    }

    fn receive(&mut self) -> Value {
        self.answer().unwrap_or_else(|error| refused(&error))
    }

    fn answer(&mut self) -> Result<Value, ServerError> {
        match self.parser.parse_value(&mut self.stream) {
            Ok(Value::ServerError(error)) => Err(error),
            Ok(value) => Ok(value),
            Err(error) => unreachable_redis(&self.address, &io::Error::other(error.to_string())),
        }
    }

    fn query(&mut self, command: &redis::Cmd) -> Value {
        self.stream.deadline = Instant::now() + gucs::command_timeout();
        self.send(command);
        self.receive()
    }

    /// The fields of a hash, in the order of Redis; empty if there is none.
    pub fn fields(&mut self, key: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs(self.query(redis::cmd("HGETALL").arg(key)))
    }

    /// The bytes of a string; `None` if there is none.
    pub fn text(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        bytes(self.query(redis::cmd("GET").arg(key)))
    }

    /// PTTL.
    pub fn milliseconds_left(&mut self, key: &[u8]) -> i64 {
        match self.query(redis::cmd("PTTL").arg(key)) {
            Value::Int(milliseconds) => milliseconds,
            _ => -2,
        }
    }

    /// One step of a SCAN: the next cursor, which is `0` when all has been seen, and keys that match the pattern.
    /// About `count` keys of the database are looked at.
    pub fn scan(&mut self, cursor: &[u8], pattern: &[u8], count: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(count);
        let Value::Array(mut parts) = self.query(&command) else {
            return (b"0".to_vec(), Vec::new());
        };
        let keys = match parts.pop() {
            Some(Value::Array(keys)) => keys.into_iter().filter_map(bytes).collect(),
            _ => Vec::new(),
        };
        let cursor = parts.pop().and_then(bytes).unwrap_or_else(|| b"0".to_vec());
        (cursor, keys)
    }

    /// What is held under each of these keys of a mapping in `format`, with what PTTL says of it. The commands go
    /// out in one pipeline; a key may change between its two.
    pub fn held(&mut self, format: Format, keys: &[&[u8]]) -> Vec<(Held, i64)> {
        let command = match format {
            Format::Hash => "HGETALL",
            Format::Json | Format::String => "GET",
        };
        let mut pipeline = Vec::new();
        for key in keys {
            pipeline.extend_from_slice(&redis::cmd(command).arg(key).get_packed_command());
            pipeline.extend_from_slice(&redis::cmd("PTTL").arg(key).get_packed_command());
        }
        self.stream.deadline = Instant::now() + gucs::command_timeout();
        if let Err(error) = self.stream.write_all(&pipeline) {
            unreachable_redis(&self.address, &error);
        }
        let mut all = Vec::with_capacity(keys.len());
        for _ in keys {
            self.stream.deadline = Instant::now() + gucs::command_timeout();
            let held = match self.answer() {
                Err(error) if error.code() == "WRONGTYPE" => Held::Other(String::new()),
                Err(error) => refused(&error),
                Ok(Value::Nil) => Held::Nothing,
                Ok(array @ Value::Array(_)) => match pairs(array) {
                    fields if fields.is_empty() => Held::Nothing,
                    fields => Held::Hash(fields),
                },
                Ok(value) => bytes(value).map_or(Held::Nothing, Held::Text),
            };
            let left = match self.receive() {
                Value::Int(milliseconds) => milliseconds,
                _ => -2,
            };
            all.push((held, left));
        }
        for (key, (held, _)) in keys.iter().zip(&mut all) {
            if let Held::Other(kind) = held {
                *kind = match bytes(self.query(redis::cmd("TYPE").arg(key))) {
                    Some(name) => String::from_utf8_lossy(&name).into_owned(),
                    None => continue,
                };
            }
        }
        all
    }
}

/// What HGETALL has answered, as names and values.
fn pairs(answer: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Value::Array(parts) = answer else {
        return Vec::new();
    };
    let mut parts = parts.into_iter().filter_map(bytes);
    std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
}

fn refused(error: &ServerError) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_FDW_ERROR,
        "Redis refused a command",
        Cause::of_reply(error).to_string(),
        "",
    )
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// A non-blocking stream to the server.
pub fn connect(address: &Address, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    match address.place() {
        Place::Tcp { host, port } => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for candidate in (host, port).to_socket_addrs()? {
                match connect_tcp(candidate, Instant::now() + timeout) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        Place::Unix { path } => {
            let stream = UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            Ok(Box::new(stream))
        }
    }
}

/// A connected, non-blocking socket. The standard library's own connect_timeout cannot be cancelled.
fn connect_tcp(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a plain system call.
    let socket = unsafe { libc::socket(family, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new socket of our own, which the stream closes also when the wait below is cancelled.
    let stream = unsafe { TcpStream::from_raw_fd(socket) };
    match start_connecting(socket, address) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
        Ok(()) => return Ok(stream),
    }
    while wait(socket, pg_sys::WL_SOCKET_WRITEABLE, deadline)? == 0 {}
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

fn start_connecting(socket: RawFd, address: SocketAddr) -> io::Result<()> {
    let outcome = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: the name is as long as is said.
            unsafe {
                libc::connect(
                    socket,
                    (&raw const name).cast(),
                    size_of_val(&name) as libc::socklen_t,
                )
            }
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: the name is as long as is said.
            unsafe {
                libc::connect(
                    socket,
                    (&raw const name).cast(),
                    size_of_val(&name) as libc::socklen_t,
                )
            }
        }
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn unreachable_redis(address: &Address, error: &io::Error) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        format!("Redis at {} cannot be reached", address.masked()),
        error.to_string(),
        "See redis_cache.status and the setting pg_redis_cache.url.",
    )
}
