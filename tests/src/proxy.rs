//! A way to Redis that can be cut, shut, slow, or keep what it was given and hand it on later.
//!
//! What it does: hands bytes on between the port that it listens on and Redis's, in both directions.
//! [`Proxy::cut`] ends every connection, [`Proxy::shut`] lets no new ones through either until
//! [`Proxy::reopen`], [`Proxy::delay`] makes each way longer, [`Proxy::hold`] keeps what the connections of that
//! moment are given until [`Proxy::release`], also when the sender is long gone: what a network, or a busy
//! server's socket, may do with the commands of a lost connection.
//!
//! What it does not: lose or change bytes of a connection that lives.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::port::Port;
use crate::{Redis, eventually};

/// How long a thread may take to notice that it is to hold or to hand on.
const BEAT: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(20);

/// A proxy in front of a Redis.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    is_shut: bool,
    /// The number of the next connection; those below `held` keep what they are given.
    next: u64,
    held: u64,
    /// Connections that keep something, or that have handed it on and not seen their end.
    keeping: usize,
    /// Both ends of each connection that is open, and its number.
    open: Vec<(u64, [TcpStream; 2])>,
}

impl Proxy {
    /// A proxy that hands everything on.
    ///
    /// # Panics
    /// If there is no port to listen on.
    pub fn to(redis: &Redis) -> Proxy {
        Proxy::at(Port::claim(), redis)
    }

    /// The same at a port that had to be known before.
    pub(crate) fn at(port: Port, redis: &Redis) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number)).expect("the port is claimed");
        let state = Arc::<Mutex<State>>::default();
        let (shared, server_port) = (Arc::clone(&state), redis.port());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // No server: the client sees the connection closed.
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)) {
                    join(client, server, &shared);
                }
            }
        });
        Proxy { port, state }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// `redis://127.0.0.1:port/0`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port.number)
    }

    /// Ends every connection; new ones are taken as before. What is kept for Redis stays so.
    pub fn cut(&self) {
        lock(&self.state).end(|_| true);
    }

    /// Ends every connection, but for those that the server sees come from the ports `spared`, and takes no new ones until
    /// [`reopen`](Self::reopen)ed. What is kept for Redis stays so.
    pub fn shut(&self, spared: &[u16]) {
        let mut state = lock(&self.state);
        state.is_shut = true;
        state.end(|server| {
            let port = server.local_addr().map(|address| address.port());
            port.is_ok_and(|port| !spared.contains(&port))
        });
    }

    /// New connections are taken again.
    pub fn reopen(&self) {
        lock(&self.state).is_shut = false;
    }

    /// From now on each piece takes this much longer, each way.
    pub fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// From now on the connections that there are keep what they are given; new ones hand it on.
    pub fn hold(&self) {
        let mut state = lock(&self.state);
        state.held = state.next;
    }

    /// Runs `close`, and waits until Redis has closed the connections from before it, and their clients see that.
    ///
    /// # Panics
    /// If that takes longer than 20 s.
    pub fn await_closed(&self, close: impl FnOnce()) {
        let first_new = lock(&self.state).next;
        close();
        eventually("connections to be closed", LIMIT, || {
            let state = lock(&self.state);
            state
                .open
                .iter()
                .all(|(number, _)| *number >= first_new)
                .then_some(())
        });
    }

    /// Whether a connection has been given something that it keeps.
    pub fn keeps_something(&self) -> bool {
        lock(&self.state).keeping > 0
    }

    /// Hands on what was kept, and waits until Redis has run it or has closed the connection.
    ///
    /// # Panics
    /// If that takes longer than 20 s.
    pub fn release(&self) {
        lock(&self.state).held = 0;
        eventually("what was held back to be run", LIMIT, || {
            (!self.keeps_something()).then_some(())
        });
    }
}

impl State {
    /// Ends the connections that are meant, going by their ends at the server.
    fn end(&mut self, is_meant: impl Fn(&TcpStream) -> bool) {
        let held = self.held;
        for (number, [client, server]) in self.open.extract_if(.., |(_, [_, server])| is_meant(server)) {
            // Either may have ended by itself.
            let _ = client.shutdown(Shutdown::Both);
            if number >= held {
                let _ = server.shutdown(Shutdown::Both);
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(client: TcpStream, server: TcpStream, state: &Arc<Mutex<State>>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor can be had");
    let (to_client, from_server) = (clone(&client), clone(&server));
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("the socket is open");
    }
    let number = {
        let mut state = lock(state);
        if state.is_shut {
            return;
        }
        let number = state.next;
        state.open.push((number, [clone(&client), clone(&server)]));
        state.next += 1;
        number
    };
    let shared = Arc::clone(state);
    std::thread::spawn(move || forth(number, client, server, &shared));
    let shared = Arc::clone(state);
    std::thread::spawn(move || back(number, from_server, to_client, &shared));
}

/// From the client to the server. Reads on while it keeps, so that nothing is lost with the client.
fn forth(number: u64, mut client: TcpStream, mut server: TcpStream, state: &Mutex<State>) {
    client
        .set_read_timeout(Some(BEAT))
        .expect("a plain socket option");
    let (mut kept, mut bytes, mut counted, mut ended) = (Vec::new(), [0; 1 << 16], false, false);
    loop {
        match client.read(&mut bytes) {
            Ok(read @ 1..) => kept.extend_from_slice(&bytes[..read]),
            // Interrupted: who was stopped goes on (signal(7), of a socket with a timeout).
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            // Without it the loop would spin while it holds.
            Ok(_) | Err(_) if std::mem::replace(&mut ended, true) => std::thread::sleep(BEAT),
            Ok(_) | Err(_) => {}
        }
        let delay = {
            let mut state = lock(state);
            if number < state.held {
                if !kept.is_empty() && !std::mem::replace(&mut counted, true) {
                    state.keeping += 1;
                }
                continue;
            }
            state.delay
        };
        if !kept.is_empty() {
            std::thread::sleep(delay);
            ended |= server.write_all(&kept).is_err();
            kept.clear();
        }
        if ended {
            break;
        }
        if std::mem::take(&mut counted) {
            lock(state).keeping -= 1;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    if counted {
        // Redis closes when it has run what it was given, or has closed already.
        while server.read(&mut bytes).is_ok_and(|read| read > 0) {}
        lock(state).keeping -= 1;
    }
}

fn back(number: u64, mut server: TcpStream, mut client: TcpStream, state: &Mutex<State>) {
    let mut bytes = [0; 1 << 16];
    while let Ok(read @ 1..) = server.read(&mut bytes) {
        let delay = lock(state).delay;
        std::thread::sleep(delay);
        if client.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    lock(state).open.retain(|(other, _)| *other != number);
}
