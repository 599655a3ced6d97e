//! A Redis Cluster of a test's own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::eventually;
use std::time::Duration;

/// How long a node is away before the others hold an election, in milliseconds.
const NODE_TIMEOUT: &str = "1500";

/// Nodes on 127.0.0.1, in folders of their own; all go with it.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub port: u16,
    /// Where the nodes talk, unless the version knows no other port for that than its own and 10,000.
    bus: Option<u16>,
    /// What it tells the others its port is, where something stands in front of it.
    announced: Option<u16>,
    folder: PathBuf,
    process: Child,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The program; the same variable as that of tests/src/redisserver.rs.
fn program() -> OsString {
    std::env::var_os("PG_REDIS_CACHE_REDIS").unwrap_or_else(|| "redis-server".into())
}

/// Whether it is Redis 6.2, which knows no `cluster-port`.
fn has_fixed_bus() -> bool {
    let printed = Command::new(program()).arg("--version").output();
    String::from_utf8_lossy(&printed.unwrap().stdout).contains(" v=6.")
}

/// A port for a node's commands whose bus is free as well.
pub fn node_port() -> u16 {
    let is_free = |port: &u16| {
        let bus = port.checked_add(10_000);
        !has_fixed_bus() || bus.is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok())
    };
    let mut ports = std::iter::repeat_with(free_port);
    ports.find(is_free).unwrap()
}

impl Node {
    fn start(announced: Option<u16>, port: u16) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("redis-cluster-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let bus = (!has_fixed_bus()).then(free_port);
        let process = Self::spawn(&folder, port, bus, announced);
        let node = Self {
            port,
            bus,
            announced,
            folder,
            process,
        };
        node.wait_until_it_answers();
        node
    }

    fn spawn(folder: &PathBuf, port: u16, bus: Option<u16>, announced: Option<u16>) -> Child {
        let program = program();
        let mut command = Command::new(&program);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT])
            .args(["--cluster-config-file", "nodes.conf", "--dir"])
            .arg(folder)
            .args(["--cluster-announce-ip", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(bus) = bus {
            command.args(["--cluster-port", &bus.to_string()]);
        }
        if let Some(port) = announced {
            command.args(["--cluster-announce-port", &port.to_string()]);
        }
        command
            .spawn()
            .unwrap_or_else(|e| panic!("{program:?} cannot be run: {e}"))
    }

    fn wait_until_it_answers(&self) {
        eventually("the node answers", || self.try_client().is_some());
    }

    fn try_client(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).ok()?;
        // A frozen one takes connections and says nothing.
        client.get_connection_with_timeout(Duration::from_secs(1)).ok()
    }

    pub fn client(&self) -> redis::Connection {
        self.try_client().unwrap()
    }

    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        let client = self.try_client();
        command
            .arg(&words[1..])
            .query(&mut client.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected))?)
    }

    pub fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"]).unwrap()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after `kill`.
    pub fn restart(&mut self) {
        self.process = Self::spawn(&self.folder, self.port, self.bus, self.announced);
        self.wait_until_it_answers();
    }

    /// Stops the process's clock; `thaw` lets it go on as if nothing had been.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let status = kill.args([signal, &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Cluster {
    /// So many masters, with a replica each if `replicated`.
    pub fn start(masters: usize, replicated: bool) -> Self {
        let nodes = (0..masters * (1 + usize::from(replicated))).map(|_| Node::start(None, node_port()));
        Self::of(nodes.collect(), replicated)
    }

    /// Masters that tell the others, and their clients, another port than their own: the second of each pair.
    pub fn announcing(ports: &[(u16, u16)]) -> Self {
        let nodes = ports
            .iter()
            .map(|(own, announced)| Node::start(Some(*announced), *own));
        Self::of(nodes.collect(), false)
    }

    fn of(nodes: Vec<Node>, replicated: bool) -> Self {
        let cluster = Self { nodes };
        let places: Vec<String> = cluster
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let mut args = vec!["create"];
        args.extend(places.iter().map(String::as_str));
        args.extend([
            "--cluster-replicas",
            if replicated { "1" } else { "0" },
            "--cluster-yes",
        ]);
        cli(&args);
        cluster.await_ok();
        cluster
    }

    /// Starts a node and makes it a master without slots.
    pub fn join(&mut self) {
        let known = format!("127.0.0.1:{}", self.nodes[0].port);
        let node = Node::start(None, node_port());
        cli(&["add-node", &format!("127.0.0.1:{}", node.port), &known]);
        self.nodes.push(node);
        self.await_ok();
    }

    /// Waits until every node that runs finds the cluster whole, and knows all others: who has just been met by one is not
    /// known to the rest yet.
    pub fn await_ok(&self) {
        eventually("a cluster in state ok", || {
            let mut running: Vec<_> = self.nodes.iter().filter_map(Node::try_client).collect();
            let ids: Vec<String> = running
                .iter_mut()
                .map(|node| said(node, &["CLUSTER", "MYID"]))
                .collect();
            running.iter_mut().all(|node| is_ok(node, &ids))
        });
    }

    pub fn url(&self) -> String {
        let places: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis-cluster://{}", places.join(","))
    }

    /// Moves the slot of a key, with that key, from one node to another, as `redis-cli` does.
    pub fn move_slot_of(&self, key: &str, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let slot: i64 = from.ask(&["CLUSTER", "KEYSLOT", key]).unwrap();
        let (slot, port) = (slot.to_string(), to.port.to_string());
        let done = |node: &Node, words: &[&str]| {
            let _: redis::Value = node.ask(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        };
        done(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id()]);
        done(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id()]);
        done(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        for node in [to, from] {
            done(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to.id()]);
        }
    }

    /// Moves so many slots from one node to another, key by key.
    pub fn reshard(&self, from: usize, to: usize, slots: usize) {
        let (from, to) = (self.nodes[from].id(), self.nodes[to].id());
        let known = format!("127.0.0.1:{}", self.nodes[0].port);
        cli(&[
            "reshard",
            &known,
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ]);
    }

    /// Has one node hand slots over to another in one step, if its version can (`CLUSTER MIGRATESLOTS`, Valkey 9.0), and
    /// waits until it has. Says whether it can.
    pub fn migrate(&self, from: usize, to: usize, slots: RangeInclusive<u16>) -> bool {
        let (first, last, to) = (
            slots.start().to_string(),
            slots.end().to_string(),
            self.nodes[to].id(),
        );
        let migrate = [
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            &first,
            &last,
            "NODE",
            &to,
        ];
        // While it forks for another one it may not answer.
        self.nodes[from].wait_until_it_answers();
        match self.nodes[from].ask::<()>(&migrate) {
            Err(error) if error.to_string().contains("nknown subcommand") => return false,
            begun => begun.unwrap(),
        }
        eventually("slots to be handed over", || {
            let jobs = self.nodes[from].ask::<redis::Value>(&["CLUSTER", "GETSLOTMIGRATIONS"]);
            let jobs = jobs.map(|jobs| format!("{jobs:?}")).unwrap_or_default();
            assert!(!jobs.contains("\"failed\""), "{jobs}");
            // The last one is told first.
            let state = jobs
                .split("\"state\"")
                .nth(1)
                .and_then(|rest| rest.split('"').nth(1));
            state == Some("success")
        });
        true
    }

    /// The number of the node that answers for a key.
    pub fn master_of(&self, key: &str) -> usize {
        let answers = |node: &Node| node.ask::<i64>(&["EXISTS", key]).is_ok();
        let found = self.nodes.iter().position(answers);
        found.unwrap_or_else(|| panic!("no master of {key}"))
    }

    /// What the master of a key answers to a command.
    pub fn ask<T: redis::FromRedisValue>(&self, key: &str, words: &[&str]) -> T {
        let mut found = None;
        eventually("a master that answers", || {
            found = self.nodes.iter().find_map(|node| {
                let mut client = node.try_client()?;
                redis::cmd(words[0]).arg(&words[1..]).query::<T>(&mut client).ok()
            });
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no master of {key}"))
    }

    /// All strings that masters hold, by key.
    pub fn strings(&self) -> HashMap<String, String> {
        let mut all = HashMap::new();
        for node in &self.nodes {
            let Some(mut client) = node.try_client() else {
                continue;
            };
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
            for key in keys {
                if let Ok(Some(value)) = redis::cmd("GET").arg(&key).query::<Option<String>>(&mut client) {
                    all.insert(key, value);
                }
            }
        }
        all
    }
}

/// What a node answers; nothing if it does not.
fn said(node: &mut redis::Connection, words: &[&str]) -> String {
    let answer = redis::cmd(words[0]).arg(&words[1..]).query(node);
    answer.unwrap_or_default()
}

/// Whether a node finds the cluster whole and knows all of these.
fn is_ok(node: &mut redis::Connection, ids: &[String]) -> bool {
    let info = said(node, &["CLUSTER", "INFO"]);
    let known = said(node, &["CLUSTER", "NODES"]);
    info.contains("cluster_state:ok")
        && info.contains("cluster_slots_ok:16384")
        && ids.iter().all(|id| !id.is_empty() && known.contains(id))
        && said(node, &["INFO", "replication"])
            .lines()
            .all(|line| line != "master_link_status:down")
}

fn cli(args: &[&str]) {
    let output = Command::new("redis-cli")
        .arg("--cluster")
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("redis-cli can be run");
    assert!(
        output.status.success(),
        "redis-cli --cluster {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
