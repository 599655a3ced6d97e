//! Pools of connections to Redis, plain or TLS: `deadpool-redis`, with the settings of the engine.
//!
//! Guarantees that a connection is had within `connect_timeout`, from the look-up of the name to the end of the
//! handshake, and that a failure keeps its [`Cause`]. Nothing has been sent on a connection yet: who we are is told by
//! [`Line`](super::line::Line), together with what it asks. A line takes its connection out of the pool for good, so
//! that none comes back to be recycled.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ::redis::io::AsyncDNSResolver;
use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use ::redis::{RedisConnectionInfo, RedisFuture, RedisResult};
use deadpool_redis::{Connection, Manager, PoolError, Runtime, Status, TimeoutType, Timeouts};
use tokio::net::lookup_host;

use super::address::Place;
use super::diagnosis;
use super::engine::Settings;
use super::fault::Cause;
use super::tls::{self, Tls, Verify};

/// When an idle connection is probed by the kernel, so that what lies between keeps it open.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where lines to one place take their connections from.
#[derive(Clone)]
pub(super) struct Pool {
    connections: deadpool_redis::Pool,
    /// Those given, with the place in their address.
    settings: Rc<Settings>,
}

/// A pool that opens at most `size` connections to this place, which is that of the settings' address or one that it
/// leads to.
///
/// # Errors
///
/// The settings make no connections. That there is nothing at the place is no error here.
pub(super) fn pool(settings: &Settings, place: Place<'_>, size: usize) -> Result<Pool, Cause> {
    let info = connection_info(settings, place)?
        .set_tcp_settings(tcp_settings())
        .set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
    // The timeouts are kept by `Pool` and `Line`: the library's would leave a connection usable whose commands may
    // still run.
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let mut settings = settings.clone();
    if let Place::Tcp { host, port } = place {
        config = config.set_dns_resolver(Resolver {
            host: host.to_owned(),
        });
        settings.address = settings.address.at(host.to_owned(), port);
    }
    let manager = Manager::new_with_config(info, config).map_err(|error| Cause::of(&error))?;
    let connections = deadpool_redis::Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|_| Cause::Protocol {
            expected: "a pool that needs no more than a runtime",
        })?;
    Ok(Pool {
        connections,
        settings: Rc::new(settings),
    })
}

impl Pool {
    /// A connection that nobody else has.
    ///
    /// # Errors
    ///
    /// None within `connect_timeout`, or why it could not be made.
    pub async fn take(&self) -> Result<Connection, Cause> {
        let limit = self.settings.connect_timeout;
        let timeouts = Timeouts {
            wait: Some(limit),
            create: Some(limit),
            recycle: Some(limit),
        };
        let taken = self.connections.timeout_get(&timeouts).await;
        taken.map_err(|error| match error {
            PoolError::Backend(error) => Cause::of(&error),
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => Cause::Timeout { after: limit },
            _ => Cause::Exhausted,
        })
    }

    /// Why a connection could not be opened, if that can be found out: see [`diagnosis`].
    pub async fn diagnose(&self, cause: Cause) -> Cause {
        diagnosis::of(&self.settings, cause).await
    }

    pub fn status(&self) -> Status {
        self.connections.status()
    }
}

fn connection_info(settings: &Settings, place: Place<'_>) -> Result<ConnectionInfo, Cause> {
    let info = match place {
        Place::Unix { path } => ConnectionAddr::Unix(path.to_owned()).into_connection_info(),
        // Who wants a pool has found out where that is.
        Place::Service(_) | Place::Cluster(_) => {
            return Err(Cause::of_io(&io::ErrorKind::Unsupported.into()));
        }
        Place::Tcp { host, port } if settings.address.is_tls() => {
            let tls = settings.tls.as_ref().ok_or_else(diagnosis::no_tls)?;
            tls_connection_info(tls, host, port)
        }
        Place::Tcp { host, port } => ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info(),
    };
    info.map_err(|error| Cause::of(&error))
}

/// The library takes certificates only by way of a client.
fn tls_connection_info(tls: &Tls, host: &str, port: u16) -> RedisResult<ConnectionInfo> {
    let verify = tls.verify();
    let place = ConnectionAddr::TcpTls {
        host: tls::certified(host).to_owned(),
        port,
        insecure: verify == Verify::Nothing,
        tls_params: None,
    };
    let client = Client::build_with_tls(place, tls.certificates())?;
    let info = client.get_connection_info().clone();
    let mut place = info.addr().clone();
    place.set_danger_accept_invalid_hostnames(verify == Verify::Authority);
    Ok(info.set_addr(place))
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        // What a lost connection has not sent yet is thrown away (rule 5).
        .set_linger_time(Duration::ZERO)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE))
}

/// Looks up the place's host, whatever part of it TLS goes by.
struct Resolver {
    host: String,
}

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _certified: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((self.host.as_str(), port)).await?.collect();
            if found.is_empty() {
                // The library panics over none (futures' select_ok).
                return Err(io::Error::from(io::ErrorKind::NotFound).into());
            }
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::TcpListener;

    use super::*;
    use crate::redis::Address;

    fn settings(url: &str) -> Settings {
        Settings {
            address: Address::parse(url).unwrap(),
            password: None,
            tls: None,
            connect_timeout: Duration::from_millis(100),
            command_timeout: Duration::from_millis(100),
        }
    }

    #[tokio::test]
    async fn a_pool_gives_no_more_than_it_may() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = settings(&format!("redis://{}/0", listener.local_addr().unwrap()));
        let pool = pool(&settings, settings.address.place(), 1).unwrap();
        let first = pool.take().await.unwrap();
        assert_eq!(pool.take().await.err(), Some(Cause::Exhausted));
        drop(Connection::take(first));
        assert!(pool.take().await.is_ok());
    }

    #[tokio::test]
    async fn a_pool_goes_to_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = settings("redis://elsewhere.invalid:1/0");
        let place = Place::Tcp {
            host: "127.0.0.1",
            port,
        };
        assert!(pool(&settings, place, 1).unwrap().take().await.is_ok());
    }

    #[tokio::test]
    async fn what_is_not_there_is_refused() {
        let settings = settings("redis://127.0.0.1:1/0");
        for place in [
            settings.address.place(),
            Place::Unix {
                path: Path::new("/nonexistent/socket"),
            },
        ] {
            let taken = pool(&settings, place, 1).unwrap().take().await;
            assert_eq!(
                taken.err().map(|cause| cause.kind()),
                Some(crate::redis::Kind::Refused)
            );
        }
    }
}
