-- RETURNING OLD and NEW, which PostgreSQL has since 18. The other expected file is that of earlier versions.
SELECT current_setting('server_version_num')::int < 180000 AS old \gset
\if :old
\quit
\endif
CREATE TABLE users (id int PRIMARY KEY, name text, visits int DEFAULT 0);
CREATE TABLE stock (shop int, item int, amount int, PRIMARY KEY (shop, item)) PARTITION BY LIST (shop);
CREATE TABLE stock_1 PARTITION OF stock FOR VALUES IN (1);
CREATE TABLE stock_2 (amount int, gone int, item int NOT NULL, shop int NOT NULL);
ALTER TABLE stock_2 DROP COLUMN gone;
ALTER TABLE stock ATTACH PARTITION stock_2 FOR VALUES IN (2);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, visits FROM users WITH (insert = set); '
    'stock:{shop}:{item} => SELECT amount FROM stock WITH (insert = set)';
\! reload
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 6) n RETURNING old.id, new.id;
INSERT INTO stock VALUES (1, 1, 10), (2, 2, 20), (1, 3, 30) RETURNING WITH (OLD AS o, NEW AS n) o.*, n.*;
UPDATE users SET visits = visits + 1 WHERE id < 3 RETURNING old.visits, new.visits;
UPDATE users SET id = id + 10 WHERE id = 2 RETURNING old, new;
DELETE FROM users WHERE id = 3 RETURNING old.name, new.name;
INSERT INTO users VALUES (1, 'again'), (7, 'user 7') ON CONFLICT (id) DO UPDATE SET name = excluded.name
    RETURNING old.name, new.name;
INSERT INTO users VALUES (4, 'u', 9) ON CONFLICT (id) DO NOTHING RETURNING old.name, new.name;
\! cached user:*
-- Rows that move to another partition and their old versions, in the columns of the table.
UPDATE stock SET shop = 3 - shop, amount = amount + 1 WHERE item < 3 RETURNING old.*, new.*, old.tableoid::regclass, new.tableoid::regclass;
DELETE FROM stock WHERE item = 3 RETURNING old.*, new.*;
MERGE INTO stock s USING (VALUES (2, 1, NULL), (1, 2, 2), (2, 9, 1)) n (shop, item, other) ON n.shop = s.shop AND n.item = s.item
    WHEN MATCHED AND n.other IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET shop = n.other
    WHEN NOT MATCHED THEN INSERT VALUES (n.shop, n.item, 90)
    RETURNING merge_action(), old.*, new.*;
\! cached stock:*
-- Where a trigger changes the row, and where the RETURNING list changes it again.
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.visits := 100; RETURN NEW; END $$;
CREATE TRIGGER meddle BEFORE UPDATE OF name ON users FOR EACH ROW EXECUTE FUNCTION meddle();
CREATE FUNCTION again(int) RETURNS int LANGUAGE sql AS 'UPDATE users SET visits = 200 WHERE id = $1 RETURNING old.visits';
SELECT await_state('users', 'active');
UPDATE users SET name = 'triggered' WHERE id = 5 RETURNING old.*, new.*;
UPDATE users SET visits = 1 WHERE id = 6 RETURNING old.visits, new.visits, again(new.id);
SELECT * FROM users WHERE id > 4 ORDER BY id;
\! cached user:[567]
SELECT name, reason, count FROM redis_cache.purges WHERE reason NOT IN ('activated', 'ddl') ORDER BY 1, 2;
