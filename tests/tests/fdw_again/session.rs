//! A session on a world of its own, in which the pieces of a topic are run one after the other.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};

use pg_redis_cache_tests::{Postgres, World, topic_environment, topic_world};
use postgres::{Client, NoTls};

use crate::answer::Answer;
use crate::script::{Piece, Statement};

/// A message that is no error: its severity and text.
pub type Notice = (String, String);

pub struct Session {
    world: World,
    client: Client,
    /// A second session in the same database, to look up what concerns a statement.
    observer: Client,
    notices: Arc<Mutex<Vec<Notice>>>,
    options: &'static str,
    database: String,
    /// Whether the topic has begun a transaction that has not ended yet.
    in_transaction: bool,
    /// Whether the last statement was refused.
    has_failed: bool,
}

impl Session {
    /// A world for that topic, and a session in it that is connected with `options`.
    pub fn new(topic: &str, options: &'static str) -> Session {
        let world = topic_world(topic);
        let (database, notices) = (world.database().to_owned(), Arc::default());
        let client = connect(&world, &database, options, &notices);
        let observer = world.postgres.connect_to(&database);
        Session {
            client,
            observer,
            world,
            notices,
            options,
            database,
            in_transaction: false,
            has_failed: false,
        }
    }

    /// What psql would do with it, but for how it prints.
    pub fn run(&mut self, piece: &Piece) -> Answer {
        match piece {
            Piece::Sql(statement) if is_copy_out(statement) => self.copy_out(&statement.text),
            Piece::Sql(statement) => self.send(statement),
            Piece::CopyIn(sql, rows) => self.copy_in(sql, rows),
            Piece::Shell(command) => self.shell(command),
            Piece::Connect(database) => self.reconnect(database.as_deref()),
        }
    }

    /// Sends a text as it is.
    pub fn query(&mut self, sql: &str) -> Answer {
        let answer = Answer::of(self.client.simple_query(sql));
        self.has_failed = answer.is_refused();
        answer
    }

    fn send(&mut self, statement: &Statement) -> Answer {
        let answer = self.query(&statement.text);
        let words: Vec<String> = statement.words().take(2).collect();
        match (words[0].as_str(), words.get(1).map(String::as_str)) {
            ("BEGIN" | "START", _) if !answer.is_refused() => self.in_transaction = true,
            ("ROLLBACK", Some("TO")) => {}
            ("COMMIT" | "END" | "ABORT" | "ROLLBACK", _) | ("PREPARE", Some("TRANSACTION")) => {
                self.in_transaction = false;
            }
            _ => {}
        }
        answer
    }

    /// Whether the topic has begun a transaction that has not ended yet.
    pub fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Whether the last statement has brought one to nothing.
    pub fn is_in_failed_transaction(&self) -> bool {
        self.in_transaction && self.has_failed
    }

    /// What the server has told since the last call, but what is of the severity INFO.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices.lock().expect("no thread panics with it"))
    }

    /// The texts of those that are.
    pub fn take_info(&mut self) -> Vec<String> {
        let mut notices = self.notices.lock().expect("no thread panics with it");
        notices
            .extract_if(.., |(severity, _)| severity == "INFO")
            .map(|(_, text)| text)
            .collect()
    }

    /// Whether a statement may be run once more without another result for it: it only reads, and calls no function
    /// that is volatile.
    pub fn is_repeatable(&mut self, statement: &Statement) -> bool {
        let sql = "SELECT FROM pg_proc WHERE proname = ANY ($1) AND provolatile = 'v'";
        let volatile = self.observer.query(sql, &[&statement.called()]);
        volatile.expect("the catalog can be read").is_empty()
    }

    /// The types of a statement's parameters; None if it cannot be prepared so.
    pub fn parameter_types(&mut self, sql: &str) -> Option<Vec<String>> {
        let observer = &mut self.observer;
        observer
            .batch_execute(&format!("PREPARE observed AS {sql}"))
            .ok()?;
        // A variable of the type character would have the length 1.
        let types = "SELECT array_replace(parameter_types::text[], 'character', 'bpchar') FROM pg_prepared_statements WHERE name = 'observed'";
        let types = observer.query_one(types, &[]).expect("it was prepared").get(0);
        observer
            .batch_execute("DEALLOCATE observed")
            .expect("it was prepared");
        Some(types)
    }

    fn reconnect(&mut self, database: Option<&str>) -> Answer {
        if let Some(database) = database {
            self.database = database.to_owned();
            self.observer = self.world.postgres.connect_to(database);
        }
        self.client = connect(&self.world, &self.database, self.options, &self.notices);
        self.in_transaction = false;
        Answer::Done(0)
    }

    fn shell(&self, command: &str) -> Answer {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{{ {command}; }} 2>&1"));
        topic_environment(&mut shell, &self.world);
        shell
            .env("PGHOST", self.world.postgres.socket_dir())
            .env("PGPORT", Postgres::PORT.to_string())
            .env("PGUSER", "postgres");
        let output = shell.output().expect("sh can be run");
        Answer::Printed(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn copy_in(&mut self, sql: &str, rows: &str) -> Answer {
        let copied = self.client.copy_in(sql).and_then(|mut writer| {
            // What is as short as this is kept until the end.
            writer.write_all(rows.as_bytes()).expect("memory takes it");
            writer.finish()
        });
        copied.map_or_else(|error| Answer::refused(&error), Answer::Done)
    }

    fn copy_out(&mut self, sql: &str) -> Answer {
        let mut printed = String::new();
        match self.client.copy_out(sql) {
            Ok(mut reader) => {
                reader
                    .read_to_string(&mut printed)
                    .expect("the topics' COPY TO succeed");
                Answer::Printed(printed)
            }
            Err(error) => Answer::refused(&error),
        }
    }
}

fn is_copy_out(statement: &Statement) -> bool {
    let words: Vec<String> = statement.words().collect();
    words[0] == "COPY" && words.windows(2).any(|pair| pair == ["TO", "STDOUT"])
}

fn connect(world: &World, database: &str, options: &str, notices: &Arc<Mutex<Vec<Notice>>>) -> Client {
    let notices = Arc::clone(notices);
    let mut config = world.postgres.config();
    config
        .dbname(database)
        .options(options)
        .notice_callback(move |notice| {
            let notice = (notice.severity().to_owned(), notice.message().to_owned());
            notices.lock().expect("no thread panics with it").push(notice);
        });
    config.connect(NoTls).expect("the server takes connections")
}
