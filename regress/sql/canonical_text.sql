-- One row has one encoding: the same bytes whatever the settings of the session that writes or fills; json is what
-- to_json makes of the row under the pinned settings.
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
CREATE DOMAIN percent AS numeric(5,2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN day AS date;
CREATE TYPE point3 AS (x float8, at timestamptz, label text);
CREATE TYPE span AS RANGE (subtype = timestamptz);
CREATE TABLE all_types (
    id int PRIMARY KEY,
    i2 int2, i4 int4, i8 int8, num numeric, num2 numeric(10,4), f4 float4, f8 float8, b bool, m money,
    t text, vc varchar(30), bc char(8), n name, ch "char", by bytea, bits bit(3), vbits varbit,
    d date, tm time, tmz timetz, ts timestamp, tsz timestamptz, iv interval, da day,
    u uuid, ip inet, net cidr, mac macaddr, mac8 macaddr8,
    js json, jb jsonb, jp jsonpath, tsv tsvector, tsq tsquery, lsn pg_lsn, o oid, tid tid, xid8 xid8,
    pt point, box box, path path, poly polygon, circ circle, seg lseg, ln line,
    e mood, p percent, c point3,
    r int4range, nr numrange, tr tstzrange, dr daterange, mr tstzmultirange, sp span,
    ai int[], at text[], af float8[], atz timestamptz[], am money[], ad date[], ae mood[], ac point3[], ab bytea[],
    aiv interval[], aj json[], a2 int[][], ap percent[]
);
SET TimeZone = 'UTC';
INSERT INTO all_types VALUES (1,
    -32768, 2147483647, -9223372036854775808, 12345678901234567890.123456789, 1.5, 0.1, 0.1, true, 1234.56,
    'text', 'varchar', 'bpchar', 'name', 'c', '\x00ff27', B'101', B'1',
    '2024-02-29', '13:14:15.678', '13:14:15+02', '2024-02-29 13:14:15.678901', '2024-02-29 13:14:15.678901+00',
    '1 year 2 mons -3 days 04:05:06.789', '2024-02-29',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.1.2.3/24', '10.1.0.0/16', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    '{"k" :  [1, 2]}', '{"k": [1, 2.50]}', '$.a[*]', '''a'':1 ''b'':2', '''a'' & ''b''', '16/B374D848', 42, '(1,2)', '9',
    '(0.1,2)', '(1,2),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),0.1>', '[(0,0),(1,1)]', '{1,-1,0}',
    'so "so"', 99.5, ROW(0.1, '2024-02-29 13:14:15+00', 'a, "b"'),
    '[1,5)', '(0.1,]', '["2024-01-01 00:00+00","2024-02-01 00:00+00")', '[2024-01-01,2024-01-03)',
    '{["2024-01-01 00:00+00","2024-02-01 00:00+00")}', '["2024-01-01 00:00+00",)',
    '{1,NULL,3}', '{a,"b \"c\"",NULL,""}', '{0.1,NaN,-Infinity}', '{2024-02-29 13:14:15+00}', '{1.5}', '{2024-02-29}',
    '{sad,"so \"so\""}', ARRAY[ROW(1e-7, '2024-02-29 13:14:15+00', NULL)::point3], ARRAY['\x00ff'::bytea],
    '{1 mon}', ARRAY['{"a":1}'::json], '{{1,2},{3,4}}', '{1.50}'),
(2, 0, 0, 0, 'NaN', 0, 'NaN', '-Infinity', false, -0.01,
    '', '', '', '', '', '', B'000', B'',
    'infinity', '00:00', '24:00-15:59', '-infinity', 'infinity', '-1 mon +1 day -00:00:01', '-infinity',
    '00000000-0000-0000-0000-000000000000', '::1', '::/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00',
    'null', 'null', '$', '', '', '0/0', 0, '(0,0)', '0',
    '(NaN,-0)', '(0,0),(0,0)', '((0,0))', '((0,0))', '<(0,0),0>', '[(0,0),(0,0)]', '{1,0,0}',
    'happy', 0, ROW(NULL, NULL, NULL),
    'empty', '(,)', 'empty', '(,)', '{}', 'empty',
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'),
(3, 1, -1, 1, 1e-20, 100000, 1e30, 1e300, NULL, 0,
    'Ünïcödé 😀', E'a\tb\nc', 'ü', '"q"', '\', '\x', B'111', NULL,
    '0044-03-15 BC', '23:59:59.999999', '00:00-00', '0044-03-15 12:00 BC', '1900-01-01 00:00+00', '00:00', 'epoch',
    NULL, NULL, NULL, NULL, NULL, '[]', '"\u00e9\\"', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    '(1e300,1e-300)', NULL, NULL, NULL, NULL, NULL, NULL, 'sad', NULL, ROW('Infinity', '-infinity', ''),
    '(,5)', '[NaN,NaN]', '[-infinity,infinity]', '[infinity,]', NULL, NULL,
    NULL, '{"{}",","}', '{1e300,1e-300}', '{infinity,-infinity}', '{-1}', '{epoch}', NULL, NULL, '{"\\x00"}',
    NULL, NULL, NULL, NULL);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'h:{id} => SELECT * FROM all_types WITH (name = h); '
    'j:{id} => SELECT * FROM all_types WITH (name = j, format = json)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT name, state, problem FROM redis_cache.mappings;

-- What is right: the text and to_json under the pinned settings, computed once.
CREATE FUNCTION texts_of(r all_types) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name text; text text; texts jsonb := '{}';
BEGIN
    FOR name IN SELECT attname FROM pg_attribute WHERE attrelid = 'all_types'::regclass AND attnum > 0 LOOP
        EXECUTE format('SELECT format(''%%s'', ($1).%1$I) WHERE NOT to_json(($1).%1$I)::text = ''null'' OR %1$L = ''js''
            OR %1$L = ''jb''', name) INTO text USING r;
        IF text IS NOT NULL THEN texts := texts || jsonb_build_object(name, text); END IF;
    END LOOP;
    RETURN texts;
END $$;
SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET lc_monetary = 'C';
CREATE TABLE pinned AS SELECT id, texts_of(a) AS texts, to_json(a)::text AS json FROM all_types a;
-- a look at one of them
\pset format unaligned
\pset tuples_only on
SELECT key, value FROM pinned, jsonb_each_text(texts) WHERE id = 1 ORDER BY key COLLATE "C";
SELECT json FROM pinned WHERE id = 3;

-- What Redis has that is not that.
CREATE FUNCTION differences() RETURNS TABLE (id int, what text, is text, should_be text) LANGUAGE plpgsql AS $$
DECLARE r pinned; cached jsonb; json text;
BEGIN
    PERFORM redis_cache.wait();
    FOR r IN SELECT * FROM pinned LOOP
        cached := redis_cache.get('h', r.id::text);
        RETURN QUERY SELECT r.id, 'hash ' || key, c.value, p.value
            FROM jsonb_each_text(cached) c FULL JOIN jsonb_each_text(r.texts) p USING (key)
            WHERE c.value IS DISTINCT FROM p.value;
        SELECT string_agg(line, E'\n') INTO json FROM redis('--raw', 'GET', 'j:' || r.id) line;
        IF json IS DISTINCT FROM r.json THEN RETURN QUERY SELECT r.id, 'json', json, r.json; END IF;
        RETURN QUERY SELECT r.id, 'nothing cached', NULL, NULL WHERE cached IS NULL;
    END LOOP;
END $$;
-- written, and filled, by a session with each of several settings
UPDATE all_types SET id = id;
SELECT * FROM differences();
SELECT redis_cache.invalidate_all('h') + redis_cache.invalidate_all('j');
SELECT id, i4 FROM all_types WHERE id IN (1, 2, 3);
SELECT * FROM differences();

SET DateStyle = 'German, DMY'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'Asia/Kolkata'; SET extra_float_digits = -15;
SET bytea_output = 'escape'; SET search_path = pg_catalog, public;
UPDATE all_types SET id = id;
SELECT d, ts, tsz, iv, f8, by FROM all_types WHERE id = 1;
SELECT * FROM differences();
SELECT redis_cache.invalidate_all('h') + redis_cache.invalidate_all('j');
SELECT id, tsz, c FROM all_types WHERE id IN (1, 2, 3);
SELECT * FROM differences();

SET DateStyle = 'SQL, MDY'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'America/St_Johns'; SET extra_float_digits = 0;
UPDATE all_types SET id = id RETURNING id, tsz, iv;
SELECT * FROM differences();
SET DateStyle = 'Postgres, DMY'; SET IntervalStyle = 'postgres_verbose'; SET TimeZone = '<XYZ>-3:30'; SET extra_float_digits = 3;
SELECT redis_cache.invalidate_all('h') + redis_cache.invalidate_all('j');
SELECT id, tsz, atz FROM all_types WHERE id IN (1, 2, 3);
SELECT * FROM differences();
-- an error in the middle leaves the session's settings as they were
DO $$ BEGIN UPDATE all_types SET i4 = 1 / (3 - id); EXCEPTION WHEN OTHERS THEN NULL; END $$;
SELECT current_setting('DateStyle'), current_setting('IntervalStyle'), current_setting('TimeZone'),
    current_setting('extra_float_digits'), current_setting('bytea_output'), current_setting('lc_monetary');
SELECT ts, iv FROM all_types WHERE id = 1;
SELECT * FROM differences();
