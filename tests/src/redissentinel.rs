//! Replicas of a Redis, and sentinels that watch it, for one test.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::folder::Folder;
use crate::port::Port;
use crate::redisserver::redis_server;
use crate::{Paper, Redis, Secure, World, eventually, process};

/// How long anything may take: a machine that stands still for two seconds has sentinels wait for thirty (TILT).
const LIMIT: Duration = Duration::from_secs(90);

/// How long a master has to be away before it is replaced, in milliseconds.
const DOWN_AFTER: u32 = 1500;

/// After a failover, twice as long none begins that nobody asks for, in milliseconds.
const FAILOVER_TIMEOUT: u32 = 5000;

/// The name of the master.
const SERVICE: &str = "main";

/// As whom replicas and sentinels go to the master. A master that does not know the user any more is cut off from them,
/// and from nobody else.
const USER: &str = "watcher";
const PASSWORD: &str = "watching";

/// Two replicas of a Redis and three sentinels, which replace it by one of them when it is away; stopped and removed
/// when dropped.
#[derive(Debug)]
pub struct RedisSentinel {
    /// The servers beside the master, as far as [`follow`](Self::follow) has been told.
    pub replicas: Vec<Redis>,
    sentinels: Vec<Sentinel>,
    /// What all servers are called.
    host: String,
    /// What of the master's url says who comes.
    credentials: String,
}

/// One sentinel. Its port stays its own while it is down.
#[derive(Debug)]
struct Sentinel {
    child: Option<Child>,
    port: Port,
    /// Where it speaks TLS, if it does.
    tls: Option<Port>,
    /// What it wants of the harness.
    password: Option<&'static str>,
    folder: Folder,
}

impl RedisSentinel {
    /// One sentinel and no replica, of a Redis that speaks TLS at this port, to which the sentinel shows the same
    /// certificate as to its clients.
    ///
    /// # Panics
    /// If it does not come about.
    pub fn over_tls(secure: &Secure, paper: &Paper) -> RedisSentinel {
        let tls = Port::claim();
        let lines = format!(
            "tls-port {}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no\n\
             tls-replication yes\nsentinel monitor {SERVICE} 127.0.0.1 {} 1\n",
            tls.number,
            paper.certificate.display(),
            paper.key.display(),
            secure.authority.certificate().display(),
            secure.port.number
        );
        RedisSentinel {
            replicas: Vec::new(),
            sentinels: vec![Sentinel::start(Some(tls), None, &lines)],
            host: "127.0.0.1".to_owned(),
            credentials: String::new(),
        }
    }

    /// Makes replicas of `master` and has it watched. Ready when this returns.
    ///
    /// # Panics
    /// If it does not come about, or the server's program cannot be a sentinel.
    pub fn around(master: &Redis) -> RedisSentinel {
        let lines = watching("127.0.0.1", master);
        RedisSentinel::made(master, "127.0.0.1", &[], || Sentinel::start(None, None, &lines))
    }

    /// The same of a master that speaks nothing but TLS, and is called `localhost` as all the others are: a certificate of
    /// that name is shown by each. The sentinels let nobody ask but themselves and `user`, a line of theirs.
    ///
    /// # Panics
    /// As [`around`](Self::around).
    pub fn secured(master: &Redis, secure: &Secure, paper: &Paper, user: &str) -> RedisSentinel {
        let papers = secure.papers(paper, "yes");
        let mut args: Vec<&str> = papers.iter().map(String::as_str).collect();
        args.extend(["--tls-replication", "yes", "--replica-announce-ip", "localhost"]);
        let papers: Vec<String> = papers
            .chunks(2)
            .map(|pair| pair.join(" ").replace("--", ""))
            .collect();
        RedisSentinel::made(master, "localhost", &args, || {
            let tls = Port::claim();
            let lines = format!(
                "tls-port {}\n{}\ntls-replication yes\nrequirepass {PASSWORD}\n{user}\n\
                 user {USER} on >{PASSWORD} ~* &* +@all\nsentinel sentinel-user {USER}\n\
                 sentinel sentinel-pass {PASSWORD}\nsentinel resolve-hostnames yes\n\
                 sentinel announce-hostnames yes\n{}",
                tls.number,
                papers.join("\n"),
                watching("localhost", master)
            );
            Sentinel::start(Some(tls), Some(PASSWORD), &lines)
        })
    }

    /// Three sentinels of a master that has these two replicas already, and of which nothing is asked but what `lines`
    /// say: a whole configuration by which a sentinel at port 26379 watches a master `main`, but that each has a port of
    /// its own. All servers are called `host`.
    ///
    /// # Panics
    /// As [`around`](Self::around).
    pub fn pasted(host: &str, replicas: Vec<Redis>, lines: &str) -> RedisSentinel {
        let sentinel = || {
            let port = Port::claim();
            let lines = lines.replace("port 26379", &format!("port {}", port.number));
            Sentinel::at(port, None, None, &lines)
        };
        let all = RedisSentinel {
            replicas,
            sentinels: (0..3).map(|_| sentinel()).collect(),
            host: host.to_owned(),
            credentials: String::new(),
        };
        all.await_ready();
        all
    }

    /// Such servers, called so, with these arguments of the replicas.
    fn made(master: &Redis, host: &str, more: &[&str], sentinel: impl Fn() -> Sentinel) -> RedisSentinel {
        let port = master.port().to_string();
        admit(master);
        let mut args = vec!["--repl-diskless-sync-delay", "0"];
        args.extend(more);
        if let Some(password) = master.password() {
            args.extend(["--requirepass", password]);
        }
        let replica = || {
            let redis = Redis::start_with(&args);
            admit(&redis);
            assert_eq!(redis.cli(&["REPLICAOF", host, &port]), "OK");
            redis
        };
        let all = RedisSentinel {
            replicas: vec![replica(), replica()],
            sentinels: (0..3).map(|_| sentinel()).collect(),
            host: host.to_owned(),
            credentials: master
                .password()
                .map_or_else(String::new, |password| format!(":{password}@")),
        };
        all.await_ready();
        all
    }

    /// The same of the Redis of a world, which is told to ask the sentinels and to follow them.
    ///
    /// # Panics
    /// As [`around`](Self::around), or if the world does not come to the master.
    pub fn of(world: &World) -> RedisSentinel {
        let sentinel = RedisSentinel::around(&world.redis);
        world.postgres.set_conf("pg_redis_cache.url", &sentinel.url());
        world.wait_for_status(&format!(
            "connected AND master = '127.0.0.1:{}'",
            world.redis.port()
        ));
        world.wait_until_active();
        world.wait();
        sentinel
    }

    /// Waits until every sentinel that runs knows the others and two replicas that can take over.
    ///
    /// # Panics
    /// If that takes longer than 90 s.
    pub fn await_ready(&self) {
        let running: Vec<&Sentinel> = self.sentinels.iter().filter(|one| one.child.is_some()).collect();
        let wanted = [
            ("num-slaves", 2),
            ("num-other-sentinels", running.len() - 1),
            ("flags", 0),
        ];
        eventually("sentinels that know each other", LIMIT, || {
            let knows = |sentinel: &&Sentinel| {
                let fields = sentinel.cli(&["SENTINEL", "MASTER", SERVICE]);
                wanted.iter().all(|(name, value)| match field(&fields, name) {
                    Some("master") => *name == "flags",
                    Some(number) => number.parse().is_ok_and(|number: usize| number >= *value),
                    None => false,
                }) && sentinel
                    .cli(&["SENTINEL", "REPLICAS", SERVICE])
                    .matches("\"ok\"")
                    .count()
                    >= 2
            };
            running.iter().all(knows).then_some(())
        });
        eventually("replicas in step", LIMIT, || {
            let in_step = |replica: &Redis| {
                replica
                    .cli(&["INFO", "replication"])
                    .contains("master_link_status:up")
            };
            self.replicas.iter().all(in_step).then_some(())
        });
    }

    /// `redis-sentinel://[:password@]127.0.0.1:port,127.0.0.1:port,127.0.0.1:port/main/0`
    pub fn url(&self) -> String {
        self.url_with(&self.credentials, SERVICE)
    }

    /// The same with credentials, as `user:password@`, and another service.
    pub fn url_with(&self, credentials: &str, service: &str) -> String {
        let speaks_tls = self.sentinels.iter().any(|sentinel| sentinel.tls.is_some());
        let scheme = if speaks_tls { "rediss" } else { "redis" };
        format!("{scheme}-sentinel://{credentials}{}/{service}/0", self.places())
    }

    /// The sentinels, with commas between.
    pub fn places(&self) -> String {
        let port = |sentinel: &Sentinel| sentinel.tls.as_ref().unwrap_or(&sentinel.port).number;
        let place = |sentinel: &Sentinel| format!("{}:{}", self.host, port(sentinel));
        self.sentinels.iter().map(place).collect::<Vec<_>>().join(",")
    }

    /// The master's port, as the first sentinel that runs has it.
    ///
    /// # Panics
    /// If none runs.
    pub fn master(&self) -> u16 {
        let running = self.sentinels.iter().find(|sentinel| sentinel.child.is_some());
        let answer = running
            .expect("a sentinel runs")
            .cli(&["SENTINEL", "get-master-addr-by-name", SERVICE]);
        let port = answer.split('"').rev().nth(1).and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("no port in {answer}"))
    }

    /// Waits until another than `redis`, the master until now, is the master, for sentinels and for itself, and puts
    /// it in that one's place, which becomes one of the replicas.
    ///
    /// # Panics
    /// If that takes longer than 90 s.
    pub fn follow(&mut self, redis: &mut Redis) {
        let old = redis.port();
        let promoted = eventually("another master", LIMIT, || {
            let port = self.master();
            let promoted = self.replicas.iter().position(|replica| replica.port() == port)?;
            let role = self.replicas[promoted].cli(&["ROLE"]);
            (port != old && role.contains("\"master\"")).then_some(promoted)
        });
        std::mem::swap(redis, &mut self.replicas[promoted]);
    }

    /// Has one of the replicas take over, although the master is well.
    ///
    /// # Panics
    /// If the sentinels refuse.
    pub fn fail_over(&self) {
        eventually("a failover to begin", LIMIT, || {
            // Refused while a replica is not yet known to be good.
            (self.sentinels[0].cli(&["SENTINEL", "FAILOVER", SERVICE]) == "OK").then_some(())
        });
    }

    /// Cuts a master off from sentinels and replicas, and from nobody else. (It has to want a password: without one they
    /// would come back as anybody.)
    ///
    /// # Panics
    /// If it wants none, or refuses.
    pub fn cut_off(&self, master: &Redis) {
        assert!(master.password().is_some(), "anybody may come");
        assert_eq!(master.cli(&["ACL", "DELUSER", USER]), "(integer) 1");
    }

    /// Lets sentinels and replicas come back to a server that was [cut off](Self::cut_off), or has been started again.
    ///
    /// # Panics
    /// If it refuses.
    pub fn let_in(&self, redis: &Redis) {
        admit(redis);
    }

    /// What redis-cli prints for a command to each sentinel that runs.
    pub fn cli(&self, args: &[&str]) -> Vec<String> {
        let running = self.sentinels.iter().filter(|sentinel| sentinel.child.is_some());
        running.map(|sentinel| sentinel.cli(args)).collect()
    }

    /// SIGKILL to one of the sentinels.
    pub fn kill_sentinel(&mut self, number: usize) {
        self.sentinels[number].kill();
    }

    /// Starts one of the sentinels again, which knows what it knew.
    pub fn start_sentinel_again(&mut self, number: usize) {
        self.sentinels[number].start_again();
    }

    /// SIGSTOP to one of the sentinels: it takes connections and does not answer.
    pub fn freeze_sentinel(&self, number: usize) {
        self.sentinels[number].signal(libc::SIGSTOP);
    }
}

impl Sentinel {
    fn start(tls: Option<Port>, password: Option<&'static str>, lines: &str) -> Sentinel {
        let port = Port::claim();
        let lines = format!("port {}\nbind 127.0.0.1\n{lines}", port.number);
        Sentinel::at(port, tls, password, &lines)
    }

    /// One whose lines say where it listens: at this port.
    fn at(port: Port, tls: Option<Port>, password: Option<&'static str>, lines: &str) -> Sentinel {
        let mut sentinel = Sentinel {
            child: None,
            port,
            tls,
            password,
            folder: Folder::new(),
        };
        let (folder, socket) = (sentinel.folder.path().display(), sentinel.socket());
        let lines = format!(
            "dir {folder}\nlogfile {folder}/log\nunixsocket {}\n{lines}",
            socket.display()
        );
        fs::write(sentinel.configuration(), lines).expect("the folder is ours");
        // It writes there what it learns.
        if let Some(user) = process::server_user() {
            chown(sentinel.configuration(), Some(user.uid), Some(user.gid))
                .expect("root may give a file away");
        }
        sentinel.start_again();
        sentinel
    }

    /// Where the harness asks it, whatever it speaks at its port.
    fn socket(&self) -> PathBuf {
        self.folder.path().join("sentinel.sock")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("sentinel.conf")
    }

    fn start_again(&mut self) {
        assert!(self.child.is_none(), "the sentinel runs already");
        let mut command = Command::new(redis_server());
        command.arg(self.configuration()).arg("--sentinel");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let program = redis_server().display();
        let child = process::spawn_server(command, libc::SIGKILL);
        let mut child = child.unwrap_or_else(|e| panic!("{program} cannot be run: {e}"));
        eventually("a sentinel to be ready", LIMIT, || {
            let ended = child.try_wait().expect("it is our child");
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(
                ended.is_none(),
                "{program} has no sentinel, or it does not start:\n{}",
                log()
            );
            (self.cli(&["PING"]) == "PONG").then_some(())
        });
        self.child = Some(child);
    }

    fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).arg("--no-raw").args(args);
        if let Some(password) = self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn signal(&self, signal: libc::c_int) {
        let child = self.child.as_ref().expect("the sentinel runs");
        process::signal(child.id(), signal);
    }

    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let mut child = self.child.take().expect("it could be signalled");
        child.wait().expect("it is our child");
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Sentinels and replicas may come; should it be made a replica, it follows another one as they would.
fn admit(redis: &Redis) {
    let password = format!(">{PASSWORD}");
    let set_user = ["ACL", "SETUSER", USER, "on", &password, "~*", "&*", "+@all"];
    assert_eq!(redis.cli(&set_user), "OK");
    for (name, value) in [("masteruser", USER), ("masterauth", PASSWORD)] {
        assert_eq!(redis.cli(&["CONFIG", "SET", name, value]), "OK");
    }
}

/// What a sentinel's configuration says of its master.
fn watching(host: &str, master: &Redis) -> String {
    let port = master.port();
    format!(
        "sentinel monitor {SERVICE} {host} {port} 2\n\
         sentinel auth-user {SERVICE} {USER}\nsentinel auth-pass {SERVICE} {PASSWORD}\n\
         sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}\n\
         sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT}\nsentinel parallel-syncs {SERVICE} 2\n"
    )
}

/// A field of what redis-cli prints for SENTINEL MASTER: ` 1) "name"`, ` 2) "main"`, ….
fn field<'a>(printed: &'a str, name: &str) -> Option<&'a str> {
    let mut texts = printed.lines().filter_map(|line| line.split('"').nth(1));
    texts.find(|text| *text == name)?;
    texts.next()
}
