//! A Redis Cluster for one test.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::port::Port;
use crate::redisserver::redis_version;
use crate::{Redis, eventually};

const LIMIT: Duration = Duration::from_secs(60);

/// How long a node is away before the others hold an election, in milliseconds.
const NODE_TIMEOUT: &str = "1500";

/// Masters, each with one replica or none, which share the slots; stopped and removed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
    buses: Vec<Port>,
}

impl RedisCluster {
    /// So many masters, with a replica each if `replicated`. Ready when this returns.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn start(masters: usize, replicated: bool) -> RedisCluster {
        let mut cluster = RedisCluster {
            nodes: Vec::new(),
            buses: Vec::new(),
        };
        for _ in 0..masters * (1 + usize::from(replicated)) {
            cluster.add();
        }
        let addresses: Vec<String> = cluster.nodes.iter().map(address).collect();
        let mut args = vec!["--cluster", "create"];
        args.extend(addresses.iter().map(String::as_str));
        args.extend([
            "--cluster-replicas",
            if replicated { "1" } else { "0" },
            "--cluster-yes",
        ]);
        run(&args);
        cluster.await_ok();
        cluster
    }

    /// Starts a node that belongs to no cluster yet.
    fn add(&mut self) -> &Redis {
        let bus = Port::claim();
        let number = bus.number.to_string();
        let mut args = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT,
            "--cluster-config-file",
            "nodes.conf",
        ];
        // Redis 6.2 knows no other port for the bus than its own port and 10,000, which something else may have: it does
        // not start then, and says so.
        if !redis_version().contains(" v=6.") {
            args.extend(["--cluster-port", &number]);
        }
        self.nodes.push(Redis::start_with(&args));
        self.buses.push(bus);
        &self.nodes[self.nodes.len() - 1]
    }

    /// Adds a master without slots.
    pub fn join(&mut self) {
        let known = address(&self.nodes[0]);
        let new = address(self.add());
        run(&["--cluster", "add-node", &new, &known]);
        self.await_ok();
    }

    /// Moves so many slots from one node to another, key by key, while they are in use.
    pub fn reshard(&self, from: usize, to: usize, slots: usize) {
        let (from, to) = (self.id(from), self.id(to));
        run(&[
            "--cluster",
            "reshard",
            &address(&self.nodes[0]),
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ]);
    }

    /// Waits until every node that runs finds the cluster whole.
    pub fn await_ok(&self) {
        eventually("a cluster in state ok", LIMIT, || {
            let is_ok = |node: &Redis| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            };
            let mut running = self.nodes.iter().filter(|node| node.is_running());
            running.all(is_ok).then_some(())
        });
    }

    /// `host:port,host:port`, as the option host_port takes it.
    pub fn host_ports(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(address).collect();
        addresses.join(",")
    }

    /// The number of the node that is the master of a key's slot.
    pub fn master_of(&self, key: &str) -> usize {
        let answers = |node: &Redis| {
            let found = node.cli(&["EXISTS", key]);
            node.is_running() && found.starts_with("(integer)")
        };
        let place = self.nodes.iter().position(answers);
        place.unwrap_or_else(|| panic!("no master of {key}"))
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node]
            .cli(&["CLUSTER", "MYID"])
            .trim_matches('"')
            .to_owned()
    }
}

fn address(node: &Redis) -> String {
    format!("127.0.0.1:{}", node.port())
}

fn run(args: &[&str]) {
    let output = Command::new("redis-cli").args(args).stdin(Stdio::null()).output();
    let output = output.expect("redis-cli can be run");
    assert!(
        output.status.success(),
        "redis-cli {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
