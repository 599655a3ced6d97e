//! A connection out of the pool, with what is known about its other end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline};
use ::redis::{RedisConnectionInfo, RedisResult, Value};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};

use super::address::Endpoint;
use super::chunk::Expiry;
use super::engine::{Note, Settings};
use super::event::{Client, Server};
use super::fault::Cause;
use super::reply::Verdict;

/// How fast a batch may at least be expected to be sent, in bytes per second: one larger than this has
/// that much longer to be answered than `command_timeout`.
const SLOWEST_NETWORK: u64 = 16 << 20;

/// When an idle connection is probed by the kernel, so that what lies between keeps it open.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A pool that opens at most `size` connections with these settings.
pub(super) fn pool(settings: &Settings, size: usize) -> Result<Pool, Cause> {
    let info = connection_info(settings).map_err(|e| Cause::of(&e))?;
    // The timeouts are kept by `Line::exchange` and `Line::open`: the library's would leave a
    // connection usable whose commands may still run.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let manager = Manager::new_with_config(info, config).map_err(|e| Cause::of(&e))?;
    let pool = Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .build();
    pool.map_err(|_| Cause::Protocol {
        expected: "a pool that needs no more than a runtime",
    })
}

fn connection_info(settings: &Settings) -> RedisResult<ConnectionInfo> {
    let address = &settings.address;
    let endpoint = match address.endpoint() {
        Endpoint::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
        Endpoint::Unix { path } => ConnectionAddr::Unix(path.clone()),
    };
    // Linger 0: what a lost connection has not sent yet is thrown away (rule 5).
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_linger_time(Duration::ZERO)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE));
    let mut redis = RedisConnectionInfo::default()
        .set_db(i64::from(address.database()))
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    if let Some(user) = address.user() {
        redis = redis.set_username(user);
    }
    if let Some(password) = settings.password.as_ref().or(address.password()) {
        redis = redis.set_password(password.reveal());
    }
    Ok(endpoint
        .into_connection_info()?
        .set_tcp_settings(tcp)
        .set_redis_settings(redis))
}

/// A live connection.
pub(super) struct Line {
    connection: Connection,
    pub server: Arc<Server>,
    /// What Redis calls this connection.
    pub id: u64,
    /// Why Redis does not know it by its name.
    nameless: Option<Cause>,
    /// Under which settings it was opened, see `Shared::generation`.
    pub generation: u64,
    /// When it was opened.
    pub since: Instant,
    timeout: Duration,
}

impl Line {
    /// Takes a connection out of the pool, names it, and asks the server who it is.
    ///
    /// # Errors
    ///
    /// No connection within `connect_timeout`, credentials or a question refused, or a server that is
    /// not a standalone master.
    pub async fn open(pool: &Pool, settings: &Settings, name: &str, generation: u64) -> Result<Self, Cause> {
        let limit = settings.connect_timeout;
        match tokio::time::timeout(limit, Self::shake_hands(pool, settings, name, generation)).await {
            Ok(line) => line,
            Err(_) => Err(Cause::Timeout { after: limit }),
        }
    }

    async fn shake_hands(
        pool: &Pool,
        settings: &Settings,
        name: &str,
        generation: u64,
    ) -> Result<Self, Cause> {
        let connection = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => Cause::of(&error),
            _ => Cause::Protocol {
                expected: "a free place in the pool",
            },
        })?;
        let server = Arc::new(Server {
            run_id: String::new(),
            replication_id: String::new(),
            version: String::new(),
        });
        let mut line = Self {
            connection,
            server,
            id: 0,
            nameless: None,
            generation,
            since: Instant::now(),
            timeout: settings.connect_timeout,
        };
        let mut hello = identity_questions();
        hello
            .cmd("CLIENT")
            .arg("ID")
            .cmd("CLIENT")
            .arg("SETNAME")
            .arg(name);
        match line.ask(&hello).await {
            Ok(()) => {
                line.timeout = settings.command_timeout;
                Ok(line)
            }
            Err(cause) => {
                line.close();
                Err(cause)
            }
        }
    }

    async fn ask(&mut self, hello: &Pipeline) -> Result<(), Cause> {
        let replies = self.exchange(hello, 0).await?;
        self.server = Arc::new(identity(&replies)?);
        match replies.get(2) {
            Some(Value::Int(id)) => self.id = *id as u64,
            Some(Value::ServerError(error)) => return Err(Cause::of_reply(error)),
            _ => {
                return Err(Cause::Protocol {
                    expected: "the client's number",
                });
            }
        }
        if let Some(Value::ServerError(error)) = replies.get(3) {
            self.nameless = Some(Cause::of_reply(error));
        }
        Ok(())
    }

    /// Sends the commands, `bytes` of payload in them, and returns one answer for each: an error in an
    /// answer is a value here. After an `Err` nothing is known about what has run, or will: `close`.
    pub async fn exchange(&mut self, commands: &Pipeline, bytes: usize) -> Result<Vec<Value>, Cause> {
        let extra = Duration::from_millis(bytes as u64 * 1000 / SLOWEST_NETWORK);
        let limit = self.timeout.saturating_add(extra);
        let exchange = self.connection.send_packed_commands(commands, 0, commands.len());
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(replies)) if replies.len() == commands.len() => Ok(replies),
            Ok(Ok(_)) => Err(Cause::Protocol {
                expected: "one answer to each command",
            }),
            Ok(Err(error)) => Err(Cause::of(&error)),
            Err(_) => Err(Cause::Timeout { after: limit }),
        }
    }

    /// Asks again who the server is.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn identify(&mut self) -> Result<Arc<Server>, Cause> {
        let replies = self.exchange(&identity_questions(), 0).await?;
        identity(&replies).map(Arc::new)
    }

    /// Kills the client with this id; that there is none is as good.
    ///
    /// # Errors
    ///
    /// `Err` means that this connection is lost; `Ok(Some(_))` that Redis refused, and why.
    pub async fn kill(&mut self, id: u64) -> Result<Option<Cause>, Cause> {
        let mut kill = ::redis::pipe();
        kill.cmd("CLIENT").arg("KILL").arg("ID").arg(id);
        let replies = self.exchange(&kill, 0).await?;
        Ok(match replies.first() {
            Some(Value::ServerError(error)) => Some(Cause::of_reply(error)),
            _ => None,
        })
    }

    /// Ids and names of the server's clients, those without a name left out.
    ///
    /// # Errors
    ///
    /// The outer `Err` means that this connection is lost, the inner one that Redis refused that or the
    /// name of this connection, and why: those of an earlier engine have none either then.
    pub async fn clients(&mut self) -> Result<Result<Vec<(u64, String)>, Cause>, Cause> {
        if let Some(cause) = &self.nameless {
            return Ok(Err(cause.clone()));
        }
        let mut list = ::redis::pipe();
        list.cmd("CLIENT").arg("LIST");
        let replies = self.exchange(&list, 0).await?;
        let expected = "text from CLIENT LIST";
        let reply = replies.first().ok_or(Cause::Protocol { expected })?;
        Ok(text(reply, expected).map(|text| text.lines().filter_map(id_and_name).collect()))
    }

    /// Stores or deletes a key of the worker's own.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub async fn note(&mut self, note: &Note) -> Result<Option<Cause>, Cause> {
        let mut command = ::redis::pipe();
        match (&note.value, note.expiry) {
            (None, _) => command.cmd("UNLINK").arg(&note.key),
            (Some(value), Expiry::Never) => command.cmd("SET").arg(&note.key).arg(value),
            (Some(value), Expiry::Milliseconds(time)) => {
                let command = command.cmd("SET").arg(&note.key).arg(value);
                command.arg("PX").arg(time.get())
            }
        };
        let replies = self.exchange(&command, 0).await?;
        Ok(match replies.first() {
            Some(Value::ServerError(error)) => Some(Cause::of_reply(error)),
            _ => None,
        })
    }

    /// Reads and deletes the marker (rule 8). Where Redis refuses both for good (an ACL without that key) none
    /// can have been written, and none is found.
    ///
    /// # Errors
    ///
    /// The marker may still be there: nothing must be written to this server.
    pub async fn take_marker(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        let mut take = ::redis::pipe();
        take.cmd("GET").arg(key).cmd("UNLINK").arg(key);
        let replies = self.exchange(&take, 0).await?;
        if let Some(Value::ServerError(error)) = replies.get(1) {
            return match Verdict::of(error) {
                Verdict::Later(cause) | Verdict::Fatal(cause) => Err(cause),
                _ => Ok(None),
            };
        }
        Ok(match replies.into_iter().next() {
            Some(Value::BulkString(marker)) => Some(marker),
            _ => None,
        })
    }

    /// This connection as another one can kill it.
    pub fn client(&self) -> Client {
        Client {
            run_id: self.server.run_id.clone(),
            id: self.id,
        }
    }

    /// Ends the connection for good: it does not go back to the pool, and its socket is closed with
    /// linger 0.
    pub fn close(self) {
        drop(Connection::take(self.connection));
    }
}

fn identity_questions() -> Pipeline {
    let mut questions = Pipeline::with_capacity(4);
    questions.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    questions
}

fn identity(replies: &[Value]) -> Result<Server, Cause> {
    let [server, replication, ..] = replies else {
        return Err(Cause::Protocol {
            expected: "two answers to INFO",
        });
    };
    let (server, replication) = (info_text(server)?, info_text(replication)?);
    // Valkey without extended-redis-compatibility calls it server_mode (server.c, genValkeyInfoString).
    let mode = info_field(&server, "redis_mode").or_else(|| info_field(&server, "server_mode"));
    if mode == Some("cluster") {
        return Err(Cause::Cluster);
    }
    if info_field(&replication, "role") == Some("slave") {
        return Err(Cause::Replica);
    }
    let required = |text: &str, name, expected| {
        info_field(text, name)
            .map(str::to_owned)
            .ok_or(Cause::Protocol { expected })
    };
    Ok(Server {
        run_id: required(&server, "run_id", "run_id in INFO server")?,
        replication_id: required(&replication, "master_replid", "master_replid in INFO replication")?,
        version: brand_and_version(&server),
    })
}

/// Valkey's `redis_version` is that of the Redis that it stays compatible with (version.h, REDIS_VERSION).
fn brand_and_version(server: &str) -> String {
    [("valkey_version", "Valkey"), ("redis_version", "Redis")]
        .iter()
        .find_map(|(field, brand)| Some(format!("{brand} {}", info_field(server, field)?)))
        .unwrap_or_else(|| "Redis, version unknown".to_owned())
}

fn info_text(reply: &Value) -> Result<String, Cause> {
    text(reply, "text from INFO")
}

fn text(reply: &Value, expected: &'static str) -> Result<String, Cause> {
    match reply {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Value::VerbatimString { text, .. } => Ok(text.clone()),
        Value::ServerError(error) => Err(Cause::of_reply(error)),
        _ => Err(Cause::Protocol { expected }),
    }
}

/// Of a line of CLIENT LIST: `id=3 addr=… name=… …`, in which no value has a space.
fn id_and_name(line: &str) -> Option<(u64, String)> {
    let field = |name| line.split(' ').find_map(|field| field.strip_prefix(name));
    let name = field("name=").filter(|name| !name.is_empty())?;
    Some((field("id=")?.parse().ok()?, name.to_owned()))
}

fn info_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// What the fuzz target `resp` runs: everything that reads answers, on answers made of these bytes.
#[cfg(fuzzing)]
pub fn read_answers(mut bytes: &[u8]) {
    let (mut parser, mut replies) = (::redis::Parser::new(), Vec::new());
    while replies.len() < 8
        && let Ok(reply) = parser.parse_value(&mut bytes)
    {
        replies.push(reply);
    }
    for reply in &replies {
        if let Ok(text) = text(reply, "text") {
            text.lines().filter_map(id_and_name).for_each(drop);
        }
        if let Value::ServerError(error) = reply {
            let verdict = super::reply::Verdict::of(error);
            assert!(!format!("{verdict:?}{}", Cause::of_reply(error)).is_empty());
        }
    }
    // Whether it is a server's identity or not is no matter here.
    let _ = identity(&replies);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(server: &str, replication: &str) -> Result<Server, Cause> {
        identity(&[server, replication].map(|text| Value::BulkString(text.as_bytes().to_vec())))
    }

    #[test]
    fn a_client_is_told_by_its_id_and_name() {
        let line = "id=12 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name=a/1:lane-0 age=0 lib-name=a";
        assert_eq!(id_and_name(line), Some((12, "a/1:lane-0".to_owned())));
        assert_eq!(id_and_name("id=12 addr=127.0.0.1:1 name= age=0"), None);
        assert_eq!(id_and_name(""), None);
    }

    #[test]
    fn a_server_tells_its_brand() {
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n";
        assert_eq!(brand_and_version(valkey), "Valkey 9.1.2");
        assert_eq!(brand_and_version("redis_version:6.2.14\r\n"), "Redis 6.2.14");
        assert_eq!(brand_and_version("run_id:abc\r\n"), "Redis, version unknown");
    }

    #[test]
    fn only_a_standalone_master_is_taken() {
        let server = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n";
        let master = "# Replication\r\nrole:master\r\nmaster_replid:def\r\n";
        let expected = Server {
            run_id: "abc".into(),
            replication_id: "def".into(),
            version: "Redis 7.0.15".into(),
        };
        assert_eq!(info(server, master), Ok(expected));
        assert_eq!(
            info(server, "role:slave\r\nmaster_replid:def\r\n"),
            Err(Cause::Replica)
        );
        for name in ["redis_mode", "server_mode"] {
            let cluster = format!("{name}:cluster\r\nrun_id:abc\r\n");
            assert_eq!(info(&cluster, master), Err(Cause::Cluster));
        }
        assert_eq!(
            info("", master),
            Err(Cause::Protocol {
                expected: "run_id in INFO server"
            })
        );
    }
}
