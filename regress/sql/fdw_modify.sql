-- Writing through more than plain statements: COPY, triggers, views, partitions, generated columns, rules of privilege.
SELECT make_redis_server();
CREATE FOREIGN TABLE h (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE l (element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'l');
COPY h FROM stdin WITH (FORMAT csv);
a,1
b,""
c,3
\.
COPY h FROM stdin;
d	\N
\.
COPY (SELECT * FROM h ORDER BY field) TO stdout;
INSERT INTO h VALUES ('e', '5') ON CONFLICT DO NOTHING;
INSERT INTO h VALUES ('e', '5') ON CONFLICT (field) DO UPDATE SET value = 'x';
INSERT INTO h DEFAULT VALUES;
MERGE INTO h USING (VALUES ('a')) v(f) ON field = f WHEN MATCHED THEN DELETE;
SELECT * FROM h WHERE field = 'a' FOR UPDATE;

-- what fails writes nothing of a single batch
INSERT INTO h SELECT 'n' || i, 10 / (3 - i) FROM generate_series(1, 5) i;
SELECT count(*) FROM h;
-- Redis knows no rollback
BEGIN;
INSERT INTO h VALUES ('rolled', 'back');
ROLLBACK;
SELECT * FROM h WHERE field = 'rolled';
DELETE FROM h WHERE field = 'rolled';

-- WITH, joins, sub-selects
CREATE TABLE local (f text PRIMARY KEY, n int);
INSERT INTO local VALUES ('a', 100), ('c', 300), ('x', 900);
UPDATE h SET value = n FROM local WHERE field = f RETURNING field, value, n;
DELETE FROM h USING local WHERE field = f AND n = 300 RETURNING h.*, local.*;
WITH moved AS (DELETE FROM h WHERE field = 'a' RETURNING *) INSERT INTO l SELECT field || value FROM moved;
WITH added AS (INSERT INTO h SELECT f, n FROM local RETURNING value) SELECT sum(value::int) FROM added;
SELECT * FROM l;
SELECT * FROM h ORDER BY field;
INSERT INTO h SELECT element, 'from the list' FROM l RETURNING *;

-- triggers see the rows, and what they change is written
CREATE FUNCTION upper_value() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.value := upper(NEW.value);
    RETURN NEW;
END $$;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '% % %, in Redis %', TG_OP, OLD, NEW, (SELECT count(*) FROM h);
    RETURN NULL;
END $$;
CREATE TRIGGER upper_value BEFORE INSERT OR UPDATE ON h FOR EACH ROW EXECUTE FUNCTION upper_value();
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON h FOR EACH ROW EXECUTE FUNCTION tell();
INSERT INTO h VALUES ('t1', 'one'), ('t2', 'two');
UPDATE h SET value = value || 'x' WHERE field = 't1';
DELETE FROM h WHERE field LIKE 't_';
DROP TRIGGER tell ON h;
DROP TRIGGER upper_value ON h;

-- views
CREATE VIEW v AS SELECT field, value FROM h WHERE field LIKE 'v%' WITH CHECK OPTION;
INSERT INTO v VALUES ('v1', 'x');
INSERT INTO v VALUES ('w1', 'x');
UPDATE v SET value = 'y';
UPDATE v SET field = 'w';
DELETE FROM v RETURNING *;

-- generated columns and defaults
CREATE FOREIGN TABLE g (field text, value int GENERATED ALWAYS AS (length(field)) STORED) SERVER redis_server
    OPTIONS (table_type 'hash', table_key_prefix 'g');
INSERT INTO g VALUES ('abc');
UPDATE g SET field = field || 'd';
SELECT * FROM g;
\! redis HGETALL g
ALTER FOREIGN TABLE h ALTER COLUMN value SET DEFAULT 'by default';
INSERT INTO h (field) VALUES ('d') RETURNING *;

-- partitions and children
CREATE TABLE parted (field text, value text) PARTITION BY LIST (left(field, 1));
CREATE FOREIGN TABLE part_a PARTITION OF parted FOR VALUES IN ('a') SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'part:a');
CREATE FOREIGN TABLE part_b PARTITION OF parted FOR VALUES IN ('b') SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'part:b');
CREATE TABLE part_c PARTITION OF parted FOR VALUES IN ('c');
INSERT INTO parted SELECT chr(97 + i % 3) || i, i FROM generate_series(1, 9) i;
SELECT tableoid::regclass, * FROM parted ORDER BY field;
UPDATE parted SET value = value || '!' WHERE field IN ('a3', 'b1', 'c2');
DELETE FROM parted WHERE field IN ('a6', 'b4', 'c5') RETURNING *;
COPY parted FROM stdin;
a10	x
b10	y
\.
INSERT INTO parted VALUES ('a11', '') ON CONFLICT DO NOTHING;
SELECT tableoid::regclass, * FROM parted ORDER BY field COLLATE "C";
TRUNCATE parted;
\! redis EXISTS part:a part:b

-- types of keys are guarded
\! redis SET h2 string
CREATE FOREIGN TABLE wrong (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h2');
SELECT * FROM wrong;
INSERT INTO wrong VALUES ('a', 'b');
DELETE FROM wrong;
TRUNCATE wrong;
\! redis GET h2
TRUNCATE h, l, g;
\! redis EXISTS h l g
-- a statement that reads its own table once more does not see its own changes
CREATE FOREIGN TABLE twice (f text, v text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'twice', batch_size '100');
INSERT INTO twice SELECT i, i % 3000 + 1 FROM generate_series(1, 3000) i;
ANALYZE twice;
SET enable_hashjoin = off; SET enable_mergejoin = off;
UPDATE twice SET v = b.v || 'x' FROM twice b WHERE twice.v = b.f;
SELECT count(*) FILTER (WHERE v LIKE '%xx') AS of_changed, count(*) FILTER (WHERE v LIKE '%x') AS changed FROM twice;
RESET enable_hashjoin; RESET enable_mergejoin;
