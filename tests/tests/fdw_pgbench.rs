//! Many sessions of pgbench at once, with prepared statements on foreign tables: no statement fails, each finds what it
//! should, and every change is there at the end.

use pg_redis_cache_tests::{World, number};
use postgres::Client;

const CLIENTS: i64 = 8;
const TRANSACTIONS: i64 = 60;
const FIELDS: i64 = 20_000;

/// A join that is to look ahead, of 300 local rows.
const JOIN: &str = "ids JOIN h ON h.field = ids.f WHERE ids.id BETWEEN :id AND :id + 299";

/// Each statement that reads divides by zero if it does not find what is there.
fn script() -> String {
    format!(
        "\\set id random(1, 10000)
        INSERT INTO h VALUES ('own:' || :client_id, :id);
        SELECT 1 / count(*) FROM h WHERE field = 'own:' || :client_id AND value = :id::text;
        UPDATE h SET value = value || '!' WHERE field = 'own:' || :client_id;
        UPDATE s SET value = value + 1 WHERE key = 's:' || :client_id;
        SELECT 1 / (value = :id || '!')::int FROM h WHERE field = 'own:' || :client_id;
        SELECT 1 / (count(*) = 3 AND min(value) = max(value))::int FROM h
            WHERE field IN (:id::text, (:id + 1)::text, (:id + 2)::text, 'absent');
        SELECT 1 / (count(*) = 300 AND sum(h.field::int - ids.id) = 0)::int FROM {JOIN};
        INSERT INTO l VALUES (:client_id);
        DELETE FROM h WHERE field = 'gone:' || :client_id;
        INSERT INTO h VALUES ('gone:' || :client_id, 'and back');\n"
    )
}

fn world() -> World {
    let world = World::builder().start();
    world.execute(&format!(
        "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:{}');
         CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h');
         CREATE FOREIGN TABLE l (element text) SERVER r OPTIONS (table_type 'list', table_key_prefix 'l');
         CREATE FOREIGN TABLE s (key text, value int) SERVER r OPTIONS (table_type 'string', table_key_prefix 's:*');
         CREATE TABLE ids (id int PRIMARY KEY, f text);
         INSERT INTO ids SELECT i, i FROM generate_series(1, {FIELDS}) i;
         INSERT INTO h SELECT i, 'value' FROM generate_series(1, {FIELDS}) i;
         INSERT INTO s SELECT 's:' || i, 0 FROM generate_series(0, {CLIENTS} - 1) i;
         ANALYZE ids; ANALYZE h",
        world.redis.port()
    ));
    world
}

/// Whether the script's join looks ahead when its plan is made for these.
fn looks_ahead(client: &mut Client, plans: &str) -> bool {
    let join = JOIN.replace(":id", "$1");
    client
        .batch_execute(&format!(
            "SET plan_cache_mode = {plans}; PREPARE j (int) AS SELECT * FROM {join}"
        ))
        .expect("it can be prepared");
    let plan = client
        .simple_query("EXPLAIN EXECUTE j (500)")
        .expect("it can be explained");
    client.batch_execute("DEALLOCATE j").expect("it was prepared");
    format!("{plan:?}").contains("Redis Look-Ahead")
}

#[test]
fn prepared_statements_of_many_sessions_find_and_change_what_they_should() {
    let world = world();
    let script_file = world.redis.folder().join("script.sql");
    std::fs::write(&script_file, script()).expect("the folder is ours");
    let mut client = world.connect();
    let modes = ["force_generic_plan", "auto", "force_custom_plan"];
    for (done, plans) in (1..).zip(modes) {
        assert!(looks_ahead(&mut client, plans), "{plans}");
        let mut pgbench = world.postgres.command("pgbench");
        pgbench
            .args(["-n", "-M", "prepared", "-j", "2", "-c"])
            .arg(CLIENTS.to_string());
        pgbench
            .arg("-t")
            .arg(TRANSACTIONS.to_string())
            .arg("-f")
            .arg(&script_file);
        let output = pgbench
            .env("PGOPTIONS", format!("-c plan_cache_mode={plans}"))
            .output()
            .expect("pgbench can be run");
        let (printed, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{plans}: {errors}");
        let all = CLIENTS * TRANSACTIONS;
        assert!(
            printed.contains(&format!("transactions actually processed: {all}/{all}\n")),
            "{printed}"
        );
        assert!(printed.contains("failed transactions: 0 "), "{printed}");
        assert_eq!(
            number(&mut client, "SELECT count(*) FROM h"),
            FIELDS + 2 * CLIENTS
        );
        assert_eq!(number(&mut client, "SELECT count(*) FROM l"), done * all);
        let raised = format!("SELECT count(*) FROM s WHERE value = {}", done * TRANSACTIONS);
        assert_eq!(number(&mut client, &raised), CLIENTS);
    }
}
