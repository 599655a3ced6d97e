-- Since PostgreSQL 17 MERGE hands back the rows that it changes, and their keys are written. The other expected file is
-- that of earlier versions.
SELECT current_setting('server_version_num')::int < 170000 AS old \gset
\if :old
\quit
\endif
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE stock (shop int, item int, amount int, PRIMARY KEY (shop, item)) PARTITION BY LIST (shop);
CREATE TABLE stock_1 PARTITION OF stock FOR VALUES IN (1);
CREATE TABLE stock_2 (amount int, gone int, item int NOT NULL, shop int NOT NULL);
ALTER TABLE stock_2 DROP COLUMN gone;
ALTER TABLE stock ATTACH PARTITION stock_2 FOR VALUES IN (2);
CREATE TABLE news (id int, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 5) n;
INSERT INTO stock SELECT n % 2 + 1, n, n FROM generate_series(1, 6) n;
INSERT INTO news VALUES (1, 'first'), (2, NULL), (9, 'ninth');
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users; '
    'new:{id} => SELECT name FROM users WITH (name = new, insert = set); stock:{shop}:{item} => SELECT amount FROM stock';
\! reload
UPDATE users SET name = name;
UPDATE stock SET amount = amount;
SELECT redis_cache.wait();
-- Updated, deleted, inserted (stored only by the mapping that stores new rows).
MERGE INTO users u USING news n ON n.id = u.id
    WHEN MATCHED AND n.name IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET name = n.name
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.name)
    WHEN NOT MATCHED BY SOURCE AND u.id = 4 THEN DELETE
    WHEN NOT MATCHED BY SOURCE AND u.id = 5 THEN UPDATE SET name = 'unknown';
\! cached user:*
\! cached new:*
-- With a RETURNING of its own.
MERGE INTO users u USING (VALUES (1, 'once'), (3, NULL), (10, 'tenth')) n (id, name) ON n.id = u.id
    WHEN MATCHED AND n.name IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET name = n.name
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.name)
    RETURNING merge_action(), u.id, n.name;
\! cached user:*
-- In a WITH list, read and not read.
WITH m AS (MERGE INTO users u USING (VALUES (1, 'with'), (5, NULL)) n (id, name) ON n.id = u.id
        WHEN MATCHED AND n.name IS NULL THEN DELETE
        WHEN MATCHED THEN UPDATE SET name = n.name RETURNING u.id)
    SELECT count(*) FROM m;
WITH m AS (MERGE INTO users u USING (VALUES (9, 'unread')) n (id, name) ON n.id = u.id
        WHEN MATCHED THEN UPDATE SET name = n.name)
    SELECT 'done';
\! cached user:*
-- Keys that change, with and without RETURNING.
MERGE INTO users u USING (VALUES (1, 21), (9, 29)) n (id, other) ON n.id = u.id
    WHEN MATCHED THEN UPDATE SET id = n.other;
MERGE INTO users u USING (VALUES (21, 31)) n (id, other) ON n.id = u.id
    WHEN MATCHED THEN UPDATE SET id = n.other RETURNING u.id, u.name;
\! cached user:*
-- Rows that move to another partition, whose columns are in another order; rows deleted from either.
MERGE INTO stock s USING (VALUES (1, 2, 2), (2, 1, 1), (1, 4, 1), (2, 3, NULL), (1, 6, NULL)) n (shop, item, other)
    ON n.shop = s.shop AND n.item = s.item
    WHEN MATCHED AND n.other IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET shop = n.other, amount = s.amount + 100;
\! cached stock:*
MERGE INTO stock s USING (VALUES (2, 2, 1), (2, 5, NULL)) n (shop, item, other)
    ON n.shop = s.shop AND n.item = s.item
    WHEN MATCHED AND n.other IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET shop = n.other
    RETURNING merge_action(), s.shop, s.item, s.amount;
\! cached stock:*
-- A BEFORE trigger that changes the key, and one that holds a row back.
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'moved' THEN NEW.id := NEW.id + 100; END IF;
    IF NEW.name = 'held' THEN RETURN NULL; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION meddle();
SELECT await_state('users', 'active');
SELECT await_state('new', 'active');
UPDATE users SET name = 'before' WHERE id IN (29, 31);
SELECT redis_cache.wait();
MERGE INTO users u USING (VALUES (29, 'moved'), (31, 'held'), (50, 'moved'), (51, 'held')) n (id, name) ON n.id = u.id
    WHEN MATCHED THEN UPDATE SET name = n.name
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.name);
\! cached user:*
\! cached new:*
DROP TRIGGER meddle ON users;
-- None of this has purged a mapping.
SELECT name, reason, count FROM redis_cache.purges WHERE reason NOT IN ('activated', 'ddl') ORDER BY 1, 2;
-- A prepared one, run again and again, also once planned for good.
SELECT await_state('users', 'active');
PREPARE m (int, text) AS MERGE INTO users u USING (VALUES ($1, $2)) n (id, name) ON n.id = u.id
    WHEN MATCHED THEN UPDATE SET name = n.name;
SET plan_cache_mode = force_generic_plan;
EXECUTE m (31, 'a');
EXECUTE m (31, 'b');
EXECUTE m (129, 'c');
\! cached user:*
-- By way of a view.
CREATE VIEW seen AS SELECT name AS called, id AS number FROM users WHERE id > 100 WITH CHECK OPTION;
MERGE INTO seen s USING (VALUES (129, 'seen'), (31, 'not seen'), (200, 'new')) n (id, name) ON n.id = s.number
    WHEN MATCHED THEN UPDATE SET called = n.name
    WHEN NOT MATCHED AND n.id > 100 THEN INSERT VALUES (n.name, n.id)
    RETURNING merge_action(), s.*;
\! cached user:*
\! cached new:200
MERGE INTO seen s USING (VALUES (129)) n (id) ON n.id = s.number WHEN MATCHED THEN DELETE;
\! cached user:*
-- Partitions that are pruned when it starts.
PREPARE p (int, int) AS MERGE INTO stock s USING (VALUES ($2)) n (item) ON s.shop = $1 AND s.item = n.item
    WHEN MATCHED AND s.amount > 1000 THEN DELETE
    WHEN MATCHED THEN UPDATE SET shop = 3 - s.shop, amount = s.amount + 1000;
EXECUTE p (1, 1);
EXECUTE p (2, 9);
EXECUTE p (3, 1);
\! cached stock:*
EXECUTE p (2, 1);
\! cached stock:*
