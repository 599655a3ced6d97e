-- A string as a table: the value of one key, or of the keys of a pattern, with their times to live.
SELECT make_redis_server();
CREATE FOREIGN TABLE app_name (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'config:app_name');
SELECT * FROM app_name;
INSERT INTO app_name VALUES ('MyApp');
UPDATE app_name SET value = 'NewName' RETURNING value;
\! redis GET config:app_name
SELECT * FROM app_name WHERE value = 'NewName';
DELETE FROM app_name WHERE value = 'OldName';
DELETE FROM app_name;
\! redis EXISTS config:app_name
UPDATE app_name SET value = 'nothing to update';
\! redis EXISTS config:app_name

-- the time to live: the table's, or the row's
CREATE FOREIGN TABLE cached_data (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'cache:1', ttl '3600');
INSERT INTO cached_data VALUES ('x');
\! redis TTL cache:1
CREATE FOREIGN TABLE cached_items (value text, ttl bigint) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'cache:2', ttl '3600');
INSERT INTO cached_items VALUES ('short-lived', 60);
SELECT value, ttl BETWEEN 1 AND 60 AS ttl FROM cached_items;
UPDATE cached_items SET value = 'still short-lived';
SELECT value, ttl BETWEEN 1 AND 60 AS ttl FROM cached_items;
UPDATE cached_items SET value = 'permanent', ttl = -1;
SELECT * FROM cached_items;
UPDATE cached_items SET ttl = NULL;
SELECT value, ttl BETWEEN 3590 AND 3600 AS ttl FROM cached_items;
INSERT INTO cached_items VALUES ('as it was', 0);
SELECT value, ttl BETWEEN 3590 AND 3600 AS ttl FROM cached_items;
INSERT INTO cached_items VALUES ('never', -2);

-- the keys of a pattern
CREATE FOREIGN TABLE session_fdw (key text, value text, ttl bigint) SERVER redis_server
    OPTIONS (database '0', table_type 'string', table_key_prefix 'session:*', ttl '300', batch_size '10000');
INSERT INTO session_fdw VALUES ('session:user1', '{"ip": "10.0.0.1"}', 10), ('session:user2', '{"ip": "10.0.0.2"}', 20);
INSERT INTO session_fdw (key, value) VALUES ('session:user3', '{"ip": "10.0.0.3"}');
\! redis RPUSH session:list 1
SELECT key, value, ttl > 0 AS ttl FROM session_fdw WHERE key IN ('session:user1', 'session:user2', 'session:user3', 'session:list') ORDER BY key;
SELECT key, value::json->>'ip' AS ip FROM session_fdw ORDER BY key;
SELECT key FROM session_fdw WHERE key LIKE '%user3';
EXPLAIN (COSTS OFF) SELECT key, value FROM session_fdw WHERE key = 'session:user3';
EXPLAIN (COSTS OFF) SELECT key, value FROM session_fdw WHERE key LIKE 'session:user1%';
EXPLAIN (COSTS OFF) SELECT * FROM session_fdw;
UPDATE session_fdw SET key = replace(key, 'user', 'person') WHERE key <> 'session:user1';
DELETE FROM session_fdw WHERE key = 'session:user1';
SELECT key, value, ttl > 0 AS ttl FROM session_fdw ORDER BY key;
INSERT INTO session_fdw VALUES ('session:list', 'not a list');
\! redis LRANGE session:list 0 -1
INSERT INTO session_fdw SELECT 'session:' || i, i FROM generate_series(1, 20000) i;
SELECT count(*), count(DISTINCT key), sum(value::int) FROM session_fdw WHERE value ~ '^[0-9]+$';
TRUNCATE session_fdw;
\! redis KEYS 'session:*'
-- a key column over a prefix means the prefix
CREATE FOREIGN TABLE by_prefix (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'p-:');
\! redis MSET p-:1 one p:2 two
SELECT * FROM by_prefix;
CREATE FOREIGN TABLE strict (key text, value text) SERVER redis_server
    OPTIONS (table_type 'string', table_key_prefix 'strict:*', strict_key_prefix 'true');
INSERT INTO strict VALUES ('lax:1', 'x');
INSERT INTO strict VALUES ('strict:1', 'x') RETURNING *;
UPDATE strict SET key = 'lax:1';
SELECT * FROM strict;

-- all bytes: bytea as it is, texts as UTF-8 without NUL
CREATE FOREIGN TABLE blobs (key text, value bytea) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'blob:*');
INSERT INTO blobs VALUES ('blob:1', '\x00ff0a'), ('blob:2', ''), ('blob:3', 'text');
\! redis GET blob:1
SELECT * FROM blobs ORDER BY key;
SELECT key FROM blobs WHERE value = '\x00ff0a';
CREATE FOREIGN TABLE texts (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'blob:*');
SELECT value FROM texts WHERE key = 'blob:2';
SELECT value FROM texts WHERE key = 'blob:1';
\! printf '\377' | redis -x SET blob:1
SELECT value FROM texts WHERE key = 'blob:1';
SELECT count(*) FROM texts;

-- other types
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN positive AS numeric CHECK (value > 0);
CREATE DOMAIN short_bytes AS bytea CHECK (length(value) < 4);
CREATE FOREIGN TABLE moods (id uuid, mood mood) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'moods');
INSERT INTO moods VALUES ('00000000-0000-0000-0000-00000000000A', 'bad');
\! redis HGETALL moods
SELECT * FROM moods WHERE id = '00000000-0000-0000-0000-00000000000a';
\! redis HSET moods 00000000-0000-0000-0000-00000000000b so-so
SELECT * FROM moods;
CREATE FOREIGN TABLE amounts (key text, value positive) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'amount:*');
INSERT INTO amounts VALUES ('amount:1', 12345678901234567890.10);
SELECT * FROM amounts;
\! redis SET amount:2 -1
SELECT * FROM amounts;
CREATE FOREIGN TABLE shorts (key text, value short_bytes) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'blob:*');
SELECT * FROM shorts WHERE key = 'blob:2';
SELECT * FROM shorts WHERE key = 'blob:3';
CREATE FOREIGN TABLE documents (key text, value jsonb, ttl int) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'doc:*');
INSERT INTO documents VALUES ('doc:1', '{"a": [1, 2, {"b": null}]}');
SELECT value->'a'->2 AS b, ttl FROM documents;
CREATE FOREIGN TABLE arrays (key text, value timestamp[]) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'array:*');
INSERT INTO arrays VALUES ('array:1', '{2024-01-01,NULL}');
\! redis GET array:1
SELECT value[1], value[2] FROM arrays;
