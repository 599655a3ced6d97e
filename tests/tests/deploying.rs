//! The lines of docs/DEPLOYING.md, run as they stand there but for names, ports and paths.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use pg_redis_cache_tests::{
    Folder, Redis, RedisCluster, RedisSentinel, RowOracle, Secure, Validity, World, eventually, redis_cli,
    repository, shown,
};
use postgres::SimpleQueryMessage;

const SCHEMA: &str = "CREATE TABLE public.users (id int PRIMARY KEY, name text, email text); \
                      INSERT INTO users SELECT i, 'name ' || i, i || '@example.com' FROM generate_series(1, 20) i";

/// A section of the document: its title, and what stands between fences, by the name behind the opening one.
struct Section {
    title: String,
    blocks: Vec<(String, String)>,
}

/// All sections; the first one, without a title, is what they have in common.
fn sections() -> Vec<Section> {
    let text = fs::read_to_string(repository().join("docs/DEPLOYING.md")).expect("the document is there");
    let parts = text.split("\n## ").enumerate();
    parts
        .map(|(number, part)| Section {
            title: if number == 0 {
                String::new()
            } else {
                part.lines().next().unwrap_or_default().to_owned()
            },
            blocks: part.split("\n```").collect::<Vec<_>>()[1..]
                .chunks(2)
                .filter_map(|fenced| {
                    let (name, lines) = fenced[0].split_once('\n')?;
                    Some((name.split_once(' ')?.1.to_owned(), lines.to_owned()))
                })
                .collect(),
        })
        .collect()
}

impl Section {
    fn named(title: &str) -> Section {
        let section = sections().into_iter().find(|section| section.title == title);
        section.unwrap_or_else(|| panic!("there is no section {title:?}"))
    }

    /// A block, with what stands on the left replaced by what stands on the right.
    fn block(&self, name: &str, places: &[(&str, &str)]) -> String {
        let block = self.blocks.iter().find(|(of, _)| of == name);
        let (_, text) = block.unwrap_or_else(|| panic!("{:?} has no block {name:?}", self.title));
        places.iter().fold(text.clone(), |text, (theirs, ours)| {
            assert!(
                self.blocks.iter().any(|(_, block)| block.contains(theirs)),
                "{theirs:?} is not in {:?}",
                self.title
            );
            text.replace(theirs, ours)
        })
    }

    /// redis.conf as arguments. Where it listens without TLS is up to the harness.
    fn redis_args(&self, places: &[(&str, &str)]) -> Vec<String> {
        let conf = self.block("redis.conf", places);
        let mut args = Vec::new();
        for line in conf.lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            if !["port", "bind", "aclfile", "unixsocket"].contains(&name) {
                args.push(format!("--{name}"));
                args.extend(words.map(|word| word.trim_matches('"').to_owned()));
            }
        }
        args
    }

    /// Both servers with the lines of the section, and rows to be cached.
    fn world(&self, places: &[(&str, &str)]) -> World {
        let args = self.redis_args(places);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let world = World::builder().database("app").redis_args(&args).start();
        world.execute(SCHEMA);
        world
    }

    /// Puts its lines into postgresql.conf.
    fn apply(&self, world: &World, places: &[(&str, &str)]) {
        world.postgres.append_conf(&self.block("postgresql.conf", places));
        world.postgres.reload();
    }

    /// Makes a cluster of nodes by the line for the shell.
    fn create(&self, cluster: &RedisCluster, places: &[(&str, &str)]) {
        let line = self.block("shell", places);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "redis-cli");
        redis_cli(&words[1..]);
        cluster.await_ok();
    }

    /// The same, and runs what the document says to look at.
    fn configure(&self, world: &World, places: &[(&str, &str)]) {
        self.apply(world, places);
        let url = self.setting("url", places);
        let shown = url.split('?').next().unwrap_or_default().trim_end_matches("/0");
        world.wait_for_status(&format!("connected AND url LIKE '{shown}%'"));
        world.wait_until_active();
        let common = &sections()[0];
        let answers = world
            .connect()
            .simple_query(&common.block("common", &[]))
            .expect("the lines in common can be run");
        let rows: Vec<Vec<Option<&str>>> = answers
            .iter()
            .filter_map(|answer| match answer {
                SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at)).collect()),
                _ => None,
            })
            .collect();
        assert_eq!(rows[0][0], Some("t"), "{rows:?}");
        assert_eq!(rows[1], [Some("users"), Some("active"), None], "{rows:?}");
    }

    fn setting(&self, name: &str, places: &[(&str, &str)]) -> String {
        let conf = self.block("postgresql.conf", places);
        let value = conf
            .lines()
            .find_map(|line| line.strip_prefix(&format!("pg_redis_cache.{name} = ")));
        value
            .unwrap_or_else(|| panic!("no {name} in {conf}"))
            .trim_matches('\'')
            .to_owned()
    }
}

/// A read fills, and an update refreshes.
fn assert_cached(world: &World) {
    world.execute("SELECT * FROM users WHERE id = ANY (ARRAY[1, 2, 3])");
    world.execute("UPDATE users SET name = 'new' WHERE id = 1");
    let rows = world.assert_rows(&RowOracle::hash("user:{id}", "users", &["name", "email"]));
    assert_eq!(rows.keys, 3);
}

#[test]
fn every_section_is_run() {
    let run: BTreeSet<&str> = [SOCKET, NETWORK, TLS, SENTINEL, CLUSTER, SECURED, SEVERAL].into();
    let sections = sections();
    let written: BTreeSet<&str> = sections[1..]
        .iter()
        .map(|section| section.title.as_str())
        .collect();
    assert_eq!(written, run);
}

const SOCKET: &str = "On the same machine, by Unix socket";

#[test]
fn by_unix_socket() {
    let section = Section::named(SOCKET);
    let world = section.world(&[]);
    let socket = shown(&world.redis.socket());
    let places = [("/run/redis/redis-server.sock", socket.as_str())];
    section.configure(&world, &places);
    assert_cached(&world);
}

const NETWORK: &str = "On another machine, with a user of its own";

#[test]
fn over_the_network() {
    let section = Section::named(NETWORK);
    let folder = Folder::new();
    let password = folder.write("redis.password", &section.block("redis.password", &[]), 0o600);
    let password = shown(&password);
    let world = section.world(&[]);
    let place = format!("127.0.0.1:{}", world.redis.port());
    let places = [
        ("10.0.0.5:6379", place.as_str()),
        ("/etc/postgresql/redis.password", password.as_str()),
    ];
    // The harness is the default user, which goes last.
    let users = section.block("users.acl", &[]);
    for line in users.lines().rev() {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        assert_eq!(world.redis.cli(&[&["ACL", "SETUSER"], &words[..]].concat()), "OK");
    }
    section.configure(&world, &places);
    world.execute("SELECT * FROM users WHERE id = 7");
    world.execute("UPDATE users SET name = 'new' WHERE id = 7");
    world.wait();
    let url = format!("redis://app:another-long-password@{place}/");
    let mut app = redis::Client::open(url).unwrap().get_connection().unwrap();
    let name: String = redis::cmd("HGET")
        .arg("user:7")
        .arg("name")
        .query(&mut app)
        .unwrap();
    assert_eq!(name, "new");
    let refused = redis::cmd("DEL")
        .arg("user:7")
        .query::<i64>(&mut app)
        .unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));
}

const TLS: &str = "With TLS and client certificates";

#[test]
fn over_tls() {
    let section = Section::named(TLS);
    let secure = Secure::new();
    let (server, client) = (
        secure.server(),
        secure.authority.issue("client", &[], Validity::Now),
    );
    let authority = shown(&secure.authority.certificate());
    let port = secure.port.number.to_string();
    let pairs = [
        ("/etc/redis/redis.crt", shown(&server.certificate)),
        ("/etc/redis/redis.key", shown(&server.key)),
        ("/etc/redis/ca.crt", authority.clone()),
        ("/etc/postgresql/redis-ca.crt", authority),
        ("/etc/postgresql/redis-client.crt", shown(&client.certificate)),
        ("/etc/postgresql/redis-client.key", shown(&client.key)),
        ("redis.example.com", "127.0.0.1".to_owned()),
        ("6380", port),
    ];
    let places = pairs.each_ref().map(|(theirs, ours)| (*theirs, ours.as_str()));
    let world = section.world(&places);
    section.configure(&world, &places);
    assert_cached(&world);
}

const SENTINEL: &str = "With Sentinel";

#[test]
fn with_sentinel() {
    let section = Section::named(SENTINEL);
    let folder = Folder::new();
    let password = folder.write("redis.password", &section.block("redis.password", &[]), 0o600);
    let password = shown(&password);
    let mut world = section.world(&[]);
    let master = format!("127.0.0.1 {}", world.redis.port());
    // The harness makes the replicas, and gives each sentinel its port.
    let lines = section.block(
        "sentinel.conf",
        &[("10.0.0.5 6379", &master), ("port 26379\n", "")],
    );
    let mut sentinel = RedisSentinel::configured(&world.redis, &lines);
    let places = sentinel.places();
    let pairs = [
        ("10.0.0.5:26379,10.0.0.6:26379,10.0.0.7:26379", places.as_str()),
        ("/etc/postgresql/redis.password", password.as_str()),
    ];
    section.configure(&world, &pairs);
    assert_cached(&world);
    sentinel.fail_over();
    sentinel.follow(&mut world.redis);
    world.wait_for_status(&format!(
        "connected AND master = '127.0.0.1:{}'",
        world.redis.port()
    ));
    // First the purge of what it had before.
    world.wait();
    assert_cached(&world);
}

const CLUSTER: &str = "With Redis Cluster";

#[test]
fn with_a_cluster() {
    let section = Section::named(CLUSTER);
    let args = section.redis_args(&[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let cluster = RedisCluster::of_strangers(6, &args);
    let theirs: Vec<String> = (5..=10).map(|host| format!("10.0.0.{host}:6379")).collect();
    let ours: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let pairs: Vec<(&str, &str)> = theirs
        .iter()
        .zip(&ours)
        .map(|(theirs, ours)| (theirs.as_str(), ours.as_str()))
        .collect();
    section.create(&cluster, &pairs);
    let world = World::builder().database("app").start();
    world.execute(SCHEMA);
    section.configure(&world, &pairs);
    assert_cached_in(&world, &cluster);
}

/// The same on a cluster.
fn assert_cached_in(world: &World, cluster: &RedisCluster) {
    let users = RowOracle::hash("user:{id}", "users", &["name", "email"]);
    // What is written before the last of the masters is met is purged.
    eventually("all rows to be cached", Duration::from_secs(60), || {
        world.execute(
            "SELECT * FROM users WHERE id <= 20 AND id = ANY (ARRAY(SELECT generate_series(1, 20)))",
        );
        world.execute("UPDATE users SET name = 'new'");
        world.wait();
        let compared = users.compare_all(&mut world.connect(), &mut cluster.masters());
        assert!(compared.differences.is_empty(), "{compared}");
        (compared.keys == 20).then_some(())
    });
}

const SECURED: &str = "With Redis Cluster, TLS and a user of its own";

#[test]
fn with_a_cluster_over_tls() {
    let section = Section::named(SECURED);
    let (secure, folder) = (Secure::new(), Folder::new());
    let server = secure.authority.issue("server", &["localhost"], Validity::Now);
    let client = secure.authority.issue("client", &["client"], Validity::Now);
    let authority = shown(&secure.authority.certificate());
    let password = folder.write("redis.password", &section.block("redis.password", &[]), 0o600);
    let files = [
        ("/etc/redis/redis.crt", shown(&server.certificate)),
        ("/etc/redis/redis.key", shown(&server.key)),
        ("/etc/redis/ca.crt", authority.clone()),
        ("/etc/postgresql/redis-ca.crt", authority),
        ("/etc/postgresql/redis-client.crt", shown(&client.certificate)),
        ("/etc/postgresql/redis-client.key", shown(&client.key)),
        ("/etc/postgresql/redis.password", shown(&password)),
    ];
    let name = ("redis5.example.com", "localhost".to_owned());
    fn pairs<'a>(all: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
        all.iter()
            .map(|(theirs, ours)| (*theirs, ours.as_str()))
            .collect()
    }
    // The harness gives each its port.
    let all = [&files[..], &[name]].concat();
    let mut args = section.redis_args(&pairs(&all));
    let port = args
        .iter()
        .position(|arg| arg == "--tls-port")
        .expect("it has one");
    args.drain(port..port + 2);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let cluster = RedisCluster::of_strangers(6, &args);
    let ports: Vec<u16> = cluster.nodes.iter().map(Redis::port).collect();
    let theirs = [
        "10.0.0.5:6379",
        "10.0.0.6:6379",
        "10.0.0.7:6379",
        "10.0.0.8:6379",
        "10.0.0.9:6379",
        "10.0.0.10:6379",
    ];
    let ours = theirs
        .iter()
        .zip(&ports)
        .map(|(theirs, port)| (*theirs, format!("127.0.0.1:{port}")));
    section.create(
        &cluster,
        &pairs(&[&files[..], &ours.collect::<Vec<_>>()].concat()),
    );
    let theirs = [
        "redis5.example.com:6379",
        "redis6.example.com:6379",
        "redis7.example.com:6379",
    ];
    let ours = theirs
        .iter()
        .zip(&ports)
        .map(|(theirs, port)| (*theirs, format!("localhost:{port}")));
    let world = World::builder().database("app").start();
    world.execute(SCHEMA);
    section.configure(&world, &pairs(&[&files[..], &ours.collect::<Vec<_>>()].concat()));
    assert_cached_in(&world, &cluster);
}

const SEVERAL: &str = "Several servers and databases";

#[test]
fn several_servers() {
    let section = Section::named(SEVERAL);
    let world = section.world(&[]);
    let args = section.redis_args(&[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let other = Redis::start_with(&args);
    world.execute(
        "CREATE TABLE sessions (token text PRIMARY KEY, payload text); INSERT INTO sessions VALUES ('a', '1')",
    );
    world.execute("CREATE DATABASE reporting");
    let mut reporting = world.postgres.connect_to("reporting");
    reporting
        .batch_execute(
            "CREATE TABLE sums (day date PRIMARY KEY, total int); INSERT INTO sums VALUES ('2026-01-01', 1)",
        )
        .unwrap();
    let (first, second) = [&world.redis, &other]
        .map(|redis| format!("127.0.0.1:{}", redis.port()))
        .into();
    section.apply(&world, &[("10.0.0.5:6379", &first), ("10.0.0.6:6379", &second)]);
    world.wait_until_active();
    let sql = "SELECT count(*) FILTER (WHERE connected), count(*) FROM redis_cache.servers";
    let row = world.connect().query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (3, 3));
    assert_cached(&world);
    world.execute("UPDATE sessions SET payload = '2'");
    reporting.batch_execute("UPDATE sums SET total = 2").unwrap();
    world.wait();
    assert_eq!(other.cli(&["HGET", "sess:a", "payload"]), "\"2\"");
    let sum = world.redis.cli(&["-n", "1", "HGET", "sum:2026-01-01", "total"]);
    assert_eq!(sum, "\"2\"");
}
