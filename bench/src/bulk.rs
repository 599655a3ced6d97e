//! One UPDATE of 500,000 rows.

use pg_redis_cache_tests::{Postgres, World};
use postgres::Client;

use crate::Effort;
use crate::load::{STEADY, reconfigure, seconds, settle};
use crate::report::{Aim, Section};

const AIM: Aim = Aim::AtMost(1.3);

/// As pgbench_accounts, which is a primary key and 84 bytes of filler. The free half of the file is kept, so
/// that every round finds the same table.
const TABLE: &str = "
    CREATE TABLE bulk (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (vacuum_truncate = off);
    INSERT INTO bulk SELECT n, n % 10, 0, '' FROM generate_series(1, 500000) AS n;";

/// The cheapest trigger in PL/pgSQL that does something.
const TRIGGER: &str = "
    CREATE FUNCTION count_row() RETURNS trigger LANGUAGE plpgsql AS
        $$ DECLARE n int := 0; BEGIN n := n + 1; RETURN NULL; END $$;
    CREATE TRIGGER count_row AFTER UPDATE ON bulk FOR EACH ROW EXECUTE FUNCTION count_row();";

const UPDATE: &str = "UPDATE bulk SET abalance = abalance + 1";

const BUFFER: &str = "pg_redis_cache.transaction_buffer";

/// The statement on a plain server, on one with the table mapped, and with a trigger.
pub fn measure(effort: Effort) -> Section {
    let rounds = effort.pick(3, 9);
    let mut section = Section::new(
        "An UPDATE of 500,000 rows",
        "A table of pgbench_accounts' shape, VACUUM and CHECKPOINT before each statement, in turns. \"Mapped\" is with \
         the default transaction_buffer of 32MB, which such a transaction exceeds: its keys are then deleted rather \
         than set. \"Mapped, all set\" is with a buffer and a queue of 512MB. The trigger is an AFTER UPDATE row \
         trigger in PL/pgSQL that adds 1 to a variable of its own.",
    );
    let plain = Postgres::builder().conf_text(STEADY).start();
    let trigger = Postgres::builder().conf_text(STEADY).start();
    let mapped = World::builder()
        .conf_text(STEADY)
        .conf("pg_redis_cache.queue_size", "512MB")
        .start();
    for server in [&plain, &trigger, &mapped.postgres] {
        server
            .connect()
            .batch_execute(TABLE)
            .expect("a table can be made");
    }
    trigger
        .connect()
        .batch_execute(TRIGGER)
        .expect("a trigger can be made");
    mapped.set_mappings("bulk:{aid} => SELECT bid, abalance FROM public.bulk");

    let mut values: [Vec<f64>; 4] = Default::default();
    // The file has come to its size after two statements.
    for round in 0..rounds + 2 {
        reconfigure(&mapped.postgres, BUFFER, "32MB");
        let deleting = update(&mut mapped.connect());
        settle(&mapped);
        reconfigure(&mapped.postgres, BUFFER, "512MB");
        let setting = update(&mut mapped.connect());
        settle(&mapped);
        let times = [
            update(&mut plain.connect()),
            deleting,
            setting,
            update(&mut trigger.connect()),
        ];
        if round >= 2 {
            values
                .iter_mut()
                .zip(times)
                .for_each(|(values, time)| values.push(time));
        }
    }

    let [plain, deleting, setting, trigger] = values;
    let plain = section.case("without the library", "s", plain);
    let deleting = section.case("mapped", "s", deleting);
    let setting = section.case("mapped, all set", "s", setting);
    let trigger = section.case("a trigger that counts", "s", trigger);
    section.ratio("mapped / without", deleting, plain, Some(AIM));
    section.ratio("mapped, all set / without", setting, plain, Some(AIM));
    section.ratio("trigger / without", trigger, plain, None);
    section
}

fn update(client: &mut Client) -> f64 {
    for statement in ["VACUUM bulk", "CHECKPOINT"] {
        client.batch_execute(statement).expect("a table can be cleaned");
    }
    seconds(|| client.batch_execute(UPDATE).expect("rows can be changed"))
}
