-- The functions of redis_cache: what they return, and a plain error for each bad argument.
CREATE TABLE users (id int PRIMARY KEY, name text, note text);
CREATE TABLE places (country text, zip int, name text, PRIMARY KEY (country, zip));
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE moods (mood mood PRIMARY KEY, at date NOT NULL UNIQUE, n int);
INSERT INTO users VALUES (1, 'ann', NULL), (2, 'bob', 'hä "quoted"');
INSERT INTO places VALUES ('de', 10115, 'Berlin');
INSERT INTO moods VALUES ('good', '2024-02-29', 5);
CREATE DATABASE other;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name, note FROM users WITH (ttl = 1000); '
    'u:{id} => SELECT * FROM users WITH (name = as_json, format = json); '
    'n:{id} => SELECT note FROM users WITH (name = as_string, format = string); '
    'place:{country}:{zip} => SELECT name FROM places; '
    'mood:{mood} => SELECT n FROM moods; '
    'day:{at} => SELECT n FROM moods WITH (name = days); '
    'broken:{id} => SELECT x FROM users WITH (name = broken); '
    'far:{id} => SELECT x FROM far WITH (database = other)';
\! reload
UPDATE users SET name = name; UPDATE places SET name = name; UPDATE moods SET n = n;
SELECT redis_cache.wait();

SELECT redis_cache.get('users', '1') AS one, redis_cache.get('users', '2') AS two, redis_cache.get('users', '3') AS three;
SELECT redis_cache.get('as_json', '1') AS one, redis_cache.get('as_json', '2') AS two;
SELECT redis_cache.get('as_string', '1') AS one, redis_cache.get('as_string', '2') AS two;
SELECT redis_cache.get('places', 'de', '10115'), redis_cache.get('places', VARIADIC ARRAY['de', '10115']);
-- a value is what the column's type takes it for
SELECT redis_cache.get('users', ' 02 ')->>'name' AS two, redis_cache.get('days', 'Feb 29 2024') AS day;
SET DateStyle = 'German';
SELECT redis_cache.get('days', '29.2.2024') AS day;
RESET DateStyle;
SELECT redis_cache.ttl('users', '1') BETWEEN '15 min' AND '1000 s' AS ttl, redis_cache.ttl('users', '3') AS absent,
    redis_cache.ttl('places', 'de', '10115') AS no_ttl;
SELECT redis_cache.invalidate('users', '1') AS was_there, redis_cache.invalidate('users', '1') AS again;
SELECT redis_cache.invalidate_all('places') AS places, redis_cache.invalidate_all('places') AS again;
\! cached
SELECT redis_cache.ping() BETWEEN '0' AND '5 s' AS ping;
SELECT redis_cache.wait('1s'), redis_cache.wait('0');
SELECT sets > 0 AS sets, deletes > 0 AS deletes FROM redis_cache.stats WHERE name = 'users';
SELECT redis_cache.reset_stats();
SELECT name, fills, fills_skipped, fills_dropped, sets, deletes, purges, bytes, errors FROM redis_cache.stats
    WHERE name = 'users';

-- bad arguments
SELECT redis_cache.get('nobody', '1');
SELECT redis_cache.get('broken', '1');
SELECT redis_cache.get('far', '1');
SELECT redis_cache.get('users');
SELECT redis_cache.ttl('places');
SELECT redis_cache.invalidate('users');
SELECT redis_cache.get('users', VARIADIC ARRAY[]::text[]);
SELECT redis_cache.get('users', '1', '2');
SELECT redis_cache.get('users', VARIADIC ARRAY[['1', '2'], ['3', '4']]);
SELECT redis_cache.get('places', 'de');
SELECT redis_cache.get('users', NULL::text);
SELECT redis_cache.get('places', 'de', NULL);
SELECT redis_cache.get('users', VARIADIC NULL::text[]);
SELECT redis_cache.get(NULL, '1');
SELECT redis_cache.get('users', 'one');
SELECT redis_cache.get('users', '99999999999');
SELECT redis_cache.get('users', '');
SELECT redis_cache.get('moods', 'mixed');
SELECT redis_cache.get('days', 'someday');
SELECT redis_cache.ttl('users', 'one');
SELECT redis_cache.ttl('nobody', '1');
SELECT redis_cache.invalidate('users', 'one');
SELECT redis_cache.invalidate('users', NULL::text);
SELECT redis_cache.invalidate('nobody', '1');
SELECT redis_cache.invalidate_all('nobody');
SELECT redis_cache.invalidate_all('far');
SELECT redis_cache.invalidate_all(NULL);
SELECT redis_cache.wait('-1s');
SELECT redis_cache.wait('1 month');
-- Intervals have infinity since 17.
DO $$ BEGIN PERFORM redis_cache.wait('infinity');
EXCEPTION WHEN invalid_parameter_value OR invalid_datetime_format THEN RAISE NOTICE 'refused';
END $$;
SELECT redis_cache.wait(NULL);
SELECT redis_cache.wait('soon');

\set VERBOSITY sqlstate
SELECT redis_cache.get('nobody', '1');
SELECT redis_cache.get('broken', '1');
SELECT redis_cache.get('far', '1');
SELECT redis_cache.get('users', '1', '2');
SELECT redis_cache.get('users', NULL::text);
SELECT redis_cache.get('users', 'one');
SELECT redis_cache.wait('-1s');
\set VERBOSITY default

-- In a transaction that fails, or is read-only; a function may be called where a subtransaction is rolled back.
BEGIN READ ONLY;
SELECT redis_cache.get('users', '2') IS NOT NULL AS there, redis_cache.wait();
SELECT redis_cache.invalidate('users', '2');
ROLLBACK;
DO $$ BEGIN PERFORM redis_cache.get('users', 'one'); EXCEPTION WHEN invalid_text_representation THEN
    RAISE NOTICE 'caught'; END $$;
SELECT redis_cache.get('as_json', '2')->>'name' AS still_works;
