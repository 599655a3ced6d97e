//! A Redis Cluster for one test.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::port::Port;
use crate::redisserver::redis_version;
use crate::{Paper, Proxy, Redis, Secure, attempt, eventually};

mod slots;

const LIMIT: Duration = Duration::from_secs(60);

/// How long a node is away before the others hold an election, in milliseconds.
const NODE_TIMEOUT: &str = "1500";

/// Masters, each with one replica or none, which share the slots; stopped and removed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
    /// What lies before each node, if anything does.
    lines: Option<Vec<Proxy>>,
    buses: Vec<Port>,
    /// Where they listen.
    host: &'static str,
    /// What they are called in the cluster's address.
    name: &'static str,
    /// What redis-cli needs to be told to speak TLS, if the nodes do.
    tls: Vec<String>,
}

impl RedisCluster {
    /// So many masters, with a replica each if `replicated`. Ready when this returns.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn start(masters: usize, replicated: bool) -> RedisCluster {
        RedisCluster::start_with(masters, replicated, &[])
    }

    /// The same with arguments of redis-server for each node.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn start_with(masters: usize, replicated: bool, args: &[&str]) -> RedisCluster {
        let cluster = RedisCluster::of_strangers(masters * (1 + usize::from(replicated)), args);
        cluster.create(replicated);
        cluster
    }

    /// The same, where everybody, the nodes themselves too, reaches a node by a [`Proxy`], but for their gossip and for
    /// the tests' own connections.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn start_proxied(masters: usize, replicated: bool) -> RedisCluster {
        let mut cluster = RedisCluster {
            lines: Some(Vec::new()),
            ..RedisCluster::of_strangers(0, &[])
        };
        for _ in 0..masters * (1 + usize::from(replicated)) {
            cluster.add(&[]);
        }
        cluster.create(replicated);
        cluster
    }

    /// One whose nodes listen at `::1`.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn over_ipv6(masters: usize, replicated: bool) -> RedisCluster {
        let mut cluster =
            RedisCluster::of_strangers(masters * (1 + usize::from(replicated)), &["--bind", "::1"]);
        (cluster.host, cluster.name) = ("::1", "[::1]");
        cluster.create(replicated);
        cluster
    }

    /// One that speaks nothing but TLS, among its nodes too. All of them show the same paper, and want one of whoever
    /// comes; redis-cli shows that of the `client`.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn over_tls(
        (masters, replicated): (usize, bool),
        secure: &Secure,
        [server, client]: [&Paper; 2],
        args: &[&str],
    ) -> RedisCluster {
        let papers = secure.papers(server, "yes");
        let mut all: Vec<&str> = papers.iter().map(String::as_str).collect();
        all.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
        all.extend(args);
        let mut cluster = RedisCluster::of_strangers(masters * (1 + usize::from(replicated)), &all);
        let text = |path: &Path| path.display().to_string();
        let authority = secure.authority.certificate();
        for (name, file) in [
            ("--cacert", &authority),
            ("--cert", &client.certificate),
            ("--key", &client.key),
        ] {
            cluster.tls.extend([name.to_owned(), text(file)]);
        }
        cluster.tls.push("--tls".to_owned());
        cluster.create(replicated);
        cluster
    }

    /// The same cluster with an address that calls its nodes so.
    pub fn called(mut self, name: &'static str) -> RedisCluster {
        self.name = name;
        self
    }

    /// Makes strangers a cluster.
    fn create(&self, replicated: bool) {
        let addresses = self.addresses(self.host);
        let mut args = vec!["create"];
        args.extend(addresses.iter().map(String::as_str));
        args.extend([
            "--cluster-replicas",
            if replicated { "1" } else { "0" },
            "--cluster-yes",
        ]);
        self.manage(&args);
        self.await_ok();
    }

    /// So many nodes with these arguments, none of which knows another yet.
    pub fn of_strangers(count: usize, args: &[&str]) -> RedisCluster {
        let mut cluster = RedisCluster {
            nodes: Vec::new(),
            lines: None,
            buses: Vec::new(),
            host: "127.0.0.1",
            name: "127.0.0.1",
            tls: Vec::new(),
        };
        for _ in 0..count {
            cluster.add(args);
        }
        cluster
    }

    /// Starts a node that belongs to no cluster yet.
    fn add(&mut self, more: &[&str]) {
        let line = self.lines.is_some().then(Port::claim);
        let announced = line.as_ref().map(|port| port.number.to_string());
        let mut args = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            NODE_TIMEOUT,
            "--cluster-config-file",
            "nodes.conf",
            // A replica that has never been in step does not take over.
            "--repl-diskless-sync-delay",
            "0",
        ];
        if let Some(announced) = &announced {
            args.extend(["--cluster-announce-port", announced]);
        }
        // Redis 6.2 knows no other port for the bus than its own port and 10,000.
        let has_fixed_bus = redis_version().contains(" v=6.");
        let [port, bus] = if has_fixed_bus {
            Port::claim_with_bus()
        } else {
            [Port::claim(), Port::claim()]
        };
        let number = bus.number.to_string();
        if !has_fixed_bus {
            args.extend(["--cluster-port", &number]);
        }
        args.extend(more);
        self.buses.push(bus);
        let node = Redis::start_at(port, &args);
        if let (Some(lines), Some(port)) = (&mut self.lines, line) {
            lines.push(Proxy::at(port, &node));
        }
        self.nodes.push(node);
    }

    /// Adds a master without slots.
    pub fn join(&mut self) {
        self.start_stranger();
        self.admit_stranger();
    }

    /// Starts a node that no other one knows yet, behind the others.
    pub fn start_stranger(&mut self) {
        self.add(&[]);
    }

    /// Makes the last node, a stranger until now, a master without slots.
    pub fn admit_stranger(&self) {
        let last = self.nodes.len() - 1;
        let (known, new) = (self.address(self.host, 0), self.address(self.host, last));
        self.manage(&["add-node", &new, &known]);
        self.await_ok();
    }

    /// Takes the last node, which has no slots any more, out of the cluster, and stops it.
    pub fn leave(&mut self) {
        let last = self.nodes.len() - 1;
        self.manage(&["del-node", &self.address(self.host, 0), &self.id(last)]);
        self.nodes.pop();
        self.await_ok();
    }

    /// Waits until every node that runs finds the cluster whole, and knows all others: who has just been met by one is not
    /// known to the rest yet.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn await_ok(&self) {
        eventually("a cluster in state ok", LIMIT, || {
            let running = self.nodes.iter().filter(|node| node.is_running());
            let ids: Vec<String> = running.clone().map(id_of).collect();
            let is_ok = |node: &Redis| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let known = node.cli(&["CLUSTER", "NODES"]);
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && ids.iter().all(|id| !id.is_empty() && known.contains(id))
                    && !node
                        .cli(&["INFO", "replication"])
                        .contains("master_link_status:down")
            };
            running.clone().all(is_ok).then_some(())
        });
    }

    /// `host:port,host:port`, as the option host_port takes it.
    pub fn host_ports(&self) -> String {
        self.addresses(self.name).join(",")
    }

    /// The address that the worker takes.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The same with credentials, as `user:password@`.
    pub fn url_as(&self, credentials: &str) -> String {
        let scheme = if self.tls.is_empty() { "redis" } else { "rediss" };
        format!("{scheme}-cluster://{credentials}{}", self.host_ports())
    }

    /// A connection to each node that is a master.
    pub fn masters(&self) -> Vec<redis::Connection> {
        let masters = self.master_numbers();
        masters
            .into_iter()
            .map(|number| self.nodes[number].connection())
            .collect()
    }

    /// The numbers of the nodes that run and are masters.
    pub fn master_numbers(&self) -> Vec<usize> {
        let is_master = |node: &Redis| node.is_running() && node.cli(&["ROLE"]).contains("\"master\"");
        (0..self.nodes.len())
            .filter(|number| is_master(&self.nodes[*number]))
            .collect()
    }

    /// The number of a master's replica.
    ///
    /// # Panics
    /// If it has none that runs.
    pub fn replica_of(&self, master: usize) -> usize {
        let master = format!("slave {} ", self.id(master));
        let follows = |node: &Redis| {
            let nodes = node.is_running().then(|| node.cli(&["CLUSTER", "NODES"]));
            nodes.is_some_and(|nodes| {
                let own = nodes.lines().find(|line| line.contains("myself"));
                own.is_some_and(|line| line.contains(&master))
            })
        };
        let place = self.nodes.iter().position(follows);
        place.unwrap_or_else(|| panic!("no replica of {master}"))
    }

    /// Waits until each node finds the cluster whole, and all say the same of who has which slots.
    ///
    /// # Panics
    /// With what each of them says, if that takes longer than 60 s.
    pub fn await_agreement(&self) {
        self.await_ok();
        let view = |node: &Redis| {
            let nodes = node.cli(&["CLUSTER", "NODES"]);
            let mut lines: Vec<String> = nodes.lines().map(held).collect();
            lines.sort_unstable();
            lines
        };
        let mut views = Vec::new();
        let agreed = attempt(LIMIT, || {
            views = self.nodes.iter().map(view).collect::<Vec<_>>();
            let whole = views[0].iter().all(|line| !line.contains("fail"));
            (whole && views.iter().all(|view| *view == views[0])).then_some(())
        });
        assert!(agreed.is_some(), "the nodes do not agree: {views:#?}");
        self.await_ok();
    }

    /// Waits until the replicas have all that was written to their masters. (WAIT knows only of what its own connection has
    /// written.)
    ///
    /// # Panics
    /// If they do not get it.
    pub fn await_copies(&self) {
        let offset = |node: &Redis, name: &str| -> Option<u64> {
            let info = node.cli(&["--raw", "INFO", "replication"]);
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        for master in self.master_numbers() {
            let written = offset(&self.nodes[master], "master_repl_offset:");
            let replica = &self.nodes[self.replica_of(master)];
            eventually("a replica to have all of its master", LIMIT, || {
                (written.is_some() && offset(replica, "slave_repl_offset:") >= written).then_some(())
            });
        }
    }

    /// What lies before a node.
    ///
    /// # Panics
    /// In a cluster that was not [started so](Self::start_proxied).
    pub fn line(&self, node: usize) -> &Proxy {
        &self.lines.as_ref().expect("the cluster was made with proxies")[node]
    }

    /// The number of the node that is the master of a key's slot.
    ///
    /// # Panics
    /// If there is none.
    pub fn master_of(&self, key: &str) -> usize {
        let place = self.find_master_of(key);
        place.unwrap_or_else(|| panic!("no master of {key}"))
    }

    /// The same, once there is one: as after the death of the one before, whose replica takes over.
    ///
    /// # Panics
    /// If there is none for long.
    pub fn await_master_of(&self, key: &str) -> usize {
        eventually("a replica to take over", LIMIT, || self.find_master_of(key))
    }

    fn find_master_of(&self, key: &str) -> Option<usize> {
        let answers = |node: &Redis| node.is_running() && node.cli(&["EXISTS", key]).starts_with("(integer)");
        self.nodes.iter().position(answers)
    }

    /// What the first node answers that does not refuse, as all but a key's master do; waits until one does.
    ///
    /// # Panics
    /// If none does for long.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let what = format!("an answer to {words:?}");
        eventually(&what, LIMIT, || {
            self.nodes.iter().find_map(|node| node.ask(words).ok())
        })
    }

    /// All strings that masters hold, by key.
    ///
    /// # Panics
    /// If a node that runs does not list its keys.
    pub fn strings(&self) -> HashMap<String, String> {
        let mut all = HashMap::new();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let keys: Vec<String> = node.ask(&["KEYS", "*"]).expect("a node lists its keys");
            for key in keys {
                // Replicas list what they do not give out.
                if let Ok(Some(value)) = node.ask::<Option<String>>(&["GET", &key]) {
                    all.insert(key, value);
                }
            }
        }
        all
    }

    /// How the nodes are reached, being called so.
    fn addresses(&self, host: &str) -> Vec<String> {
        (0..self.nodes.len())
            .map(|node| self.address(host, node))
            .collect()
    }

    fn address(&self, host: &str, node: usize) -> String {
        let port = match &self.lines {
            Some(lines) => lines[node].port(),
            None => self.nodes[node].port(),
        };
        format!("{host}:{port}")
    }

    fn manage(&self, words: &[&str]) {
        let mut args: Vec<&str> = self.tls.iter().map(String::as_str).collect();
        args.push("--cluster");
        args.extend(words);
        redis_cli(&args);
    }

    /// What a node calls itself in the cluster.
    pub fn id(&self, node: usize) -> String {
        id_of(&self.nodes[node])
    }
}

fn id_of(node: &Redis) -> String {
    node.cli(&["CLUSTER", "MYID"]).trim_matches('"').to_owned()
}

/// Of a line of CLUSTER NODES what all nodes should say: id, role, master and slots.
fn held(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let kept = |(at, field): (usize, &&str)| match at {
        0 | 3 | 8.. => Some((*field).to_owned()),
        2 => Some(field.replace("myself,", "").replace(",nofailover", "")),
        _ => None,
    };
    fields
        .iter()
        .enumerate()
        .filter_map(kept)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs redis-cli.
///
/// # Panics
/// If it fails.
pub fn redis_cli(args: &[&str]) {
    let output = Command::new("redis-cli").args(args).stdin(Stdio::null()).output();
    let output = output.expect("redis-cli can be run");
    assert!(
        output.status.success(),
        "redis-cli {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
