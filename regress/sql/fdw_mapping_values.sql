-- A mapping's values as its table's columns have them, in each format; what somebody else has written; key columns of
-- types whose equal values have several texts.
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TABLE all_types (id positive PRIMARY KEY, small smallint, big bigint, exact numeric(12,3), real4 real, real8 double precision,
    flag boolean, fixed char(4), short varchar(5), long text, raw bytea, day date, moment timestamp, instant timestamptz, span interval,
    uid uuid, js json, jsb jsonb, mood mood, two pair, words text[], grid int[][], days daterange, price money, ip inet, "Mixed Name" text);
INSERT INTO all_types VALUES
    (1, -7, 9007199254740993, 1.500, 0.1, 1e300, true, 'ab', 'vier5', E'line\nline "quoted" \\ é', '\x00ff0a', '2024-02-29', '2024-02-29 12:34:56.789',
     '2024-02-29 12:34:56+02', '-1 mons +3 days -00:00:01', '00000000-0000-0000-0000-00000000000a', '{"b":  1}', '{"b": [1, null]}', 'bad',
     (1, 'x,"y"'), '{a,NULL,"NULL","c,d"}', '{{1,2},{3,4}}', '[2024-01-01,2024-02-01)', '12.34', '10.0.0.1/24', 'mixed'),
    (2, NULL, NULL, 'NaN', 'NaN', '-Infinity', false, '', '', '', '', 'infinity', '-infinity', 'infinity', '0', NULL, 'null', 'null', 'good',
     NULL, '{}', '{}', 'empty', '-1', '::1', ''),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE amounts (amount numeric PRIMARY KEY, note text);
INSERT INTO amounts VALUES (1.5, 'one and a half'), (2.50, 'two and a half');
CREATE TABLE codes (code char(4) PRIMARY KEY, note text);
INSERT INTO codes VALUES ('ab', 'padded'), ('abcd', 'full');
CREATE TABLE days (day date, slot varchar(8), note text, PRIMARY KEY (day, slot));
INSERT INTO days VALUES ('2024-01-01', 'am', 'new year'), ('2024-01-01', 'pm', 'still'), ('infinity', 'am', 'never');
ALTER SYSTEM SET pg_redis_cache.mappings =
    'h:{id} => SELECT * FROM all_types WITH (name = as_hash, fill = any); j:{id} => SELECT * FROM all_types WITH (name = as_json, format = json, fill = any); '
    't:{id} => SELECT words FROM all_types WITH (name = as_text, format = string, fill = any); amount:{amount} => SELECT note FROM amounts WITH (fill = any); '
    'code:{code} => SELECT note FROM codes WITH (fill = any); day:{day}/{slot} => SELECT note FROM days WITH (fill = any)';
\! reload
SELECT count(*) FROM (SELECT * FROM all_types OFFSET 0) x; SELECT count(*) FROM (SELECT * FROM amounts OFFSET 0) x;
SELECT count(*) FROM (SELECT * FROM codes OFFSET 0) x; SELECT count(*) FROM (SELECT * FROM days OFFSET 0) x;
CREATE SCHEMA cached;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached;
SELECT redis_cache.wait();
-- every row as the table has it: compared as text, for types without equality. A hash has no key for a row without a value.
CREATE FUNCTION differences(cached text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN
    RETURN QUERY EXECUTE format('SELECT t::text || '' <> '' || coalesce(c::text, ''nothing'') FROM all_types t
        LEFT JOIN cached.%I c ON c.id = t.id WHERE t::text IS DISTINCT FROM c::text', cached);
END $$;
SELECT differences('as_hash');
-- (in a document JSON's null is NULL)
UPDATE all_types SET js = '{}', jsb = '[]' WHERE id = 2;
SELECT redis_cache.wait();
SELECT differences('as_json');
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = -5; SET bytea_output = 'escape';
SELECT differences('as_hash');
SELECT differences('as_json');
SELECT day, span, real4, raw FROM cached.as_json WHERE id = 1;
RESET datestyle; RESET intervalstyle; RESET timezone; RESET extra_float_digits; RESET bytea_output;
SELECT id, words, words[2] IS NULL AS is_null FROM cached.as_text ORDER BY id;
SELECT "Mixed Name", (two).b, grid[2][1], jsb->'b'->1 AS null FROM cached.as_hash WHERE id = 1;

-- types whose equal values have several texts are looked for by a scan, and found
SELECT * FROM cached.amounts WHERE amount = 2.5;
SELECT * FROM cached.codes WHERE code = 'ab  ';
EXPLAIN (COSTS OFF) SELECT * FROM cached.amounts WHERE amount = 2.5;
EXPLAIN (COSTS OFF) SELECT * FROM cached.codes WHERE code = 'ab';
-- others by their key
EXPLAIN (COSTS OFF) SELECT * FROM cached.days WHERE day = '2024-01-01' AND slot IN ('am', 'pm');
SELECT * FROM cached.days WHERE day = '2024-01-01' AND slot IN ('am', 'pm', 'am') ORDER BY slot;
SET datestyle = 'SQL, DMY';
SELECT * FROM cached.days WHERE day = 'infinity' AND slot = 'am';
RESET datestyle;
-- a date compared with a timestamp, a column of another collation's equality, a condition on one key column
EXPLAIN (COSTS OFF) SELECT * FROM cached.days WHERE day = '2024-01-01'::timestamp AND slot = 'am';
SELECT note FROM cached.days WHERE day = '2024-01-01'::timestamp AND slot = 'am';
SELECT note FROM cached.days WHERE day = '2024-01-01' ORDER BY slot;
EXPLAIN (COSTS OFF) SELECT note FROM cached.days WHERE slot = 'am';

-- keys that only look like the mapping's are left out
\! redis HSET h:4:x flag t
\! redis HSET h:04 flag t
\! redis HSET h:99999999999 flag t
\! redis HSET day:2024-1-1/am note 'not its text'
\! redis HSET amount:1.5:x note x
\! redis LPUSH h:5 'another type'
SELECT id FROM cached.as_hash ORDER BY id;
SELECT count(*) FROM cached.days;
-- what cannot be read names the key, and not the value
SELECT * FROM cached.amounts;
SELECT note FROM cached.amounts WHERE amount = 1.5;
\! redis UNLINK amount:1.5:x
SELECT count(*) FROM cached.amounts;
\! redis HSET h:7 small sesame
SELECT * FROM cached.as_hash WHERE id = 7;
SELECT id FROM cached.as_hash WHERE id = 7;
SELECT flag FROM cached.as_hash WHERE small = 3;
\set VERBOSITY sqlstate
SELECT * FROM cached.as_hash WHERE id = 7;
\set VERBOSITY default
DELETE FROM cached.as_hash WHERE id = 7;
\! redis EXISTS h:7
\! redis SET j:7 '{"small": "sesame"}'
SELECT * FROM cached.as_json WHERE id = 7;
\! redis SET j:7 '[1]'
SELECT small FROM cached.as_json WHERE id = 7;
\! redis SET j:7 'no json'
SELECT small FROM cached.as_json WHERE id = 7;
\! redis SET j:7 '{"small": 4, "unknown": 1, "id": 9}'
SELECT id, small, big FROM cached.as_json WHERE id = 7;
\! redis HSET h:-1 small 1
SELECT id FROM cached.as_hash;
\! redis UNLINK h:-1
\! printf '\377' | redis -x HSET h:8 long
SELECT long FROM cached.as_hash WHERE id = 8;
\! redis UNLINK h:8

-- columns of other types than the table's
CREATE FOREIGN TABLE texts (id text, small text, ttl int) SERVER redis_cache OPTIONS (mapping 'as_hash');
SELECT * FROM texts WHERE id = '1';
EXPLAIN (COSTS OFF) SELECT * FROM texts WHERE id = '1';
CREATE FOREIGN TABLE wide (id bigint, small int) SERVER redis_cache OPTIONS (mapping 'as_hash');
SELECT * FROM wide WHERE id IN (1, 99999999999);
EXPLAIN (COSTS OFF) SELECT * FROM wide WHERE id = 1;
CREATE FOREIGN TABLE wrong (id int, "long" int) SERVER redis_cache OPTIONS (mapping 'as_hash');
SELECT * FROM wrong WHERE id = 1;
-- a row without its key columns does not say which key it has
CREATE FOREIGN TABLE keyless (small int) SERVER redis_cache OPTIONS (mapping 'as_hash');
SELECT * FROM keyless WHERE small < 0;
DELETE FROM keyless WHERE small < 0;
SELECT count(*) FROM cached.as_hash;
-- names
CREATE FOREIGN TABLE misspelt (id int, smal int) SERVER redis_cache OPTIONS (mapping 'as_hash');
SELECT * FROM misspelt;
CREATE FOREIGN TABLE two_ways (id int) SERVER redis_cache OPTIONS (mapping 'as_hash', table_type 'hash');
CREATE FOREIGN TABLE two_ways (id int) SERVER redis_cache OPTIONS (mapping 'as_hash', batch_sise '100');
