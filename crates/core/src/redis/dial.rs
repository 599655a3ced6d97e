//! Opens sockets to Redis, plain or TLS, for the pool.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use ::redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use deadpool::managed::{Manager, Metrics, RecycleResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Place;
use super::engine::Settings;
use super::fault::Cause;
use super::noting::{Note, Noting};
use super::tls::{self, Tls};

/// When an idle connection is probed by the kernel, so that what lies between keeps it open.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Makes connections with these settings: what a pool calls. Nothing is sent on them yet.
pub(super) struct Dialler {
    settings: Settings,
}

impl Dialler {
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// A connection, within `connect_timeout` from the look-up of the name.
    async fn dial(&self) -> Result<Wire, Cause> {
        let limit = self.settings.connect_timeout;
        let deadline = Instant::now() + limit;
        let late = || Cause::Timeout { after: limit };
        let address = &self.settings.address;
        let (host, port) = match address.place() {
            Place::Unix { path } => {
                return Wire::over(within(deadline, UnixStream::connect(path), late).await?).await;
            }
            Place::Tcp { host, port } => (host, port),
        };
        let socket = within(deadline, connect(host, port), late).await?;
        if !address.is_tls() {
            return Wire::over(socket).await;
        }
        let tls = self.settings.tls.as_ref().ok_or_else(no_tls)?;
        let late = || Cause::of_io(&tls::unanswered(limit));
        let socket = within(deadline, shake_hands(tls, host, socket), late).await?;
        let (socket, note) = Noting::new(socket);
        let mut wire = Wire::over(socket).await?;
        wire.failed = Some(note);
        Ok(wire)
    }
}

/// Waits for a socket until the deadline, past which the error is `late`.
async fn within<S>(
    deadline: Instant,
    socket: impl Future<Output = io::Result<S>>,
    late: impl FnOnce() -> Cause,
) -> Result<S, Cause> {
    match timeout_at(deadline, socket).await {
        Ok(socket) => socket.map_err(|error| Cause::of_io(&error)),
        Err(_) => Err(late()),
    }
}

fn no_tls() -> Cause {
    Cause::Tls {
        text: "the address wants TLS, and nothing is set up for it".to_owned(),
    }
}

impl Manager for Dialler {
    type Type = Wire;
    type Error = Cause;

    async fn create(&self) -> Result<Wire, Cause> {
        self.dial().await
    }

    /// A line takes its connection out of the pool for good, so that none comes back.
    async fn recycle(&self, _wire: &mut Wire, _metrics: &Metrics) -> RecycleResult<Cause> {
        Ok(())
    }
}

/// A connection with the task that reads and writes it. Dropped, the task ends and the socket is closed, whatever it
/// still had to send.
pub(super) struct Wire {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    /// How TLS has failed.
    failed: Option<Note>,
}

impl Wire {
    async fn over<S>(socket: S) -> Result<Self, Cause>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Who we are is told by `Line`, together with what it asks.
        let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
        // The timeouts are kept by `Line`: the library's would leave a connection usable whose commands may
        // still run.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&silent, socket, config)
            .await
            .map_err(|error| Cause::of(&error))?;
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Self {
            connection,
            driver,
            failed: None,
        })
    }

    /// Why the connection has failed, if TLS knows better than the library's error.
    pub fn cause(&self, error: &RedisError) -> Cause {
        let noted = self.failed.as_ref().and_then(|note| note.get());
        noted.cloned().unwrap_or_else(|| Cause::of(error))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Deref for Wire {
    type Target = MultiplexedConnection;

    fn deref(&self) -> &MultiplexedConnection {
        &self.connection
    }
}

impl DerefMut for Wire {
    fn deref_mut(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }
}

/// A socket to whichever of the host's addresses takes it first.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for address in lookup_host((host, port)).await? {
        attempts.spawn(TcpStream::connect(address));
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(socket)) => return prepare(socket),
            Ok(Err(error)) => last = error,
            Err(panic) => last = io::Error::other(panic),
        }
    }
    Err(last)
}

fn prepare(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    // What a lost connection has not sent yet is thrown away (rule 5).
    options.set_linger(Some(Duration::ZERO))?;
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(socket)
}

async fn shake_hands(
    tls: &Tls,
    host: &str,
    socket: TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = tls::server_name(host)?;
    TlsConnector::from(tls.config()).connect(name, socket).await
}
