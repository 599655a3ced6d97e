//! Other Redis wrappers, where the server has them: the same statements over the same hashes.
//!
//! A peer's tables have the names of ours, in a schema of its own, so a statement is sent as it is with another
//! search_path. One that a peer cannot do is told in a note with its error.

use postgres::Client;

use crate::load::seconds;
use crate::report::Section;

/// A wrapper that may be installed: its extension, and the statements that make server and tables in the current
/// schema. `{port}` is Redis's port, `{user}` the role.
struct Peer {
    extension: &'static str,
    setup: &'static str,
}

const PEERS: [Peer; 2] = [
    Peer {
        extension: "redis_fdw_rs",
        setup: "
            CREATE FOREIGN DATA WRAPPER peer_rs HANDLER redis_fdw_handler VALIDATOR redis_fdw_validator;
            CREATE SERVER peer_rs FOREIGN DATA WRAPPER peer_rs OPTIONS (host_port '127.0.0.1:{port}');
            CREATE FOREIGN TABLE small (field text, value text) SERVER peer_rs OPTIONS (database '0', table_type 'hash', table_key_prefix 'small');
            CREATE FOREIGN TABLE large (field text, value text) SERVER peer_rs OPTIONS (database '0', table_type 'hash', table_key_prefix 'large');
            CREATE FOREIGN TABLE changed (field text, value text) SERVER peer_rs OPTIONS (database '0', table_type 'hash', table_key_prefix 'changed')",
    },
    Peer {
        extension: "redis_fdw",
        setup: "
            CREATE SERVER peer_c FOREIGN DATA WRAPPER redis_fdw OPTIONS (address '127.0.0.1', port '{port}');
            CREATE USER MAPPING FOR {user} SERVER peer_c;
            CREATE FOREIGN TABLE small (field text, value text) SERVER peer_c OPTIONS (database '0', tabletype 'hash', singleton_key 'small');
            CREATE FOREIGN TABLE large (field text, value text) SERVER peer_c OPTIONS (database '0', tabletype 'hash', singleton_key 'large');
            CREATE FOREIGN TABLE changed (field text, value text) SERVER peer_c OPTIONS (database '0', tabletype 'hash', singleton_key 'changed')",
    },
];

/// A statement that both sides carry out.
pub struct Compared {
    pub name: String,
    pub sql: String,
    /// Is carried out before each of them and not measured.
    pub before: String,
}

/// Adds each peer that is installed, statement by statement in turns with ours, which are in schema `public`.
pub fn measure(
    section: &mut Section,
    client: &mut Client,
    port: u16,
    rounds: usize,
    statements: &[Compared],
) {
    for peer in PEERS {
        let known = "SELECT FROM pg_available_extensions WHERE name = $1";
        let installed = client.query(known, &[&peer.extension]).expect("a catalog");
        if installed.is_empty() {
            section.note(format!("{} is not installed.", peer.extension));
            continue;
        }
        let made = client
            .query_one("SELECT current_user::text", &[])
            .and_then(|row| client.batch_execute(&peer.setup(port, row.get(0))));
        if let Err(error) = made {
            section.note(format!("{}: {}", peer.extension, told(&error)));
            continue;
        }
        for statement in statements {
            match peer.in_turns(client, rounds, statement) {
                Ok([ours, theirs]) => peer.report(section, &statement.name, ours, theirs),
                Err(error) => {
                    section.note(format!(
                        "{}, {}: {}",
                        peer.extension,
                        statement.name,
                        told(&error)
                    ));
                }
            }
        }
    }
}

impl Peer {
    fn setup(&self, port: u16, user: String) -> String {
        let Self { extension, setup } = self;
        let setup = setup
            .replace("{port}", &port.to_string())
            .replace("{user}", &format!("\"{user}\""));
        format!(
            "CREATE SCHEMA {extension}; SET search_path = {extension}, public; CREATE EXTENSION {extension}; \
             {setup}; SET search_path = public"
        )
    }

    /// Once more than asked for: the first time does not count. In milliseconds.
    fn in_turns(
        &self,
        client: &mut Client,
        rounds: usize,
        statement: &Compared,
    ) -> Result<[Vec<f64>; 2], postgres::Error> {
        let peer = format!("{}, public", self.extension);
        let mut found: [Vec<f64>; 2] = Default::default();
        for round in 0..=rounds {
            for (found, path) in found.iter_mut().zip(["public", &peer]) {
                client.batch_execute(&format!("SET search_path = public; {}", statement.before))?;
                client.batch_execute(&format!("SET search_path = {path}"))?;
                let mut result = Ok(());
                let time = seconds(|| result = client.batch_execute(&statement.sql));
                client.batch_execute("SET search_path = public")?;
                result?;
                if round > 0 {
                    found.push(1e3 * time);
                }
            }
        }
        Ok(found)
    }

    fn report(&self, section: &mut Section, name: &str, ours: Vec<f64>, theirs: Vec<f64>) {
        let ours = section.case(format!("{name}, beside {}", self.extension), "ms", ours);
        let theirs = section.case(format!("{name}: {}", self.extension), "ms", theirs);
        section.ratio(format!("{name} / {}", self.extension), ours, theirs, None);
    }
}

fn told(error: &postgres::Error) -> String {
    let db = error.as_db_error().map(|error| error.message().to_owned());
    db.unwrap_or_else(|| error.to_string())
}
