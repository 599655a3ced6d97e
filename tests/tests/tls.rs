//! TLS to Redis, for the worker and for foreign tables: who trusts whom, and what is said when they do not. Rows come
//! through as over a plain socket, also when the connection ends or the statement does.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{
    Authority, Paper, RowOracle, Secure, Trial, Validity, World, eventually, literal, refusal, replace_server,
};
use postgres::{Client, error::SqlState};

const SOON: Duration = Duration::from_secs(20);

/// Both servers, whose worker does not use TLS yet.
fn world_of(secure: &Secure, paper: &Paper, clients: &str) -> World {
    let args = secure.args(paper, clients);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    World::builder()
        .redis_args(&args)
        .conf("pg_redis_cache.connect_timeout", "1s")
        .start()
}

/// Options of a foreign server that trusts the authority.
fn options(secure: &Secure) -> String {
    format!(
        "host_port {}, tls_ca_file {}",
        literal(&secure.url()),
        quoted(&secure.authority.certificate())
    )
}

fn quoted(path: &Path) -> String {
    literal(&path.display().to_string())
}

/// Sets a setting that is a path.
fn set_path(world: &World, name: &str, path: &Path) {
    world
        .postgres
        .set_conf(&format!("pg_redis_cache.{name}"), &path.display().to_string());
}

/// Replaces the server `r` and its table `h`, over a hash.
fn serve(client: &mut Client, options: &str) {
    let table = "CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h')";
    replace_server(client, options, table);
}

fn count(client: &mut Client) -> i64 {
    let row = client.query_one("SELECT count(value) FROM h", &[]);
    row.unwrap_or_else(|error| panic!("{error:?}")).get(0)
}

/// State, DETAIL and HINT of the statement's error.
fn refused(client: &mut Client, sql: &str) -> (SqlState, String, String) {
    let error = refusal(client, sql);
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (error.code().clone(), text(error.detail()), text(error.hint()))
}

/// The TLS connections do not come up, and DETAIL says why.
fn assert_no_tls(client: &mut Client, why: &str) {
    let (state, detail, hint) = refused(client, "SELECT * FROM h");
    assert_eq!(
        state,
        SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        "{detail}"
    );
    assert!(detail.contains(why), "{detail}");
    assert!(hint.contains("tls_ca_file"), "{hint}");
}

#[test]
fn the_cache_is_kept_over_tls() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i");
    set_path(&world, "tls_ca_file", &secure.authority.certificate());
    world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    world.wait_for_status("connected AND url LIKE 'rediss://%'");
    // From here on nothing can come by the plain port.
    world.redis.cli(&["CONFIG", "SET", "port", "0"]);
    world.set_mappings("t:{id} => SELECT v FROM t WITH (insert = set)");
    world.wait();
    let oracle = RowOracle::hash("t:{id}", "t", &["v"]);
    for round in 1..4 {
        // Values larger than a record of TLS among small ones.
        world.execute(&format!(
            "UPDATE t SET v = '{round}' || repeat('long', CASE id % 50 WHEN 0 THEN 20000 ELSE 1 END)"
        ));
        assert_eq!(world.assert_rows(&oracle).keys, 500);
        world
            .redis
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        world.execute("INSERT INTO t SELECT max(id) + 1, 'new' FROM t; DELETE FROM t WHERE id = (SELECT min(id) FROM t)");
        assert_eq!(world.assert_rows(&oracle).keys, 500);
    }
    let mut client = world.connect();
    let get = "SELECT redis_cache.get('t', '100')->>'v', redis_cache.ttl('t', '100')";
    let value: String = client.query_one(get, &[]).unwrap().get(0);
    assert!(value.len() > 80_000);
    assert!(
        client
            .query("SELECT * FROM redis_cache.verify('t')", &[])
            .unwrap()
            .is_empty()
    );
}

/// Rule 5, where what a lost connection still had to send lies in TLS.
#[test]
fn no_key_goes_back_when_connections_are_lost_under_load() {
    let secure = Secure::new();
    let args = secure.args(&secure.server(), "no");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let trial = Trial::begin(|world| world.redis_args(&args));
    set_path(&trial.world, "tls_ca_file", &secure.authority.certificate());
    trial.world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    trial.world.wait_for_status("connected AND url LIKE 'rediss:%'");
    let oracle = trial.watch();
    for _ in 0..2 {
        trial.load.goes_on(50);
        trial.world.redis.freeze();
        trial.world.wait_for_status("NOT connected");
        trial.load.goes_on(50);
        trial.world.redis.thaw();
        trial.world.wait_for_status("connected");
        trial.load.goes_on(50);
        trial
            .world
            .redis
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn foreign_tables_are_read_and_written_over_tls() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    let mut client = world.connect();
    serve(&mut client, &options(&secure));
    client
        .batch_execute("INSERT INTO h SELECT i, repeat('value', 20) || i FROM generate_series(1, 20000) i")
        .unwrap();
    assert_eq!(count(&mut client), 20_000);
    // One value of many records.
    client
        .batch_execute("INSERT INTO h VALUES ('large', repeat('x', 3000000))")
        .unwrap();
    let row = client
        .query_one("SELECT length(value) FROM h WHERE field = 'large'", &[])
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 3_000_000);
    client
        .batch_execute("DELETE FROM h WHERE field = 'large'")
        .unwrap();
    let row = client
        .query_one(
            "SELECT count(*) FROM generate_series(1, 5000) i JOIN h ON h.field = i::text",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 5000);
}

/// The id of the foreign tables' connection, as Redis knows it.
fn connection(world: &World) -> String {
    let list = world.redis.cli(&["CLIENT", "LIST"]);
    let at = list.find(":fdw").expect("a connection of a foreign table");
    let line = &list[..at];
    let id = line.rfind("id=").expect("a client has an id");
    line[id..].split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn a_connection_is_kept_and_replaced_when_it_was_closed() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    let mut client = world.connect();
    serve(&mut client, &options(&secure));
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    let first = connection(&world);
    for _ in 0..3 {
        assert_eq!(count(&mut client), 1);
    }
    assert_eq!(connection(&world), first);
    world
        .redis
        .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    sleep(Duration::from_millis(50));
    assert_eq!(count(&mut client), 1);
    assert_ne!(connection(&world), first);
}

#[test]
fn a_statement_that_is_cancelled_over_tls_leaves_the_next_one_alone() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    let mut client = world.connect();
    serve(&mut client, &options(&secure));
    client
        .batch_execute("INSERT INTO h SELECT i, repeat('value', 20) || i FROM generate_series(1, 20000) i")
        .unwrap();
    for sql in [
        "SELECT * FROM h",
        "INSERT INTO h SELECT -i, repeat('x', 100) FROM generate_series(1, 50000) i",
    ] {
        world.redis.freeze();
        let (state, ..) = refused(&mut client, &format!("SET statement_timeout = '100ms'; {sql}"));
        assert_eq!(state, SqlState::QUERY_CANCELED);
        world.redis.thaw();
        client.batch_execute("SET statement_timeout = 0").unwrap();
        let row = client
            .query_one("SELECT value FROM h WHERE field = '77'", &[])
            .unwrap();
        assert!(row.get::<_, String>(0).ends_with("value77"));
    }
    // The handshake is given up as well.
    world.redis.freeze();
    let mut other = world.connect();
    let (state, ..) = refused(&mut other, "SET statement_timeout = '100ms'; SELECT * FROM h");
    assert_eq!(state, SqlState::QUERY_CANCELED);
    assert_no_tls(&mut world.connect(), "no handshake within 1000 ms");
    world.redis.thaw();
}

#[test]
fn a_server_that_is_not_to_be_trusted_is_not() {
    let secure = Secure::new();
    let other = Authority::new("another authority");
    let world = World::builder()
        .conf("pg_redis_cache.connect_timeout", "1s")
        .start();
    let mut client = world.connect();
    let issue = |holder: &str, host: &str, validity| secure.authority.issue(holder, &[host], validity);
    let cases = [
        (
            secure.server(),
            other.certificate(),
            "UnknownIssuer",
            ["full", "ca"].as_slice(),
        ),
        (
            issue("elsewhere", "redis.test", Validity::Now),
            secure.authority.certificate(),
            "not valid for name",
            &["full"],
        ),
        (
            issue("expired", "127.0.0.1", Validity::Past),
            secure.authority.certificate(),
            "expired",
            &["full", "ca"],
        ),
    ];
    for (paper, trusted, why, refusing) in cases {
        let redis = secure.redis(&paper, "no");
        set_path(&world, "tls_ca_file", &trusted);
        world.postgres.set_conf("pg_redis_cache.url", &secure.url());
        for level in ["full", "ca", "none"] {
            let options = format!(
                "host_port {}, tls_ca_file {}, tls_verify '{level}'",
                literal(&secure.url()),
                quoted(&trusted)
            );
            serve(&mut client, &options);
            world.postgres.set_conf("pg_redis_cache.tls_verify", level);
            if refusing.contains(&level) {
                assert_no_tls(&mut client, why);
                world.wait_for_status(&format!(
                    "NOT connected AND last_error LIKE 'TLS: %{why}%(rediss://127.0.0.1:{}/0)'",
                    secure.port.number
                ));
            } else {
                assert_eq!(count(&mut client), 0);
                world.wait_for_status("connected");
            }
        }
        drop(redis);
        world.wait_for_status("NOT connected");
    }
}

#[test]
fn plain_and_tls_do_not_talk_to_each_other() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    world.set_mappings("t:{id} => SELECT v FROM t");
    let mut client = world.connect();
    let plain_to_tls = secure.url().replace("rediss", "redis");
    serve(&mut client, &format!("host_port {}", literal(&plain_to_tls)));
    let (state, detail, hint) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION, "{detail}");
    assert!(detail.contains("rediss://"), "{detail}");
    assert!(hint.contains("host_port"), "{hint}");
    world.postgres.set_conf("pg_redis_cache.url", &plain_to_tls);
    world.wait_for_status("NOT connected AND last_error LIKE 'lost: %rediss://%'");
    let (state, detail, _) = refused(&mut world.connect(), "SELECT redis_cache.get('t', '1')");
    assert_eq!(state, SqlState::CONNECTION_FAILURE, "{detail}");
    assert!(detail.contains("rediss://"), "{detail}");

    let tls_to_plain = world.redis.url().replace("redis:", "rediss:");
    set_path(&world, "tls_ca_file", &secure.authority.certificate());
    serve(&mut client, &format!("host_port {}", literal(&tls_to_plain)));
    assert_no_tls(&mut client, "");
    world.postgres.set_conf("pg_redis_cache.url", &tls_to_plain);
    world.wait_for_status("NOT connected AND last_error LIKE 'TLS: %'");

    world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    world.wait_for_status("connected");
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "yes");
    let mut client = world.connect();
    let stranger = Authority::new("another authority").issue("stranger", &["client"], Validity::Now);
    let own = secure.authority.issue("client", &["client"], Validity::Now);
    set_path(&world, "tls_ca_file", &secure.authority.certificate());
    world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    serve(&mut client, &options(&secure));
    assert_no_tls(&mut client, "alert");
    world.wait_for_status("NOT connected AND last_error LIKE 'TLS: %alert%'");
    let with = |paper: &Paper| {
        format!(
            "{}, tls_cert_file {}, tls_key_file {}",
            options(&secure),
            quoted(&paper.certificate),
            quoted(&paper.key)
        )
    };
    // The authority of a stranger's paper is gone, and its files with it.
    serve(&mut client, &with(&stranger));
    let (state, detail, _) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::CONFIG_FILE_ERROR, "{detail}");
    let other = Authority::new("another authority");
    serve(
        &mut client,
        &with(&other.issue("stranger", &["client"], Validity::Now)),
    );
    assert_no_tls(&mut client, "alert");
    let expired = secure.authority.issue("late", &["client"], Validity::Past);
    serve(&mut client, &with(&expired));
    assert_no_tls(&mut client, "Expired");
    set_path(&world, "tls_cert_file", &expired.certificate);
    set_path(&world, "tls_key_file", &expired.key);
    world.wait_for_status("NOT connected AND last_error LIKE 'TLS: %Expired%'");
    serve(&mut client, &with(&own));
    assert_eq!(count(&mut client), 0);
    set_path(&world, "tls_cert_file", &own.certificate);
    set_path(&world, "tls_key_file", &own.key);
    world.wait_for_status("connected");
    // A server with an address of its own does not show the settings' certificate; one without does.
    serve(&mut client, &options(&secure));
    assert_no_tls(&mut client, "alert");
    client
        .batch_execute("CREATE FOREIGN TABLE own (field text, value text) SERVER redis_cache OPTIONS (table_type 'hash', table_key_prefix 'h')")
        .unwrap();
    assert_eq!(client.query("SELECT * FROM own", &[]).unwrap().len(), 0);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "yes");
    let mut client = world.connect();
    let own = secure.authority.issue("client", &["client"], Validity::Now);
    let other = secure.authority.issue("other", &["client"], Validity::Now);
    let nothing = secure.authority.write("nothing.pem", "no certificate", 0o644);
    let open = secure.authority.issue("open", &["client"], Validity::Now);
    set_permissions(&open.key, Permissions::from_mode(0o640)).unwrap();
    let folder = secure.authority.folder().to_owned();
    let missing = folder.join("missing.pem");
    let authority = secure.authority.certificate();
    world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    for (authorities, certificate, key, why) in [
        (&missing, None, None, "missing.pem\" cannot be read: No such file"),
        (&folder, None, None, "is not a regular file"),
        (&nothing, None, None, "nothing.pem\" has no valid certificate"),
        (&authority, Some(&own.certificate), None, "must be given together"),
        (
            &authority,
            Some(&own.certificate),
            Some(&nothing),
            "can be read by others",
        ),
        (
            &authority,
            Some(&own.certificate),
            Some(&open.key),
            "open.key\" can be read by others",
        ),
        (
            &authority,
            Some(&own.certificate),
            Some(&other.key),
            "is not that of the certificate",
        ),
        (
            &authority,
            Some(&nothing),
            Some(&own.key),
            "nothing.pem\" has no valid certificate",
        ),
    ] {
        let option = |name: &str, path: Option<&PathBuf>| match path {
            Some(path) => format!(", {name} {}", quoted(path)),
            None => String::new(),
        };
        let options = format!(
            "host_port {}{}{}{}",
            literal(&secure.url()),
            option("tls_ca_file", Some(authorities)),
            option("tls_cert_file", certificate),
            option("tls_key_file", key)
        );
        serve(&mut client, &options);
        let (state, detail, hint) = refused(&mut client, "SELECT * FROM h");
        assert_eq!(state, SqlState::CONFIG_FILE_ERROR, "{detail}");
        assert!(detail.contains(why), "{detail}");
        assert!(!hint.is_empty());
        let none = PathBuf::new();
        set_path(&world, "tls_ca_file", authorities);
        set_path(&world, "tls_cert_file", certificate.unwrap_or(&none));
        set_path(&world, "tls_key_file", key.unwrap_or(&none));
        world.wait_for_status(&format!(
            "last_error LIKE {}",
            literal(&format!("TLS: %{why}% (rediss://%)"))
        ));
    }
    set_path(&world, "tls_cert_file", &own.certificate);
    set_path(&world, "tls_key_file", &own.key);
    world.wait_for_status("connected");
    if let Ok(group) = std::fs::metadata(&own.key).map(|metadata| metadata.gid())
        && chown(&own.key, Some(0), Some(group)).is_ok()
    {
        // Root's own may be readable by the server's group, but not written.
        for (mode, works) in [(0o640, true), (0o660, false), (0o644, false), (0o640, true)] {
            set_permissions(&own.key, Permissions::from_mode(mode)).unwrap();
            let options = format!(
                "{}, tls_cert_file {}, tls_key_file {}",
                options(&secure),
                quoted(&own.certificate),
                quoted(&own.key)
            );
            serve(&mut client, &options);
            assert_eq!(client.query("SELECT * FROM h", &[]).is_ok(), works, "{mode:o}");
        }
    }
    assert!(!world.postgres.log().contains("PRIVATE"), "a key is in the log");
}

#[test]
fn what_a_reload_brings_holds_for_new_connections() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    let file = secure.authority.write("trusted.pem", "", 0o644);
    set_path(&world, "tls_ca_file", &file);
    world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    world.wait_for_status("last_error LIKE 'TLS: %trusted.pem%'");
    let other = Authority::new("another authority");
    let copy = |authority: &Authority| {
        let text = std::fs::read_to_string(authority.certificate()).unwrap();
        secure.authority.write("trusted.pem", &text, 0o644);
        world.postgres.reload();
    };
    copy(&other);
    world.wait_for_status("NOT connected AND last_error LIKE '%UnknownIssuer%'");
    // Nothing but the file's content has changed.
    copy(&secure.authority);
    world.wait_for_status("connected");
    let mut client = world.connect();
    // The authorities of the settings are there for every server.
    serve(&mut client, &format!("host_port {}", literal(&secure.url())));
    assert_eq!(count(&mut client), 0);
}

#[test]
fn only_a_superuser_names_files() {
    let secure = Secure::new();
    let world = world_of(&secure, &secure.server(), "no");
    set_path(&world, "tls_ca_file", &secure.authority.certificate());
    world.execute("CREATE ROLE plain; GRANT USAGE ON FOREIGN DATA WRAPPER redis_cache_fdw TO plain; GRANT ALL ON SCHEMA public TO plain");
    let mut client = world.connect();
    client.batch_execute("SET ROLE plain").unwrap();
    for option in ["tls_ca_file", "tls_cert_file", "tls_key_file"] {
        let sql = format!(
            "CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port {}, {option} '/etc/shadow')",
            literal(&secure.url())
        );
        let (state, detail, _) = refused(&mut client, &sql);
        assert_eq!(state, SqlState::INSUFFICIENT_PRIVILEGE, "{detail}");
    }
    serve(
        &mut client,
        &format!("host_port {}, tls_verify 'ca'", literal(&secure.url())),
    );
    eventually("the setting to be read", SOON, || {
        client.query("SELECT * FROM h", &[]).ok()
    });
    let sql = "ALTER SERVER r OPTIONS (ADD tls_key_file '/etc/shadow')";
    assert_eq!(refused(&mut client, sql).0, SqlState::INSUFFICIENT_PRIVILEGE);
    // Nor by way of a wrapper without a validator.
    client
        .batch_execute(
            "RESET ROLE;
             CREATE FOREIGN DATA WRAPPER bare HANDLER redis_cache.redis_fdw_handler;
             GRANT USAGE ON FOREIGN DATA WRAPPER bare TO plain;
             SET ROLE plain",
        )
        .unwrap();
    for options in [
        String::new(),
        format!(
            "OPTIONS (host_port {}, tls_ca_file '/etc/shadow')",
            literal(&secure.url())
        ),
    ] {
        client
            .batch_execute(&format!(
                "DROP SERVER IF EXISTS b CASCADE; CREATE SERVER b FOREIGN DATA WRAPPER bare {options};
                 CREATE FOREIGN TABLE b (field text, value text) SERVER b OPTIONS (table_type 'hash', table_key_prefix 'h')"
            ))
            .unwrap();
        let (state, detail, _) = refused(&mut client, "SELECT * FROM b");
        assert_eq!(state, SqlState::INSUFFICIENT_PRIVILEGE, "{options}: {detail}");
    }
    // What a superuser has put there cannot be led elsewhere by its owner.
    client.batch_execute("RESET ROLE").unwrap();
    let own = secure.authority.issue("client", &["client"], Validity::Now);
    let sql = format!(
        "ALTER SERVER r OPTIONS (ADD tls_cert_file {}, ADD tls_key_file {})",
        quoted(&own.certificate),
        quoted(&own.key)
    );
    client.batch_execute(&sql).unwrap();
    client.batch_execute("SET ROLE plain").unwrap();
    let sql = "ALTER SERVER r OPTIONS (SET host_port 'rediss://elsewhere.test')";
    assert_eq!(refused(&mut client, sql).0, SqlState::INSUFFICIENT_PRIVILEGE);
}
