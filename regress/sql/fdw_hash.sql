-- A hash as a table: field and value of one key, or of the keys of a pattern.
SELECT make_redis_server();
CREATE FOREIGN TABLE user_profiles (key text, value text) SERVER redis_server
    OPTIONS (database '0', table_type 'hash', table_key_prefix 'user:profiles');
INSERT INTO user_profiles VALUES ('name', 'John Doe'), ('email', 'john@example.com'), ('phone', '555-1234'), ('empty', '');
\! redis HGETALL user:profiles
SELECT * FROM user_profiles ORDER BY key;
SELECT value FROM user_profiles WHERE key = 'email';
SELECT * FROM user_profiles WHERE key IN ('name', 'phone', 'fax') ORDER BY key;
SELECT * FROM user_profiles WHERE key LIKE 'e%' ORDER BY key;
SELECT * FROM user_profiles WHERE key ^@ 'em' AND value <> '' ORDER BY key;
SELECT * FROM user_profiles WHERE value LIKE '555%';
SELECT count(*) FROM user_profiles;
SELECT count(*) FROM user_profiles WHERE key = NULL OR key = ANY (NULL::text[]);
SELECT count(*) FROM user_profiles WHERE key = ANY ('{}');
SELECT count(*) FROM user_profiles WHERE key = ANY ('{name,NULL,name}');

-- what is sent
EXPLAIN (COSTS OFF) SELECT * FROM user_profiles;
EXPLAIN (COSTS OFF) SELECT * FROM user_profiles WHERE key IN ('name', 'phone', 'fax');
EXPLAIN (COSTS OFF) SELECT * FROM user_profiles WHERE 'name' = key;
EXPLAIN (COSTS OFF) SELECT * FROM user_profiles WHERE key LIKE 'e%' AND value <> 'x';
EXPLAIN (COSTS OFF) SELECT * FROM user_profiles WHERE key = value OR key > 'a';
EXPLAIN (COSTS OFF) DELETE FROM user_profiles WHERE key = 'name';

-- an INSERT writes over what is there; rows may trade names
INSERT INTO user_profiles VALUES ('name', 'Jane Doe'), ('name', 'Jane Roe') RETURNING *;
UPDATE user_profiles SET value = value || '!' WHERE key IN ('name', 'phone');
UPDATE user_profiles SET key = CASE key WHEN 'name' THEN 'phone' WHEN 'phone' THEN 'name' ELSE key || '_2' END;
SELECT * FROM user_profiles ORDER BY key;
UPDATE user_profiles SET key = 'x:' || key, value = upper(value) WHERE key LIKE 'e%' RETURNING *;
DELETE FROM user_profiles WHERE key LIKE 'x:%' RETURNING value, key;
DELETE FROM user_profiles WHERE key = 'absent';
INSERT INTO user_profiles SELECT key || ':copy', value FROM user_profiles;
SELECT * FROM user_profiles ORDER BY key;
TRUNCATE user_profiles;
\! redis EXISTS user:profiles

-- in bulk
INSERT INTO user_profiles (key, value) SELECT i, 'value_' || i FROM generate_series(1, 100000) i;
\! redis HLEN user:profiles
SELECT * FROM user_profiles WHERE key = '5';
SELECT * FROM user_profiles WHERE key IN ('10', '15', '20') ORDER BY key;
SELECT count(*), count(DISTINCT key), min(value) FROM user_profiles;
SELECT count(*) FROM user_profiles WHERE key LIKE '555%';
SELECT count(*) FROM user_profiles WHERE key = ANY (ARRAY(SELECT i::text FROM generate_series(1, 3000) i));
SELECT count(*) FROM generate_series(99990, 100010) i JOIN user_profiles ON key = i::text;
UPDATE user_profiles SET value = 'new ' || key WHERE key LIKE '1%';
SELECT count(*) FROM user_profiles WHERE value LIKE 'new 1%';
DELETE FROM user_profiles WHERE key::int % 2 = 0;
\! redis HLEN user:profiles
SELECT count(*) FROM (SELECT FROM user_profiles LIMIT 7) s;
TRUNCATE user_profiles;

-- the keys of a pattern
CREATE FOREIGN TABLE profiles (key text, field text, value text, ttl bigint) SERVER redis_server
    OPTIONS (table_type 'hash', table_key_prefix 'profile:*');
INSERT INTO profiles VALUES ('profile:1', 'name', 'ann', NULL), ('profile:1', 'age', '31', 0), ('profile:2', 'name', 'bob', 1000),
    ('profile:3', 'name', 'cid', -1);
\! redis SET profile:string x
\! redis HSET other name nobody
SELECT key, field, value, CASE WHEN ttl > 0 THEN 'some' ELSE ttl::text END AS ttl FROM profiles ORDER BY 1, 2;
SELECT key, field, value FROM profiles WHERE key = 'profile:1' ORDER BY field;
SELECT key, field, value FROM profiles WHERE key IN ('profile:1', 'profile:3', 'other', 'profile:string') AND field = 'name' ORDER BY 1;
SELECT key, value FROM profiles WHERE key LIKE 'profile:2%';
EXPLAIN (COSTS OFF) SELECT key, value FROM profiles WHERE key IN ('profile:1', 'profile:3') AND field = 'name';
EXPLAIN (COSTS OFF) SELECT ttl FROM profiles WHERE key LIKE 'profile:2%';
UPDATE profiles SET value = 'BOB' WHERE key = 'profile:2';
UPDATE profiles SET key = 'profile:9' WHERE key = 'profile:1' AND field = 'age';
UPDATE profiles SET ttl = 500 WHERE key = 'profile:9';
DELETE FROM profiles WHERE key = 'profile:3';
SELECT key, field, value, CASE WHEN ttl > 900 THEN '> 900' WHEN ttl > 0 THEN '> 0' ELSE ttl::text END AS ttl FROM profiles ORDER BY 1, 2;
INSERT INTO profiles VALUES ('elsewhere', 'name', 'dot');
\! redis HGETALL elsewhere
TRUNCATE profiles;
\! redis EXISTS profile:1 profile:2 profile:9 profile:string

-- types go through their own input and output
CREATE FOREIGN TABLE numbers (n int, at timestamptz) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'numbers');
SET DateStyle = 'German';
SET TimeZone = 'Asia/Tokyo';
INSERT INTO numbers VALUES (1, '2024-02-29 12:00+00'), (-5, 'infinity');
\! redis HGETALL numbers
SELECT * FROM numbers ORDER BY n;
SELECT * FROM numbers WHERE n = 1;
UPDATE numbers SET n = n + 1;
RESET DateStyle; RESET TimeZone;
\! redis HSET numbers 007 2024-01-01
SELECT n FROM numbers ORDER BY n;
DELETE FROM numbers WHERE n = 2;
DELETE FROM numbers WHERE n + 0 = 7;
\! redis HSET numbers 8 soon
SELECT * FROM numbers;
SELECT n FROM numbers WHERE n = 8;
