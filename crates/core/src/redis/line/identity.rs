//! Which server it is, by what its INFO says.

use ::redis::{Pipeline, Value};

use super::super::event::Server;
use super::super::fault::Cause;
use super::{Topology, text};

pub(super) fn add_identity_questions(questions: &mut Pipeline) {
    questions.cmd("INFO").arg("server").cmd("INFO").arg("replication");
}

/// The two questions' answers come first.
///
/// # Errors
///
/// They are none, or not those of what `topology` asks for.
pub(super) fn identity(replies: &[Value], topology: Topology) -> Result<Server, Cause> {
    let [server, replication, ..] = replies else {
        return Err(Cause::Protocol {
            expected: "two answers to INFO",
        });
    };
    let (server, replication) = (info_text(server)?, info_text(replication)?);
    // Valkey without extended-redis-compatibility calls it server_mode (server.c, genValkeyInfoString).
    let mode = info_field(&server, "redis_mode").or_else(|| info_field(&server, "server_mode"));
    match (topology, mode == Some("cluster")) {
        (Topology::Alone, true) => return Err(Cause::Cluster),
        (Topology::Cluster | Topology::AnyNode, false) => return Err(Cause::NotCluster),
        _ => {}
    }
    if topology != Topology::AnyNode && info_field(&replication, "role") == Some("slave") {
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

fn info_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info_of(server: &str, replication: &str, topology: Topology) -> Result<Server, Cause> {
        let replies = [server, replication].map(|text| Value::BulkString(text.as_bytes().to_vec()));
        identity(&replies, topology)
    }

    fn info(server: &str, replication: &str) -> Result<Server, Cause> {
        info_of(server, replication, Topology::Alone)
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
