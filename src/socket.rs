//! A backend's socket to Redis: plain TCP, TLS, or a unix socket.
//!
//! No runtime and no thread in a backend: the socket is non-blocking and waited on with WaitLatchOrSocket, so that a
//! cancel works while waiting (not while a host's name is looked up), and can stop both directions at any byte.
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use pg_redis_cache_core::redis::{
    Address, Cause, Kind, Place, Secret, Session, Tls, client_name, unanswered,
};
use pgrx::pg_sys;

use crate::gucs;

/// What the connections are called in Redis.
pub const PROGRAM: &str = concat!("pg_redis_cache/", env!("CARGO_PKG_VERSION"));

/// A socket, in TLS or not, that does not block.
pub trait Stream: Read + Write + AsRawFd {
    /// Whether the socket has to take something before any more can be read.
    fn wants_write(&self) -> bool {
        false
    }

    /// Whether nothing has come unasked, and the other end is still there.
    fn is_idle(&mut self) -> bool {
        is_open_and_quiet(self.as_raw_fd())
    }
}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

/// TLS over TCP.
struct TlsStream(Session<TcpStream>);

impl AsRawFd for TlsStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.socket().as_raw_fd()
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for TlsStream {
    fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    fn is_idle(&mut self) -> bool {
        self.0.is_idle()
    }
}

fn is_open_and_quiet(socket: RawFd) -> bool {
    let mut byte = 0u8;
    // SAFETY: an open socket and one byte to look into.
    let peeked = unsafe {
        libc::recv(
            socket,
            (&raw mut byte).cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    peeked < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

/// A non-blocking stream that waits where it would block, until its deadline.
pub struct Patient {
    pub stream: Box<dyn Stream>,
    pub deadline: Instant,
}

impl Patient {
    fn wait(&self, event: u32) -> io::Result<()> {
        let wanted = if self.stream.wants_write() {
            pg_sys::WL_SOCKET_WRITEABLE
        } else {
            0
        };
        wait(self.stream.as_raw_fd(), event | wanted, self.deadline).map(drop)
    }
}

/// Whether a socket can be read or written, as `event` says, within a millisecond, as it mostly can: asked by one system call, where
/// WaitLatchOrSocket makes six. A cancel waits for so long.
fn comes_shortly(socket: RawFd, event: u32) -> bool {
    let asks = |socket_event, poll_event| if event & socket_event == 0 { 0 } else { poll_event };
    let mut asked = libc::pollfd {
        fd: socket,
        events: asks(pg_sys::WL_SOCKET_READABLE, libc::POLLIN)
            | asks(pg_sys::WL_SOCKET_WRITEABLE, libc::POLLOUT),
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
        loop {
            match self.stream.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Only TLS has anything to flush, and only a handshake waits for an answer.
                    self.wait(if self.stream.wants_write() {
                        pg_sys::WL_SOCKET_WRITEABLE
                    } else {
                        pg_sys::WL_SOCKET_READABLE
                    })?;
                }
                result => return result,
            }
        }
    }
}

/// A stream to the server, in TLS if the address wants it and `tls` is given.
///
/// # Errors
/// It cannot be reached, or there is no TLS with it.
pub fn connect(address: &Address, tls: Option<&Tls>, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    match address.place() {
        Place::Tcp { host, port } => {
            let stream = connect_to_any(host, port, timeout)?;
            stream.set_nodelay(true)?;
            match tls.filter(|_| address.is_tls()) {
                Some(tls) => shake_hands(tls, host, stream, timeout),
                None if address.is_tls() => Err(io::ErrorKind::Unsupported.into()),
                None => Ok(Box::new(stream)),
            }
        }
        Place::Unix { path } => {
            let stream = UnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            Ok(Box::new(stream))
        }
        // Sentinels are asked first (`sentinel::reach`), and so are the nodes of a cluster.
        Place::Service(_) | Place::Cluster(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn connect_to_any(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for candidate in (host, port).to_socket_addrs()? {
        match connect_tcp(candidate, Instant::now() + timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake_hands(tls: &Tls, host: &str, stream: TcpStream, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    let stream = Box::new(TlsStream(Session::new(tls, host, stream)?));
    let deadline = Instant::now() + timeout;
    let mut patient = Patient { stream, deadline };
    match patient.flush() {
        Ok(()) => Ok(patient.stream),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(unanswered(timeout)),
        Err(error) => Err(error),
    }
}

/// What is to be sent first to a server: user, password and database, and then who this backend is. That last one may
/// be refused (an ACL may forbid it), unless the backend [`is_turned_away`].
pub fn greeting(address: &Address, password: Option<&Secret>, role: &str) -> Vec<redis::Cmd> {
    let mut commands = address.greeting(password);
    let mut name = redis::cmd("CLIENT");
    name.arg("SETNAME")
        .arg(client_name(PROGRAM, role, &gucs::cluster_name()));
    commands.push(name);
    commands
}

/// Commands as they are to be written at once: who writes again to a server that has hung up is told of that, and not
/// what the server has said before (networking.c, acceptCommonHandler).
pub fn in_one(commands: &[redis::Cmd]) -> Vec<u8> {
    commands.iter().flat_map(redis::Cmd::get_packed_command).collect()
}

/// Whether Redis has refused its first command because of the connection, and not of the command.
pub fn is_turned_away(cause: &Cause) -> bool {
    cause.kind() != Kind::Rejected
}

/// Waits so long, or until something wakes the process; a cancel works.
pub fn pause(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's latch.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            time.as_millis() as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
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
