-- A mapping as a table: its columns by name, point lookups by its keys, DELETE invalidates.
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE users (id int PRIMARY KEY, name text, born date, tags text[], mood mood, score numeric(6,2), active bool, raw bytea);
CREATE TABLE places (country text, zip int, name varchar(20), PRIMARY KEY (country, zip));
CREATE TABLE notes (id uuid PRIMARY KEY, body text);
INSERT INTO users SELECT i, 'user ' || i, '2000-01-01'::date + i, ARRAY['a', NULL, i::text], 'good', i * 1.5, i % 2 = 0, '\x00ff'
    FROM generate_series(1, 5) i;
INSERT INTO users (id, name) VALUES (6, NULL);
INSERT INTO places SELECT c, z, c || z FROM unnest(ARRAY['de', 'ch', 'd:e']) c, generate_series(1, 3) z;
INSERT INTO notes VALUES ('00000000-0000-0000-0000-00000000000a', 'a "note"');
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT * FROM users WITH (ttl = 1000, fill = any); '
    'u:{id} => SELECT name, born, tags, mood, score, active, raw FROM users WITH (name = users_json, format = json, fill = any); '
    'place:{country}:{zip} => SELECT name FROM places WITH (fill = any); '
    'note:{id} => SELECT body FROM notes WITH (format = string, fill = any); '
    'broken:{id} => SELECT x FROM users WITH (name = broken)';
\! reload
CREATE SCHEMA cached;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached;
\d cached.*
SELECT count(*) FROM cached.users;
-- what reads have put into the cache
SELECT count(*) FROM users; SELECT count(*) FROM (SELECT * FROM users OFFSET 0) u; SELECT count(*) FROM (SELECT * FROM places OFFSET 0) p; SELECT count(*) FROM (SELECT * FROM notes OFFSET 0) n;
SELECT redis_cache.wait();
SELECT * FROM cached.users WHERE id < 3 ORDER BY id;
TABLE users EXCEPT TABLE cached.users ORDER BY id;
SELECT id, name, born, tags, mood, score, active, raw FROM users EXCEPT SELECT id, name, born, tags, mood, score, active, raw FROM cached.users_json;
TABLE places EXCEPT TABLE cached.places ORDER BY 1, 2;
TABLE cached.notes;
-- by key
SELECT id, name FROM cached.users WHERE id = 3;
SELECT id, name FROM cached.users_json WHERE id IN (2, 4, 77) ORDER BY id;
SELECT * FROM cached.places WHERE country = 'de' AND zip = 2;
SELECT * FROM cached.places WHERE country = 'd:e' AND zip IN (1, 3) ORDER BY zip;
SELECT * FROM cached.places WHERE country = 'ch' ORDER BY zip;
SELECT * FROM cached.places WHERE zip = 2 ORDER BY country;
SELECT * FROM cached.notes WHERE id = '00000000-0000-0000-0000-00000000000A';
EXPLAIN (COSTS OFF) SELECT * FROM cached.users WHERE id = 3;
EXPLAIN (COSTS OFF) SELECT * FROM cached.users_json WHERE id = ANY ('{1,2}');
EXPLAIN (COSTS OFF) SELECT * FROM cached.places WHERE country = 'ch';
EXPLAIN (COSTS OFF) SELECT * FROM cached.notes;
SET plan_cache_mode = force_generic_plan;
PREPARE by_id(int) AS SELECT name FROM cached.users WHERE id = $1;
EXECUTE by_id(1); EXECUTE by_id(2);
-- in step with the tables
UPDATE users SET name = 'new name' WHERE id = 1;
DELETE FROM users WHERE id = 2;
SELECT redis_cache.wait();
SELECT id, name FROM cached.users WHERE id IN (1, 2);
-- DELETE and TRUNCATE invalidate; nothing else is allowed
DELETE FROM cached.users WHERE id = 3 RETURNING id, name;
DELETE FROM cached.places WHERE country = 'd:e' AND zip = 1;
\! redis EXISTS user:3 place:d:e:1
\! redis EXISTS user:4 place:d:e:2
INSERT INTO cached.users (id, name) VALUES (9, 'x');
UPDATE cached.users SET name = 'x';
TRUNCATE cached.places;
SELECT count(*) FROM cached.places;
\! redis EXISTS place:d:e:2
-- keys that are none of the mapping's are left out, other types too
\! redis HSET user:4:cart name cart
\! redis HSET user:007 name bond
\! redis SET user:8 string
SELECT id FROM cached.users ORDER BY id;
SELECT id FROM cached.users WHERE id = 8;
-- tables of one's own
CREATE FOREIGN TABLE mine (name text, id bigint, ttl int) SERVER redis_cache OPTIONS (mapping 'users');
SELECT name, id, ttl > 900 AS ttl FROM mine WHERE id = 1;
CREATE FOREIGN TABLE wrong (id int, address text) SERVER redis_cache OPTIONS (mapping 'users');
SELECT * FROM wrong;
CREATE FOREIGN TABLE nobody (id int) SERVER redis_cache OPTIONS (mapping 'nobody');
SELECT * FROM nobody;
CREATE FOREIGN TABLE broken (id int) SERVER redis_cache OPTIONS (mapping 'broken');
SELECT * FROM broken;
CREATE FOREIGN TABLE t (id int) SERVER redis_cache OPTIONS (mapping 'users', table_typ 'hash');

-- tables for the keys of a pattern
SELECT make_redis_server();
\! redis MSET import:config:version v1.0 import:config:env production import:single x import:we*rd x
\! redis HSET import:user:1001 name Alice
\! redis XADD import:log:1 1-1 level info select x
\! redis RPUSH import:user:list a b
CREATE SCHEMA imported;
IMPORT FOREIGN SCHEMA "import:*" EXCEPT (import) FROM SERVER redis_server INTO imported;
SELECT c.relname, (SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0) AS columns, t.ftoptions
    FROM pg_foreign_table t JOIN pg_class c ON c.oid = ftrelid WHERE relnamespace = 'imported'::regnamespace ORDER BY relname;
SELECT * FROM imported.import_config ORDER BY key;
SELECT * FROM imported.import_user;
SELECT * FROM imported.import_log;
IMPORT FOREIGN SCHEMA "import:*" LIMIT TO (import) FROM SERVER redis_server INTO imported;
SELECT * FROM imported.import ORDER BY key;
IMPORT FOREIGN SCHEMA "no:*" FROM SERVER redis_server INTO imported;
IMPORT FOREIGN SCHEMA "x:*" FROM SERVER redis_server INTO imported OPTIONS (a 'b');
