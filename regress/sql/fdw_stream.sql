-- A stream as a table: an entry's id, and its fields by the names of the columns.
SELECT make_redis_server();
CREATE FOREIGN TABLE redis_stream (stream_id text, event_type text, event_data text) SERVER redis_server
    OPTIONS (table_type 'stream', table_key_prefix 'events');
INSERT INTO redis_stream VALUES ('*', 'user_login', '{"user":"123"}');
INSERT INTO redis_stream (event_type) VALUES ('user_logout') RETURNING stream_id ~ '^[0-9]{13}-[0-9]+$' AS id, event_type, event_data;
SELECT event_type, event_data FROM redis_stream;
SELECT count(*) FROM redis_stream WHERE stream_id >= '1640995200000-0';
SELECT count(*) FROM redis_stream WHERE stream_id < '1640995200000-0';
TRUNCATE redis_stream;
INSERT INTO redis_stream VALUES ('5-1', 'a', '1'), ('5-2', 'b', NULL), ('20-0', 'c', '3'), ('1640995200000-0', 'd', '4');
\! redis XRANGE events - +
SELECT * FROM redis_stream;
SELECT * FROM redis_stream WHERE stream_id = '5-2';
SELECT * FROM redis_stream WHERE stream_id IN ('5-1', '20-0', 'no id');
-- the order of ids as texts
SELECT * FROM redis_stream WHERE stream_id > '5' ORDER BY 1;
SELECT * FROM redis_stream WHERE stream_id BETWEEN '1' AND '3' ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT * FROM redis_stream WHERE stream_id >= '1640995200000-0';
\! redis XADD events 1640995200001-0 event_type e unknown x event_type E
SELECT * FROM redis_stream WHERE stream_id > '1640995200000-0';
INSERT INTO redis_stream VALUES ('5-1', 'too late', '');
INSERT INTO redis_stream VALUES ('*', NULL, NULL);
UPDATE redis_stream SET event_type = 'x';
DELETE FROM redis_stream WHERE event_type IN ('a', 'c') RETURNING *;
SELECT stream_id FROM redis_stream;
-- what is read is written behind its end only when all is read
INSERT INTO redis_stream SELECT '*', event_type, 'copy' FROM redis_stream;
SELECT event_type, event_data FROM redis_stream;
INSERT INTO redis_stream SELECT '*', event_type, 'copy' FROM redis_stream RETURNING *;
TRUNCATE redis_stream;
INSERT INTO redis_stream SELECT '*', i, i * i FROM generate_series(1, 12000) i;
SELECT count(*), count(DISTINCT stream_id), sum(event_type::int) FROM redis_stream;
DELETE FROM redis_stream WHERE event_type::int > 100;
\! redis XLEN events

-- the keys of a pattern
CREATE FOREIGN TABLE logs (key text, id text, line text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'log:*');
INSERT INTO logs VALUES ('log:a', '1-1', 'x'), ('log:b', '1-1', 'y'), ('log:a', '1-2', 'z');
SELECT * FROM logs ORDER BY key, id;
SELECT * FROM logs WHERE key = 'log:a' AND id = '1-2';
DELETE FROM logs WHERE id = '1-1';
SELECT * FROM logs ORDER BY key, id;

-- ids are texts: a collation that compares digits as numbers orders them as Redis does, others do not
CREATE COLLATION digits (provider = icu, locale = 'und-u-kn-true');
CREATE FOREIGN TABLE o (id text, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'ordered');
CREATE FOREIGN TABLE oc (id text COLLATE digits, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'ordered');
INSERT INTO o SELECT ms || '-' || s, s FROM unnest('{1,5,9,10,11,51,99,100,1000,1718000000000}'::bigint[]) ms, generate_series(0, 450) s;
EXPLAIN (COSTS OFF) SELECT id FROM o ORDER BY id COLLATE digits DESC LIMIT 3;
SELECT id FROM o ORDER BY id COLLATE digits DESC LIMIT 3;
SELECT id FROM o ORDER BY id COLLATE digits LIMIT 3 OFFSET 450;
SELECT id FROM oc ORDER BY id DESC LIMIT 2;
EXPLAIN (COSTS OFF) SELECT id FROM oc ORDER BY id LIMIT 2;
EXPLAIN (COSTS OFF) SELECT id FROM o ORDER BY id COLLATE "C" LIMIT 3;
SELECT id FROM o ORDER BY id COLLATE "C" DESC LIMIT 2;
-- in that order from one end to the other
CREATE FUNCTION is_sorted(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r record;
    last bigint[] := NULL;
    total int := 0;
    wrong int := 0;
BEGIN
    FOR r IN EXECUTE query LOOP
        IF string_to_array(r.id, '-')::bigint[] > last THEN wrong := wrong + 1; END IF;
        last := string_to_array(r.id, '-')::bigint[];
        total := total + 1;
    END LOOP;
    RETURN format('%s rows, %s wrong', total, wrong);
END $$;
SELECT is_sorted('SELECT id FROM o ORDER BY id COLLATE digits DESC');
SELECT is_sorted('SELECT id FROM oc ORDER BY id DESC');
SELECT is_sorted('SELECT id FROM o WHERE id > ''11-2'' AND id < ''99-7'' ORDER BY id COLLATE digits DESC') = is_sorted('SELECT id FROM
    (SELECT id FROM o OFFSET 0) s WHERE id > ''11-2'' AND id < ''99-7'' ORDER BY id COLLATE digits DESC') AS same;
-- a range is one of texts, by the column's collation
SELECT count(*) AS asked, (SELECT count(*) FROM (SELECT * FROM oc OFFSET 0) s WHERE id > '9-440' AND id < '11-5') AS read_all
    FROM oc WHERE id > '9-440' AND id < '11-5';
SELECT count(*) AS asked, (SELECT count(*) FROM (SELECT * FROM o OFFSET 0) s WHERE id > '5-440' AND id < '9-5') AS read_all
    FROM o WHERE id > '5-440' AND id < '9-5';
-- an id that Redis writes otherwise comes back as Redis has it
CREATE FOREIGN TABLE short_ids (id text, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'short_ids');
INSERT INTO short_ids VALUES ('5', 'a'), ('7-01', 'b'), ('8-2', 'c') RETURNING id;
SELECT id FROM short_ids;
