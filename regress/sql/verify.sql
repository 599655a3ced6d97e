-- verify: every difference that is planted in Redis is found and named, and nothing else is.
CREATE TABLE users (id int PRIMARY KEY, name text, note text);
CREATE TABLE places (country text, zip int, name text, PRIMARY KEY (country, zip));
CREATE TABLE pairs (a text, b text, n int, PRIMARY KEY (a, b));
CREATE TABLE typed (at timestamptz, tag bytea, ref uuid, n int, PRIMARY KEY (at, tag, ref));
CREATE TABLE parts (id int, region text, dead int, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
CREATE TABLE parts_us (region text NOT NULL, body text, id int NOT NULL, dead int);
ALTER TABLE parts ATTACH PARTITION parts_us FOR VALUES IN ('us');
ALTER TABLE parts DROP dead;
CREATE TABLE days (day date PRIMARY KEY, name varchar(5) NOT NULL UNIQUE, n int);
INSERT INTO users SELECT i, 'user ' || i, CASE WHEN i % 2 = 0 THEN 'note' END FROM generate_series(1, 600) i;
INSERT INTO places VALUES ('de', 10115, 'Berlin'), ('fr', 75001, 'Paris'), ('x:1', 2, 'nowhere');
INSERT INTO pairs VALUES ('x', '1:y', 1), ('x:1', 'y', 2), ('z:1', 'y', 3);
INSERT INTO typed VALUES ('2024-02-29 12:00+02', '\x00ff', '123e4567-e89b-12d3-a456-426614174000', 1), ('infinity', '', '123e4567-e89b-12d3-a456-426614174001', NULL);
INSERT INTO parts VALUES (1, 'eu', 'a'), (2, 'us', 'b');
INSERT INTO days VALUES ('2024-02-29', 'leap', 1), ('2024-03-01', 'march', 2);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name, note FROM users; '
    'u:{id} => SELECT * FROM users WITH (name = as_json, format = json); '
    'n:{id} => SELECT note FROM users WITH (name = as_string, format = string, ttl = 1000); '
    'place:{country}:{zip} => SELECT name FROM places; '
    'pair:{a}:{b} => SELECT n FROM pairs; '
    'typed:{at}|{tag}|{ref} => SELECT * FROM typed; '
    'part:{region}:{id} => SELECT body FROM parts; '
    'day:{day} => SELECT n FROM days; '
    'named:{name} => SELECT n FROM days WITH (name = named); '
    'user:{id}:places => SELECT name FROM users WITH (name = beside)';
\! reload
UPDATE users SET name = name; UPDATE places SET name = name; UPDATE typed SET n = n; UPDATE parts SET body = body;
UPDATE days SET n = n; UPDATE pairs SET n = n;
SELECT redis_cache.wait();

-- a healthy cache, whatever the session's settings
SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Tokyo'; SET bytea_output = escape; SET IntervalStyle = sql_standard;
SELECT name, (SELECT count(*) FROM redis_cache.verify(name)) AS differences FROM redis_cache.mappings ORDER BY name;
RESET ALL;
\! redis EVAL 'return #redis.call("KEYS", "u*:*")' 0
-- it fills nothing, and a key that is missing is no difference
SELECT redis_cache.invalidate_all('users') AS purged;
SET pg_redis_cache.fill = on;
SELECT * FROM redis_cache.verify('users');
\! redis EXISTS user:1 user:2 user:600
UPDATE users SET name = name WHERE id <= 10;
SELECT redis_cache.wait();

-- hash
\! redis HSET user:1 name changed >/dev/null
\! redis HDEL user:2 note >/dev/null
\! redis HSET user:3 note 'not null' other 1 >/dev/null
\! redis HSET user:601 name ghost >/dev/null
\! redis DEL user:4 >/dev/null; redis RPUSH user:4 a >/dev/null
\! redis SET user:5 text >/dev/null
\! redis HSET user:6:cart pen 1 >/dev/null
\! redis HSET user:99999999999 name 'no int' >/dev/null
\! redis EXPIRE user:7 100 >/dev/null
\! redis SET user:007 text >/dev/null
SELECT * FROM redis_cache.verify('users') ORDER BY key;
SELECT count(*) FROM redis_cache.verify('users');
-- what a change or an invalidation replaces is in step again; a key of nobody stays as it is
UPDATE users SET name = 'new' WHERE id <= 10;
SELECT redis_cache.invalidate('users', '601');
SELECT * FROM redis_cache.verify('users') ORDER BY key;

-- json
\! redis SET u:1 '{"id":1,"name":"user 1","note":"x"}' >/dev/null
\! redis SET u:2 '{"id":2,"name":"new","note":"note","more":[1]}' >/dev/null
\! redis SET u:3 '{"id":3, "name":"new","note":null}' >/dev/null
\! redis SET u:4 'no document' >/dev/null
\! redis DEL u:5 >/dev/null; redis HSET u:5 name 'user 5' >/dev/null
SELECT * FROM redis_cache.verify('as_json') ORDER BY key;

-- string, with a ttl
\! redis SET n:2 other EX 500 >/dev/null
\! redis SET n:1 'is null' EX 500 >/dev/null
\! redis PERSIST n:4 >/dev/null
\! redis EXPIRE n:6 2000 >/dev/null
SELECT * FROM redis_cache.verify('as_string') ORDER BY key;

-- composite keys, keys that two rows could have, types, partitions
\! redis HSET place:de:10115 name Bonn >/dev/null
\! redis HSET place:de:x name nobody >/dev/null
\! redis HSET place::1 name '' >/dev/null
SELECT * FROM redis_cache.verify('places') ORDER BY key;
\! redis HSET pair:x:1:y n 2 >/dev/null; redis HSET pair:z:1:y n 3 >/dev/null
SELECT * FROM redis_cache.verify('pairs') ORDER BY key;
\! redis HSET 'typed:2024-02-29 10:00:00+00|\x00ff|123e4567-e89b-12d3-a456-426614174000' n 2 >/dev/null
\! redis HSET 'typed:infinity|\x|123e4567-e89b-12d3-a456-426614174001' n 2 >/dev/null
\! redis HSET 'typed:2024-02-29 12:00:00+02|\x00ff|123e4567-e89b-12d3-a456-426614174000' n 1 >/dev/null
\! redis HSET 'typed:yesteryear|\x00ff|123e4567-e89b-12d3-a456-426614174000' n 1 >/dev/null
SELECT key, problem, in_postgres FROM redis_cache.verify('typed') ORDER BY key;
\! redis HSET part:us:2 body c >/dev/null
\! redis HSET part:asia:2 body c >/dev/null
SELECT * FROM redis_cache.verify('parts') ORDER BY key;
-- texts that the key's type refuses are nobody's keys, among many that it takes
\! redis HSET day:someday n 1 >/dev/null; redis HSET day:2024-02-30 n 1 >/dev/null; redis HSET day:2024-3-1 n 2 >/dev/null
SELECT * FROM redis_cache.verify('days') ORDER BY key;
\! redis HSET named:february n 1 >/dev/null; redis HSET named: n 1 >/dev/null; redis EVAL 'return redis.call("HSET", "named:\255\0", "n", 1)' 0 >/dev/null
SELECT * FROM redis_cache.verify('named') ORDER BY key;

-- a sample
SELECT count(*) FROM redis_cache.verify('as_json', 600);
SELECT count(*) FROM redis_cache.verify('as_json', 1000000);
\! redis EVAL 'for i = 1, 600 do redis.call("SET", "u:" .. i, "wrong") end' 0 >/dev/null
SELECT count(*), count(DISTINCT key) FROM redis_cache.verify('as_json', 100);
SELECT count(DISTINCT key) > 100 AS another_sample FROM
    (SELECT * FROM redis_cache.verify('as_json', 100) UNION ALL SELECT * FROM redis_cache.verify('as_json', 100)) two;
SELECT count(*), count(DISTINCT key) FROM redis_cache.verify('as_json');
-- taken one by one, and not to the end
SELECT (v).key LIKE 'u:%' AS ours FROM (SELECT redis_cache.verify('as_json') AS v LIMIT 2) two;
CREATE TABLE kept AS SELECT * FROM redis_cache.verify('as_json', 3);
SELECT count(*) FROM kept;

-- nothing runs any more, and nothing has been filled
SELECT * FROM redis_cache.progress;
SELECT sum(fills) AS fills FROM redis_cache.stats;
