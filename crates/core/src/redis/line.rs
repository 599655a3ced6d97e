//! A connection out of the pool, with what is known about its other end.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::{Pipeline, Value};
use deadpool_redis::Connection;
use tokio::time::timeout_at;

use super::chart::View;
use super::chunk::Expiry;
use super::engine::{Note, Settings};
use super::event::{Client, Server};
use super::fault::Cause;
use super::gauge::Gauge;
use super::pool::Pool;
use super::reply::Verdict;

/// How fast a batch may at least be expected to be sent, in bytes per second: one larger than this has
/// that much longer to be answered than `command_timeout`.
const SLOWEST_NETWORK: u64 = 16 << 20;

mod identity;

use identity::{add_identity_questions, identity};

/// What a line has to find at its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// A master that is part of no cluster.
    Alone,
    /// A master that is part of one.
    Cluster,
    /// Any node of a cluster: it is only asked for the others.
    AnyNode,
}

/// A live connection.
pub(super) struct Line {
    connection: Connection,
    pub server: Arc<Server>,
    /// What Redis calls this connection.
    pub id: u64,
    /// Why Redis does not know it by its name.
    nameless: Option<Cause>,
    topology: Topology,
    /// When it was opened.
    pub since: Instant,
    /// By how many parts in 8192 of its lifetime it ends earlier.
    haste: u32,
    gauge: Rc<Gauge>,
    timeout: Duration,
}

impl Line {
    /// Takes a connection out of the pool, names it, and asks the server who it is.
    ///
    /// # Errors
    ///
    /// No connection within `connect_timeout`, credentials or a question refused, or a server that is
    /// not the master that `topology` asks for. Finding out more of a failure may take as long once more.
    pub async fn open(
        pool: &Pool,
        settings: &Settings,
        name: &str,
        topology: Topology,
        gauge: &Rc<Gauge>,
    ) -> Result<Self, Cause> {
        match Self::introduced(pool, settings, name, topology, gauge).await {
            Err(cause) => Err(pool.diagnose(cause).await),
            line => line,
        }
    }

    async fn introduced(
        pool: &Pool,
        settings: &Settings,
        name: &str,
        topology: Topology,
        gauge: &Rc<Gauge>,
    ) -> Result<Self, Cause> {
        let limit = settings.connect_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let connection = pool.take().await?;
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
            topology,
            since: Instant::now(),
            haste: (RandomState::new().hash_one(name) % 1024) as u32,
            gauge: gauge.clone(),
            timeout: settings.connect_timeout,
        };
        let introduced = match timeout_at(deadline, line.introduce(settings, name)).await {
            Ok(introduced) => introduced,
            Err(_) => Err(Cause::Timeout { after: limit }),
        };
        match introduced {
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

    /// Says who we are, and asks who the server is.
    async fn introduce(&mut self, settings: &Settings, name: &str) -> Result<(), Cause> {
        let mut hello = Pipeline::with_capacity(8);
        let greeting = settings.address.greeting(settings.password.as_ref());
        let greeted = greeting.len();
        for command in greeting {
            hello.add_command(command);
        }
        add_identity_questions(&mut hello);
        hello.cmd("CLIENT").arg("ID");
        hello.cmd("CLIENT").arg("SETNAME").arg(name);
        // Redis before 7.2 does not know them, and what they answer is no matter.
        for (what, text) in [
            ("LIB-NAME", env!("CARGO_PKG_NAME")),
            ("LIB-VER", env!("CARGO_PKG_VERSION")),
        ] {
            hello.cmd("CLIENT").arg("SETINFO").arg(what).arg(text);
        }
        let replies = self.exchange(&hello, 0).await?;
        let (greeting, replies) = replies.split_at(greeted);
        for reply in greeting {
            if let Value::ServerError(error) = reply {
                return Err(Cause::of_reply(error));
            }
        }
        self.server = Arc::new(identity(replies, self.topology)?);
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
        self.gauge.sending(commands.len());
        let start = Instant::now();
        let exchange = self.connection.send_packed_commands(commands, 0, commands.len());
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(replies)) if replies.len() == commands.len() => {
                self.gauge.answered(start.elapsed());
                Ok(replies)
            }
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
        let mut questions = Pipeline::with_capacity(2);
        add_identity_questions(&mut questions);
        let replies = self.exchange(&questions, 0).await?;
        identity(&replies, self.topology).map(Arc::new)
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

    /// Stores or deletes a key of the worker's own. With `asking` the key's slot may be on its way here.
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub async fn note(&mut self, note: &Note, asking: bool) -> Result<Option<Cause>, Cause> {
        let mut command = ::redis::pipe();
        if asking {
            command.cmd("ASKING");
        }
        match (&note.value, note.expiry) {
            (None, _) => command.cmd("UNLINK").arg(&note.key),
            (Some(value), Expiry::Never) => command.cmd("SET").arg(&note.key).arg(value),
            (Some(value), Expiry::Milliseconds(time)) => {
                let command = command.cmd("SET").arg(&note.key).arg(value);
                command.arg("PX").arg(time.get())
            }
        };
        let replies = self.exchange(&command, 0).await?;
        Ok(match replies.last() {
            Some(Value::ServerError(error)) => Some(Cause::of_reply(error)),
            _ => None,
        })
    }

    /// Asks a node of a cluster who it is, and for all that it knows of the cluster; `asked` is its host.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; or it does not tell.
    pub async fn view(&mut self, asked: &str) -> Result<View, Cause> {
        let mut questions = Pipeline::with_capacity(4);
        add_identity_questions(&mut questions);
        questions.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("NODES");
        let replies = self.exchange(&questions, 0).await?;
        self.server = Arc::new(identity(&replies, self.topology)?);
        let [_, _, slots, nodes] = &replies[..] else {
            return Err(Cause::Protocol {
                expected: "four answers",
            });
        };
        if let Value::ServerError(error) = slots {
            return Err(Cause::of_reply(error));
        }
        let nodes = text(nodes, "text from CLUSTER NODES")?;
        View::read(slots, &nodes, asked).ok_or(Cause::Protocol {
            expected: "slots and nodes of a cluster",
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
                Verdict::Redirected { .. } => Err(Cause::of_reply(error)),
                _ => Ok(None),
            };
        }
        Ok(match replies.into_iter().next() {
            Some(Value::BulkString(marker)) => Some(marker),
            _ => None,
        })
    }

    /// What is told of its lane or control.
    pub fn gauge(&self) -> &Rc<Gauge> {
        &self.gauge
    }

    /// When it is to be replaced if it may live so long.
    pub fn ends_at(&self, lifetime: Duration) -> Option<Instant> {
        let haste = lifetime / 8192 * self.haste;
        self.since.checked_add(lifetime - haste)
    }

    /// What it has found.
    pub fn topology(&self) -> Topology {
        self.topology
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
        super::sentinel::read_answer(reply);
        if let Value::ServerError(error) = reply {
            let verdict = super::reply::Verdict::of(error);
            assert!(!format!("{verdict:?}{}", Cause::of_reply(error)).is_empty());
        }
    }
    if let [slots, nodes, ..] = &replies[..]
        && let Ok(nodes) = text(nodes, "text")
    {
        let views: Vec<View> = View::read(slots, &nodes, "asked").into_iter().collect();
        let chart = super::chart::Chart::of(&views);
        let _moves = chart.is_some_and(|chart| super::chart::Chart::go_one_way(&[&chart, &chart, &chart]));
    }
    // Whether it is a server's identity or not is no matter here.
    let _ = identity(&replies, Topology::Alone);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_by_its_id_and_name() {
        let line = "id=12 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name=a/1:lane-0 age=0 lib-name=a";
        assert_eq!(id_and_name(line), Some((12, "a/1:lane-0".to_owned())));
        assert_eq!(id_and_name("id=12 addr=127.0.0.1:1 name= age=0"), None);
        assert_eq!(id_and_name(""), None);
    }
}
