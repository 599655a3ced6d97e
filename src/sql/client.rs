//! A connection to Redis for one call of a backend. `connect_timeout` and `command_timeout` hold as in the worker.
//!
//! A cluster is reached as foreign tables reach it: each command goes to the master of its key, and a SCAN through all of
//! them; if slots move meanwhile it is an ERROR.
use std::{io::Write, time::Instant};

use pg_redis_cache_core::{
    config::{DEFAULT_SERVER, Format},
    encode::difference::Held,
    fdw::{Commands, Reply},
    redis::{Address, Cause, Kind, Secret, Tls},
};
use pgrx::PgSqlErrorCode;
use redis::{Parser, ServerError, Value};

use super::{raise, sqlstate};
use crate::{
    fdw::{Credentials, Line, Route},
    gucs,
    sentinel::{self, Means},
    socket::{self, Patient, Stream},
    tls::TlsFiles,
    worker,
};

/// See the module.
pub enum Connection {
    One(Box<Single>),
    Cluster(Box<Line>),
}

/// To one server.
pub struct Single {
    stream: Patient,
    parser: Parser,
    address: Address,
    /// Whether anything has been.
    is_answered: bool,
}

impl Connection {
    /// Connects to the server of that name with the settings of the worker, or raises.
    pub fn open(server: &str) -> Self {
        let (address, password) = worker::configured_address(server).unwrap_or_else(|problem| {
            raise(
                PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
                "the address of Redis cannot be used",
                problem,
                match server {
                    DEFAULT_SERVER => "See the settings pg_redis_cache.url and pg_redis_cache.password_file.",
                    _ => "See the settings pg_redis_cache.servers and pg_redis_cache.password_file.",
                },
            )
        });
        let tls = address.is_tls().then(|| TlsFiles::configured().load());
        if let Some(nodes) = address.cluster() {
            let credentials = Credentials { password, tls };
            return Self::Cluster(Box::new(Route::open(nodes, &credentials, Some(true)).line()));
        }
        Self::One(Box::new(Single::open(&address, password.as_ref(), tls.as_ref())))
    }

    /// Sends so many commands, packed.
    fn send(&mut self, bytes: Vec<u8>, count: usize) {
        match self {
            Self::One(single) => {
                single.stream.deadline = Instant::now() + gucs::command_timeout();
                single.send_bytes(&bytes);
            }
            Self::Cluster(line) => line.send(&Commands { bytes, count }),
        }
    }

    fn answer(&mut self) -> Result<Value, ServerError> {
        match self {
            Self::One(single) => {
                single.stream.deadline = Instant::now() + gucs::command_timeout();
                single.answer()
            }
            Self::Cluster(line) => match value(line.receive()) {
                Value::ServerError(error) => Err(error),
                value => Ok(value),
            },
        }
    }

    fn receive(&mut self) -> Value {
        self.answer().unwrap_or_else(|error| refused(&error))
    }

    fn query(&mut self, command: &redis::Cmd) -> Value {
        self.send(command.get_packed_command(), 1);
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
        self.send(pipeline, 2 * keys.len());
        let mut all = Vec::with_capacity(keys.len());
        for _ in keys {
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

impl Single {
    fn open(address: &Address, password: Option<&Secret>, tls: Option<&Tls>) -> Self {
        let connected = sentinel::reach(address, Means { password, tls }, |there| {
            let stream = socket::connect(there, tls, gucs::connect_timeout())?;
            let mut single = Self::greet(stream, there, password);
            Ok((address.service().is_none() || single.is_master()).then_some(single))
        });
        connected.unwrap_or_else(|error| unreachable_redis(address, &Cause::of_io(&error)))
    }

    fn greet(stream: Box<dyn Stream>, address: &Address, password: Option<&Secret>) -> Self {
        let deadline = Instant::now() + gucs::connect_timeout();
        let mut single = Self {
            stream: Patient { stream, deadline },
            parser: Parser::new(),
            address: address.clone(),
            is_answered: false,
        };
        let greeting = socket::greeting(address, password, "sql");
        single.send_bytes(&socket::in_one(&greeting));
        for _ in 1..greeting.len() {
            single.answer().unwrap_or_else(|error| refused(&error));
        }
        if let Err(error) = single.answer()
            && socket::is_turned_away(&Cause::of_reply(&error))
        {
            refused(&error);
        }
        single
    }

    /// As for a foreign table (`fdw::connection`).
    fn is_master(&mut self) -> bool {
        self.send_bytes(&redis::cmd("ROLE").get_packed_command());
        match self.answer() {
            Ok(Value::Array(parts)) => parts.into_iter().next().and_then(bytes) != Some(b"slave".to_vec()),
            _ => true,
        }
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes).and_then(|()| self.stream.flush()) {
            self.fail(Cause::of_io(&error));
        }
    }

    fn answer(&mut self) -> Result<Value, ServerError> {
        let value = self.parser.parse_value(&mut self.stream);
        let value = value.unwrap_or_else(|error| self.fail(Cause::of(&error)));
        self.is_answered = true;
        match value {
            Value::ServerError(error) => Err(error),
            value => Ok(value),
        }
    }

    fn fail(&self, cause: Cause) -> ! {
        let cause = if self.is_answered {
            cause
        } else {
            cause.before_any_answer(&self.address)
        };
        unreachable_redis(&self.address, &cause)
    }
}

/// An answer as the library knows it.
fn value(reply: Reply) -> Value {
    match reply {
        Reply::Nil => Value::Nil,
        Reply::Integer(number) => Value::Int(number),
        Reply::Status(bytes) | Reply::Bulk(bytes) => Value::BulkString(bytes),
        Reply::Array(parts) => Value::Array(parts.into_iter().map(value).collect()),
        // Only the library makes its own errors.
        Reply::Error(text) => {
            redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap_or(Value::Nil)
        }
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
    let cause = Cause::of_reply(error);
    raise(
        sqlstate::of(&cause),
        "Redis refused a command",
        cause.to_string(),
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

fn unreachable_redis(address: &Address, cause: &Cause) -> ! {
    let code = match cause.kind() {
        // No foreign table is concerned.
        Kind::Refused => PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        _ => sqlstate::of(cause),
    };
    raise(
        code,
        format!("Redis at {} cannot be reached", address.masked()),
        cause.to_string(),
        match cause.kind() {
            Kind::Tls => {
                "See redis_cache.servers and the settings pg_redis_cache.url, pg_redis_cache.servers and pg_redis_cache.tls_…."
            }
            _ => "See redis_cache.servers and the settings pg_redis_cache.url and pg_redis_cache.servers.",
        },
    )
}
