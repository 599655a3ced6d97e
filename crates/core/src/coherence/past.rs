//! The past: rule 8. Whether what Redis holds is known to be right when the server starts.
//!
//! At a clean stop the worker writes the same document to two places: a marker in Redis, and a file in the data
//! directory. It names the server and its history (system identifier, timeline, next transaction id), the Redis
//! process and its data set, and each mapping that was active; a random text makes it unlike any other. At the
//! next start two questions are asked, each of what only one side can know:
//!
//! 1. [`Past::check_stop`], before any backend runs: is the file's document that of the very stop that pg_control
//!    tells of? Every change of a row takes a transaction id, so with the same next id on the same timeline no row
//!    has changed since. A crash, a run without the library, an older or a newer data directory, a promotion, a
//!    late commit of a walsender: each differs.
//! 2. [`Past::check_redis`], when Redis is reached: is the marker there the same document, in the Redis process
//!    that was alive all along? The marker is deleted before anything else is written to that Redis, and the file
//!    when the worker starts, so neither serves twice. Two histories that took as many transaction ids (a restored
//!    backup, a copy of the cluster) are told apart by the random text.
//!
//! Not here: whether the server was quiet enough at its stop for a document to be written.

use std::fmt;

use serde_json::{Value, json};

use crate::config::DEFAULT_SERVER;
use crate::encode::key::KeyKind;

/// Raised with each change of what a document says, or of what one that can be read would promise.
const FORMAT: u64 = 2;

/// A mapping that was active at the stop, and so has no key that is not right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastMapping {
    /// Of its definition and database.
    pub fingerprint: u64,
    /// The table's Oid.
    pub relation: u32,
    /// The kinds of its key columns.
    pub kinds: Vec<KeyKind>,
    /// The key template as it prints.
    pub template: String,
    /// The name of the server that has its keys.
    pub server: String,
}

/// A server that had everything at the stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastServer {
    /// What the settings call it.
    pub name: String,
    /// `run_id` of the Redis process.
    pub run_id: String,
    /// `master_replid` of its data set.
    pub replication_id: String,
}

/// What a document says of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// This library's version and the server's: with others values may be encoded otherwise.
    pub versions: String,
    /// Of the cluster.
    pub system_identifier: u64,
    /// Of the WAL.
    pub timeline: u32,
    /// The full id that the next transaction would get.
    pub next_xid: u64,
    /// Random: no two stops have the same.
    pub nonce: String,
    /// The servers, each of which has a marker.
    pub servers: Vec<PastServer>,
    /// The active mappings of these servers.
    pub mappings: Vec<PastMapping>,
}

/// What pg_control tells before the server has changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// DB_SHUTDOWNED, and no sign that the start is to recover anything.
    pub clean: bool,
    /// Of the cluster.
    pub system_identifier: u64,
    /// Of the last checkpoint.
    pub timeline: u32,
    /// Of the last checkpoint.
    pub next_xid: u64,
}

/// Why what Redis holds is not known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The document cannot be read, or is of another format.
    Unreadable,
    /// Written by other versions.
    Versions,
    /// The server was not shut down, or is to recover.
    NotShutDown,
    /// The document is another cluster's.
    OtherCluster,
    /// The history has branched off.
    Timeline {
        /// In the document.
        then: u32,
        /// In pg_control.
        now: u32,
    },
    /// Transactions have run since.
    Transactions {
        /// In the document.
        then: u64,
        /// In pg_control.
        now: u64,
    },
    /// Redis has no marker.
    NoMarker,
    /// Redis has the marker of another stop.
    OtherMarker,
    /// Redis was restarted, or its data set is another one.
    OtherRedis,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("the marker cannot be read"),
            Self::Versions => f.write_str("the marker is of another version"),
            Self::NotShutDown => f.write_str("the server had not been shut down"),
            Self::OtherCluster => f.write_str("the marker is of another cluster"),
            Self::Timeline { then, now } => {
                write!(f, "the marker is of timeline {then}, this is timeline {now}")
            }
            Self::Transactions { then, now } => write!(
                f,
                "the next transaction was {then} when the marker was written and is {now}"
            ),
            Self::NoMarker => f.write_str("Redis has no marker"),
            Self::OtherMarker => f.write_str("Redis has the marker of another stop"),
            Self::OtherRedis => f.write_str("Redis has been restarted or has other data"),
        }
    }
}

impl std::error::Error for Unknown {}

impl Past {
    /// The document, as it is in the data directory.
    pub fn to_document(&self) -> String {
        self.to_json().to_string()
    }

    /// The marker of a server: the document, and whose it is. Two names may change places.
    pub fn to_marker(&self, server: &str) -> String {
        let mut marker = self.to_json();
        marker["marker_of"] = json!(server);
        marker.to_string()
    }

    fn to_json(&self) -> Value {
        let servers: Vec<Value> = self.servers.iter().map(server_to_json).collect();
        let mappings: Vec<Value> = self.mappings.iter().map(mapping_to_json).collect();
        json!({
            "format": FORMAT,
            "versions": self.versions,
            "system_identifier": self.system_identifier,
            "timeline": self.timeline,
            "next_xid": self.next_xid,
            "nonce": self.nonce,
            "servers": servers,
            "mappings": mappings,
        })
    }

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`Unknown::Unreadable`].
    pub fn from_document(document: &[u8]) -> Result<Self, Unknown> {
        let document: Value = serde_json::from_slice(document).map_err(|_| Unknown::Unreadable)?;
        if document["format"].as_u64() != Some(FORMAT) {
            return Err(Unknown::Unreadable);
        }
        let list = |name: &str| document[name].as_array().ok_or(Unknown::Unreadable);
        let (servers, mappings) = (list("servers")?, list("mappings")?);
        Ok(Self {
            versions: text(&document["versions"])?,
            system_identifier: number(&document["system_identifier"])?,
            timeline: number(&document["timeline"])?,
            next_xid: number(&document["next_xid"])?,
            nonce: text(&document["nonce"])?,
            servers: servers.iter().map(server_from_json).collect::<Result<_, _>>()?,
            mappings: mappings.iter().map(mapping_from_json).collect::<Result<_, _>>()?,
        })
    }

    /// Whether no row can have changed between the stop that the document tells of and now. `versions` are those
    /// that run now.
    ///
    /// # Errors
    ///
    /// Why one can have.
    pub fn check_stop(&self, stop: &Stop, versions: &str) -> Result<(), Unknown> {
        if !stop.clean {
            return Err(Unknown::NotShutDown);
        }
        if self.versions != versions {
            return Err(Unknown::Versions);
        }
        if self.system_identifier != stop.system_identifier {
            return Err(Unknown::OtherCluster);
        }
        if self.timeline != stop.timeline {
            return Err(Unknown::Timeline {
                then: self.timeline,
                now: stop.timeline,
            });
        }
        if self.next_xid != stop.next_xid {
            return Err(Unknown::Transactions {
                then: self.next_xid,
                now: stop.next_xid,
            });
        }
        Ok(())
    }

    /// Whether nobody can have written to a server since, this document's PostgreSQL apart. `now` is the server that
    /// answers by that name, and `marker` what was found there.
    ///
    /// # Errors
    ///
    /// Why somebody can have.
    pub fn check_redis(&self, marker: Option<&[u8]>, now: &PastServer) -> Result<(), Unknown> {
        let marker = marker.ok_or(Unknown::NoMarker)?;
        if marker != self.to_marker(&now.name).as_bytes() {
            return Err(Unknown::OtherMarker);
        }
        if !self.servers.contains(now) {
            return Err(Unknown::OtherRedis);
        }
        Ok(())
    }
}

fn server_to_json(server: &PastServer) -> Value {
    json!({
        "name": server.name,
        "run_id": server.run_id,
        "replication_id": server.replication_id,
    })
}

fn server_from_json(server: &Value) -> Result<PastServer, Unknown> {
    Ok(PastServer {
        name: text(&server["name"])?,
        run_id: text(&server["run_id"])?,
        replication_id: text(&server["replication_id"])?,
    })
}

pub(super) fn mapping_to_json(mapping: &PastMapping) -> Value {
    let kinds: Vec<&str> = mapping.kinds.iter().map(|kind| kind_name(*kind)).collect();
    json!({
        "fingerprint": mapping.fingerprint,
        "relation": mapping.relation,
        "kinds": kinds,
        "template": mapping.template,
        "server": mapping.server,
    })
}

pub(super) fn mapping_from_json(mapping: &Value) -> Result<PastMapping, Unknown> {
    let kinds = mapping["kinds"].as_array().ok_or(Unknown::Unreadable)?;
    Ok(PastMapping {
        fingerprint: number(&mapping["fingerprint"])?,
        relation: number(&mapping["relation"])?,
        kinds: kinds.iter().map(kind_from).collect::<Result<_, _>>()?,
        template: text(&mapping["template"])?,
        server: match &mapping["server"] {
            // From when there was one.
            Value::Null => DEFAULT_SERVER.to_owned(),
            name => text(name)?,
        },
    })
}

const KINDS: [KeyKind; 4] = [KeyKind::Int, KeyKind::Uuid, KeyKind::Bool, KeyKind::Text];

fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Int => "int",
        KeyKind::Uuid => "uuid",
        KeyKind::Bool => "bool",
        KeyKind::Text => "text",
    }
}

fn kind_from(name: &Value) -> Result<KeyKind, Unknown> {
    let found = KINDS
        .into_iter()
        .find(|kind| name.as_str() == Some(kind_name(*kind)));
    found.ok_or(Unknown::Unreadable)
}

fn text(value: &Value) -> Result<String, Unknown> {
    value.as_str().map(str::to_owned).ok_or(Unknown::Unreadable)
}

fn number<N: TryFrom<u64>>(value: &Value) -> Result<N, Unknown> {
    let number = value.as_u64().ok_or(Unknown::Unreadable)?;
    N::try_from(number).map_err(|_| Unknown::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past() -> Past {
        Past {
            versions: "0.1.0 on 150008".into(),
            system_identifier: 7_438_901_234_567_890_123,
            timeline: 3,
            next_xid: (1 << 32) + 740,
            nonce: "00ff".into(),
            servers: vec![server("default", "run", "repl"), server("b", "run-b", "repl-b")],
            mappings: vec![PastMapping {
                fingerprint: u64::MAX,
                relation: u32::MAX,
                kinds: KINDS.to_vec(),
                template: "'it''s {id}'".into(),
                server: "b".into(),
            }],
        }
    }

    fn server(name: &str, run_id: &str, replication_id: &str) -> PastServer {
        PastServer {
            name: name.into(),
            run_id: run_id.into(),
            replication_id: replication_id.into(),
        }
    }

    fn stop() -> Stop {
        Stop {
            clean: true,
            system_identifier: past().system_identifier,
            timeline: 3,
            next_xid: past().next_xid,
        }
    }

    fn check(stop: Stop) -> Result<(), Unknown> {
        past().check_stop(&stop, &past().versions)
    }

    #[test]
    fn a_document_says_what_was_put_into_it() {
        assert_eq!(Past::from_document(past().to_document().as_bytes()), Ok(past()));
        let none = Past {
            mappings: Vec::new(),
            ..past()
        };
        assert_eq!(Past::from_document(none.to_document().as_bytes()), Ok(none));
    }

    #[test]
    fn what_is_no_document_is_not_read() {
        let document = past().to_document();
        let mangled = [
            String::new(),
            "[]".into(),
            document[..document.len() - 1].to_owned(),
            document.replace("\"format\":2", "\"format\":1"),
            document.replace("\"timeline\":3", "\"timeline\":4294967296"),
            document.replace("\"timeline\":3", "\"timeline\":-3"),
            document.replace("\"uuid\"", "\"guid\""),
            document.replace("\"nonce\"", "\"once\""),
        ];
        for mangled in mangled {
            assert_ne!(mangled, document);
            assert_eq!(
                Past::from_document(mangled.as_bytes()),
                Err(Unknown::Unreadable),
                "{mangled}"
            );
        }
    }

    #[test]
    fn only_the_very_stop_is_believed() {
        assert_eq!(check(stop()), Ok(()));
        let crashed = Stop {
            clean: false,
            ..stop()
        };
        assert_eq!(check(crashed), Err(Unknown::NotShutDown));
        let promoted = Stop {
            timeline: 4,
            ..stop()
        };
        assert_eq!(check(promoted), Err(Unknown::Timeline { then: 3, now: 4 }));
        let other = Stop {
            system_identifier: 1,
            ..stop()
        };
        assert_eq!(check(other), Err(Unknown::OtherCluster));
        for next_xid in [past().next_xid - 1, past().next_xid + 1, 740] {
            let then = past().next_xid;
            let moved = Stop { next_xid, ..stop() };
            assert_eq!(check(moved), Err(Unknown::Transactions { then, now: next_xid }));
        }
        assert_eq!(past().check_stop(&stop(), "0.2.0"), Err(Unknown::Versions));
    }

    #[test]
    fn only_the_same_redis_with_the_same_document_is_believed() {
        let past = past();
        let now = server("default", "run", "repl");
        let document = past.to_marker("default");
        let found = Some(document.as_bytes());
        assert_eq!(past.check_redis(found, &now), Ok(()));
        assert_eq!(past.check_redis(None, &now), Err(Unknown::NoMarker));
        for other in [
            server("default", "other", "repl"),
            server("default", "run", "other"),
        ] {
            assert_eq!(past.check_redis(found, &other), Err(Unknown::OtherRedis));
        }
        // As many transactions, but another history.
        let twin = Past {
            nonce: "00fe".into(),
            ..past.clone()
        };
        assert_eq!(
            past.check_redis(Some(twin.to_marker("default").as_bytes()), &now),
            Err(Unknown::OtherMarker)
        );
    }

    #[test]
    fn each_server_is_believed_by_its_own_name_alone() {
        let past = past();
        let marker = past.to_marker("b");
        let found = Some(marker.as_bytes());
        assert_eq!(past.check_redis(found, &server("b", "run-b", "repl-b")), Ok(()));
        // The two names lead to two databases of one process, and have changed places.
        assert_eq!(
            past.check_redis(found, &server("default", "run-b", "repl-b")),
            Err(Unknown::OtherMarker)
        );
        // One that was away at the stop.
        let marker = past.to_marker("c");
        assert_eq!(
            past.check_redis(Some(marker.as_bytes()), &server("c", "run", "repl")),
            Err(Unknown::OtherRedis)
        );
    }
}
