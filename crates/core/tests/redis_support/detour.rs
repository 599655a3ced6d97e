//! A way to the server that can keep what it was given and hand it on later, also when the sender is
//! long gone: what a network, or a busy server's socket, may do with the commands of a lost connection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Connections from before keep what they are given; new ones hand it on.
    Holding,
    Released,
}

struct State {
    /// A connection that sends these bytes is closed.
    refused: Mutex<Option<&'static [u8]>>,
    /// And how many connections keep something, or have just handed it on.
    phase: Mutex<(Phase, usize)>,
    changed: Condvar,
}

impl State {
    fn refuses(&self, sent: &[u8]) -> bool {
        let refused = *self.refused.lock().unwrap();
        refused.is_some_and(|refused| sent.windows(refused.len()).any(|window| window == refused))
    }

    /// Waits while the phase is `Holding`, and returns whether it was.
    fn keep(&self) -> bool {
        let mut phase = self.phase.lock().unwrap();
        if phase.0 != Phase::Holding {
            return false;
        }
        phase.1 += 1;
        while phase.0 == Phase::Holding {
            phase = self.changed.wait(phase).unwrap();
        }
        true
    }
}

pub struct Detour {
    url: String,
    state: Arc<State>,
}

impl Detour {
    pub fn to(socket: &Path) -> Self {
        let path = socket.with_extension("detour");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = socket.to_owned();
        let state = Arc::new(State {
            refused: Mutex::new(None),
            phase: Mutex::new((Phase::Open, 0)),
            changed: Condvar::new(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                // No server: the client sees the connection closed.
                if let Ok(server) = UnixStream::connect(&socket) {
                    join(client, server, shared.clone());
                }
            }
        });
        let url = format!("redis+unix://{}?db=0", path.display());
        Self { url, state }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Closes each connection that sends these bytes, and does not hand them on.
    pub fn refuse(&self, bytes: &'static [u8]) {
        *self.state.refused.lock().unwrap() = Some(bytes);
    }

    /// From now on the connections that there are keep what they are given.
    pub fn hold(&self) {
        self.state.phase.lock().unwrap().0 = Phase::Holding;
    }

    /// Whether a connection keeps something.
    pub fn keeps_something(&self) -> bool {
        self.state.phase.lock().unwrap().1 > 0
    }

    /// Hands on what was kept, and returns when the server has answered it or closed the connection.
    pub fn release(&self) {
        let mut phase = self.state.phase.lock().unwrap();
        phase.0 = Phase::Released;
        self.state.changed.notify_all();
        while phase.1 > 0 {
            phase = self.state.changed.wait(phase).unwrap();
        }
    }
}

fn join(mut client: UnixStream, mut server: UnixStream, state: Arc<State>) {
    let is_old = state.phase.lock().unwrap().0 == Phase::Open;
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 1 << 16];
        let mut kept = false;
        while !kept {
            let read = client.read(&mut bytes).unwrap_or(0);
            kept = is_old && state.keep();
            if state.refuses(&bytes[..read]) {
                let _ = client.shutdown(Shutdown::Both);
                break;
            }
            if read == 0 || server.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
        // The server closes when it has run all that it was given, or has closed already.
        while server.read(&mut bytes).is_ok_and(|read| read > 0) {}
        if kept {
            state.phase.lock().unwrap().1 -= 1;
            state.changed.notify_all();
        }
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut bytes) {
            if to_client.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
