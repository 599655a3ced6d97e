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
