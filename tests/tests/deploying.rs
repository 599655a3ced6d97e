//! The lines of docs/DEPLOYING.md, run as they stand there, but for host names, addresses, port numbers, passwords and
//! paths.
//!
//! Where the document has an address, servers are reached by this machine's own one: 127.0.0.1 is let in where other
//! machines are not (`protected-mode`). Until a test ends they are open to whoever reaches this machine; so the passwords
//! are made up anew each time.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use pg_redis_cache_tests::{
    Authority, Folder, Redis, RedisCluster, RedisSentinel, RowOracle, Validity, World, eventually,
    own_address, redis_cli, repository, shown,
};
use postgres::SimpleQueryMessage;

const SCHEMA: &str = "CREATE TABLE public.users (id int PRIMARY KEY, name text, email text); \
                      INSERT INTO users SELECT i, 'name ' || i, i || '@example.com' FROM generate_series(1, 20) i";

/// What stands in the document, and what stands there in the test.
type Place = (&'static str, String);

/// What a section's blocks may be, each at most once.
const BLOCKS: [&str; 7] = [
    "redis.conf",
    "users.acl",
    "replicas",
    "sentinel.conf",
    "shell",
    "redis.password",
    "postgresql.conf",
];

/// A section of the document: its title, and what stands between fences, by the name behind the opening one.
struct Section {
    title: String,
    blocks: Vec<(String, String)>,
}

/// What the document's passwords end in here.
fn secret() -> &'static str {
    static SECRET: OnceLock<String> = OnceLock::new();
    SECRET.get_or_init(|| format!("{:016x}", RandomState::new().build_hasher().finish()))
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

    /// A block, with passwords of ours, and with what stands on the left replaced by what stands on the right.
    fn block(&self, name: &str, places: &[Place]) -> String {
        let block = self.blocks.iter().find(|(of, _)| of == name);
        let (_, text) = block.unwrap_or_else(|| panic!("{:?} has no block {name:?}", self.title));
        let text = text.replace("-password", &format!("-{}", secret()));
        places.iter().fold(text, |text, (theirs, ours)| {
            assert!(
                self.blocks.iter().any(|(_, block)| block.contains(theirs)),
                "{theirs:?} is not in {:?}",
                self.title
            );
            text.replace(theirs, ours)
        })
    }

    /// What redis.conf says of something.
    fn value(&self, name: &str) -> Option<&str> {
        let (_, conf) = self.blocks.iter().find(|(of, _)| of == "redis.conf")?;
        let mut lines = conf.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    /// Whether its Redis lets in who has a password or a certificate, and nobody else.
    fn is_guarded(&self) -> bool {
        let has_users = || {
            let users = self.block("users.acl", &[]);
            users.lines().any(|user| user == "user default off")
        };
        self.value("requirepass").is_some()
            || self.value("aclfile").is_some() && has_users()
            || self.value("protected-mode") == Some("no") && self.value("tls-auth-clients") == Some("yes")
    }

    /// redis.conf as arguments.
    fn redis_args(&self, places: &[Place]) -> Vec<String> {
        arguments(&self.block("redis.conf", places))
    }

    /// The file with the password, which has a place in the folder.
    fn password_file(&self, folder: &Folder) -> Place {
        let file = folder.write("redis.password", &self.block("redis.password", &[]), 0o600);
        ("/etc/postgresql/redis.password", shown(&file))
    }

    /// Both servers with the lines of the section, and rows to be cached.
    fn world(&self, places: &[Place]) -> World {
        let args = self.redis_args(places);
        let world = World::builder().database("app");
        let world = world.redis_args(&borrowed(&args)).start();
        world.execute(SCHEMA);
        world
    }

    /// The same with two replicas of that Redis, and three sentinels. All are called `host`; `master` is the master's
    /// place in the document.
    fn watched(&self, master: &'static str, host: &str, places: &[Place]) -> (World, RedisSentinel) {
        let world = self.world(places);
        let master = (master, format!("{host} {}", world.redis.port()));
        let places = [&[master], places].concat();
        let mut args = self.redis_args(&places);
        args.extend(arguments(&self.block("replicas", &places)));
        let replica = || Redis::start_with(&borrowed(&args));
        let lines = self.block("sentinel.conf", &places);
        let sentinel = RedisSentinel::pasted(host, vec![replica(), replica()], &lines);
        (world, sentinel)
    }

    /// Puts its lines into postgresql.conf.
    fn apply(&self, world: &World, places: &[Place]) {
        world.postgres.append_conf(&self.block("postgresql.conf", places));
        world.postgres.reload();
    }

    /// Makes a cluster of nodes by the line for the shell.
    fn create(&self, cluster: &RedisCluster, places: &[Place]) {
        let line = self.block("shell", places);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "redis-cli");
        redis_cli(&words[1..]);
        cluster.await_ok();
    }

    /// Puts its lines into postgresql.conf, and runs what the document says to look at.
    fn configure(&self, world: &World, places: &[Place]) {
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
        // The purge of the activation would take what is written before it.
        world.wait();
    }

    fn setting(&self, name: &str, places: &[Place]) -> String {
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

/// Lines of redis.conf as arguments. The number of a port that is open is the harness's, which says it before these.
fn arguments(conf: &str) -> Vec<String> {
    let words = |line: &str| -> Vec<String> {
        let words = line.split(' ').map(|word| word.trim_matches('"').to_owned());
        words.collect()
    };
    let lines = conf.lines().map(words);
    lines
        .filter(|words| !["port", "tls-port"].contains(&words[0].as_str()) || words[1] == "0")
        .flat_map(|mut words| {
            words[0].insert_str(0, "--");
            words
        })
        .collect()
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Certificates in the places of the document's: a server's, which goes by this name, and a client's.
fn papers(authority: &Authority, name: &str) -> Vec<Place> {
    let server = authority.issue("server", &[name], Validity::Now);
    let client = authority.issue("client", &[], Validity::Now);
    let own = shown(&authority.certificate());
    vec![
        ("/etc/redis/redis.crt", shown(&server.certificate)),
        ("/etc/redis/redis.key", shown(&server.key)),
        ("/etc/redis/ca.crt", own.clone()),
        ("/etc/postgresql/redis-ca.crt", own),
        ("/etc/postgresql/redis-client.crt", shown(&client.certificate)),
        ("/etc/postgresql/redis-client.key", shown(&client.key)),
    ]
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
    let run: BTreeSet<&str> = [
        SOCKET,
        NETWORK,
        TLS,
        SENTINEL,
        SENTINEL_TLS,
        CLUSTER,
        SECURED,
        SEVERAL,
    ]
    .into();
    let sections = sections();
    let written: BTreeSet<&str> = sections[1..]
        .iter()
        .map(|section| section.title.as_str())
        .collect();
    assert_eq!(written, run);
}

#[test]
fn every_block_is_run() {
    for section in &sections()[1..] {
        let mut run = BLOCKS.to_vec();
        for (name, _) in &section.blocks {
            let place = run.iter().position(|run| run == name);
            run.remove(place.unwrap_or_else(|| panic!("{:?}: nothing runs {name:?}", section.title)));
        }
    }
}

/// Without `bind` Debian's Redis listens on 127.0.0.1, and `protected-mode` keeps all others out where nobody has to say
/// who he is.
#[test]
fn what_listens_to_the_network_lets_others_in_and_not_everybody() {
    for section in &sections()[1..] {
        let title = &section.title;
        let (is_plain, is_tls) = (
            section.value("port") != Some("0"),
            section.value("tls-port").is_some(),
        );
        if !is_plain && !is_tls {
            continue;
        }
        assert_ne!(is_plain, is_tls, "{title}: with TLS, and without it");
        let bound = section.value("bind").unwrap_or("127.0.0.1");
        assert!(!bound.starts_with("127."), "{title}: bind {bound}");
        assert!(section.is_guarded(), "{title}: nobody is let in, or everybody");
    }
}

const SOCKET: &str = "On the same machine, by Unix socket";

#[test]
fn by_unix_socket() {
    let (section, folder) = (Section::named(SOCKET), Folder::new());
    let socket = shown(&folder.path().join("redis-server.sock"));
    let places = [("/run/redis/redis-server.sock", socket)];
    let world = section.world(&places);
    let connected = TcpStream::connect(("127.0.0.1", world.redis.port()));
    assert!(connected.is_err(), "TCP is not off");
    section.configure(&world, &places);
    assert_cached(&world);
}

const NETWORK: &str = "On another machine, with a user of its own";

#[test]
fn over_the_network() {
    let (section, folder) = (Section::named(NETWORK), Folder::new());
    let users = folder.write("users.acl", &section.block("users.acl", &[]), 0o600);
    let host = ("10.0.0.5", own_address());
    let world = section.world(&[host.clone(), ("/etc/redis/users.acl", shown(&users))]);
    let place = format!("{}:{}", host.1, world.redis.port());
    let password = section.password_file(&folder);
    section.configure(&world, &[("10.0.0.5:6379", place.clone()), password]);
    world.execute("SELECT * FROM users WHERE id = 7");
    world.execute("UPDATE users SET name = 'new' WHERE id = 7");
    world.wait();
    let url = format!("redis://app:another-long-{}@{place}/", secret());
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
    let (section, authority) = (Section::named(TLS), Authority::new("the authority"));
    let host = own_address();
    let mut places = papers(&authority, &host);
    let world = section.world(&places);
    let place = format!("{host}:{}", world.redis.port());
    places.push(("redis.example.com:6380", place));
    section.configure(&world, &places);
    assert_cached(&world);
}

const SENTINEL: &str = "With Sentinel";

#[test]
fn with_sentinel() {
    let (section, folder) = (Section::named(SENTINEL), Folder::new());
    let host = own_address();
    let (mut world, mut sentinel) = section.watched("10.0.0.5 6379", &host, &[]);
    let places = [
        ("10.0.0.5:26379,10.0.0.6:26379,10.0.0.7:26379", sentinel.places()),
        section.password_file(&folder),
    ];
    section.configure(&world, &places);
    assert_followed(&mut world, &mut sentinel, &host);
}

/// Rows are cached, and after a failover they are on the new master.
fn assert_followed(world: &mut World, sentinel: &mut RedisSentinel, host: &str) {
    assert_cached(world);
    sentinel.fail_over();
    sentinel.follow(&mut world.redis);
    let master = format!("{host}:{}", world.redis.port());
    world.wait_for_status(&format!("connected AND master = '{master}'"));
    // First the purge of what it had before.
    world.wait();
    assert_cached(world);
    // The old master follows the new one.
    sentinel.await_ready();
}

const SENTINEL_TLS: &str = "With Sentinel and TLS";

#[test]
fn with_sentinel_over_tls() {
    let (section, folder) = (Section::named(SENTINEL_TLS), Folder::new());
    let authority = Authority::new("the authority");
    let mut places = papers(&authority, "localhost");
    places.push(("redis5.example.com", "localhost".to_owned()));
    let (mut world, mut sentinel) = section.watched("redis5.example.com 6379", "localhost", &places);
    let sentinels = "redis5.example.com:26379,redis6.example.com:26379,redis7.example.com:26379";
    places.insert(0, (sentinels, sentinel.places()));
    places.push(section.password_file(&folder));
    section.configure(&world, &places);
    assert_followed(&mut world, &mut sentinel, "localhost");
}

const CLUSTER: &str = "With Redis Cluster";

/// The nodes by their addresses, as the document has them.
const NODES: [&str; 6] = [
    "10.0.0.5:6379",
    "10.0.0.6:6379",
    "10.0.0.7:6379",
    "10.0.0.8:6379",
    "10.0.0.9:6379",
    "10.0.0.10:6379",
];

/// The nodes of a cluster, all called `host`, in the places of as many of the document's.
fn nodes(cluster: &RedisCluster, theirs: &[&'static str], host: &str) -> Vec<Place> {
    let ours = cluster.nodes.iter().map(|node| format!("{host}:{}", node.port()));
    theirs.iter().copied().zip(ours).collect()
}

#[test]
fn with_a_cluster() {
    let (section, folder) = (Section::named(CLUSTER), Folder::new());
    let cluster = RedisCluster::of_strangers(6, &borrowed(&section.redis_args(&[])));
    let host = own_address();
    let mut places = nodes(&cluster, &NODES, &host);
    section.create(&cluster, &places);
    places.push(section.password_file(&folder));
    let world = World::builder().database("app").start();
    world.execute(SCHEMA);
    section.configure(&world, &places);
    assert_cached_in(&world, &cluster);
}

/// As on a single server.
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

/// Some of the nodes by their names.
const NAMED_NODES: [&str; 3] = [
    "redis5.example.com:6379",
    "redis6.example.com:6379",
    "redis7.example.com:6379",
];

#[test]
fn with_a_cluster_over_tls() {
    let (section, folder) = (Section::named(SECURED), Folder::new());
    let authority = Authority::new("the authority");
    let mut places = papers(&authority, "localhost");
    places.push(section.password_file(&folder));
    let name = ("redis5.example.com", "localhost".to_owned());
    let args = section.redis_args(&[&places[..], &[name]].concat());
    let cluster = RedisCluster::of_strangers(6, &borrowed(&args));
    places.extend(nodes(&cluster, &NODES, &own_address()));
    section.create(&cluster, &places);
    places.extend(nodes(&cluster, &NAMED_NODES, "localhost"));
    let world = World::builder().database("app").start();
    world.execute(SCHEMA);
    section.configure(&world, &places);
    assert_cached_in(&world, &cluster);
}

const SEVERAL: &str = "Several servers and databases";

#[test]
fn several_servers() {
    let (section, folder) = (Section::named(SEVERAL), Folder::new());
    let world = section.world(&[]);
    let other = Redis::start_with(&borrowed(&section.redis_args(&[])));
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
    let place = |redis: &Redis| format!("{}:{}", own_address(), redis.port());
    let places = [
        ("10.0.0.5:6379", place(&world.redis)),
        ("10.0.0.6:6379", place(&other)),
        section.password_file(&folder),
    ];
    section.apply(&world, &places);
    world.wait_until_active();
    world.wait();
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
