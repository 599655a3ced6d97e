-- Joins with look-ahead: Redis is asked once for many rows of the other side.
SELECT make_redis_server();
CREATE FOREIGN TABLE h (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE z (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE s (member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 's');
CREATE FOREIGN TABLE l (index int, element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'l');
CREATE FOREIGN TABLE v (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'v:*');
CREATE FOREIGN TABLE kh (key text, field text, value text, ttl int) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'kh:*');
CREATE FOREIGN TABLE ks (key text, member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'ks:*');
CREATE FOREIGN TABLE n (field int, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h', join_batch_size '1');
INSERT INTO h SELECT i, 'v' || i FROM generate_series(1, 20000) i;
INSERT INTO z SELECT i, i * 2 FROM generate_series(1, 20000) i;
INSERT INTO s SELECT i FROM generate_series(1, 20000, 2) i;
INSERT INTO l (element) SELECT 'e' || i FROM generate_series(0, 4999) i;
INSERT INTO v SELECT 'v:' || i, i FROM generate_series(1, 20000) i;
INSERT INTO kh SELECT 'kh:' || i, 'f' || j, i * j, 1000 FROM generate_series(1, 3000) i, generate_series(1, 3) j;
INSERT INTO ks SELECT 'ks:' || i, 'm' || j FROM generate_series(1, 3000) i, generate_series(1, 3) j;
ANALYZE h; ANALYZE z; ANALYZE s; ANALYZE l; ANALYZE v; ANALYZE kh; ANALYZE ks; ANALYZE n;
CREATE TABLE ids (id int, f text);
INSERT INTO ids SELECT i * 5, i * 5 FROM generate_series(1, 2000) i;
INSERT INTO ids VALUES (NULL, NULL), (-1, 'none'), (5, '5');
ANALYZE ids;

SET enable_hashjoin = off;
-- which node fetches ahead, and how often Redis is asked
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $body$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line !~ 'Filter|Pushdown|Redis Server|Table Type|Cond:' THEN RETURN NEXT line; END IF;
    END LOOP;
END $body$;
CREATE FUNCTION trips(query text) RETURNS SETOF text LANGUAGE plpgsql AS $body$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Look-Ahead|Batches|Round Trips|Rows Fetched|Join' THEN
            RETURN NEXT regexp_replace(line, 'rows=(\d+)\.00', 'rows=\1');
        END IF;
    END LOOP;
END $body$;
SELECT plan($$SELECT * FROM ids JOIN h ON f = field$$);
SELECT trips($$SELECT * FROM ids JOIN h ON f = field$$);
SELECT count(*), sum(id), count(DISTINCT value) FROM ids JOIN h ON f = field;
SELECT trips($$SELECT * FROM ids LEFT JOIN h ON f = field$$);
SELECT count(*), sum(id), count(value) FROM ids LEFT JOIN h ON f = field;
SELECT * FROM ids LEFT JOIN h ON f = field AND value <> 'v10' WHERE id < 20 OR id IS NULL ORDER BY id, f;
SELECT trips($$SELECT * FROM ids WHERE EXISTS (SELECT FROM s WHERE member = f)$$);
SELECT count(*) FROM ids WHERE EXISTS (SELECT FROM s WHERE member = f);
SELECT trips($$SELECT * FROM ids WHERE NOT EXISTS (SELECT FROM s WHERE member = f)$$);
SELECT count(*) FROM ids WHERE NOT EXISTS (SELECT FROM s WHERE member = f);
SELECT trips($$SELECT * FROM ids JOIN z ON f = member WHERE score > 100$$);
SELECT count(*), sum(score) FROM ids JOIN z ON f = member WHERE score > 100;
SELECT trips($$SELECT * FROM ids JOIN l ON id = index$$);
SELECT count(*), min(element), max(element) FROM ids JOIN l ON id = index;
SELECT trips($$SELECT * FROM ids JOIN v ON key = 'v:' || id$$);
SELECT count(*), sum(value::int) FROM ids JOIN v ON key = 'v:' || id;
SELECT trips($$SELECT * FROM ids JOIN kh ON key = 'kh:' || id AND field = 'f2'$$);
SELECT count(*), sum(value::int), min(ttl) > 900 AS ttl FROM ids JOIN kh ON key = 'kh:' || id AND field = 'f2';
SELECT trips($$SELECT * FROM ids JOIN ks ON key = 'ks:' || id$$);
SELECT count(*), count(DISTINCT member) FROM ids JOIN ks ON key = 'ks:' || id;
-- chains
SELECT plan($$SELECT * FROM ids JOIN h ON f = field JOIN z ON f = member$$);
SELECT count(*), sum(score) FROM ids JOIN h ON f = field JOIN z ON f = member;
SELECT count(*), sum(score), count(value) FROM ids LEFT JOIN h ON f = field LEFT JOIN z ON value = 'v' || member AND f = member;

-- few rows are fetched where few are wanted
SELECT trips($$SELECT * FROM ids JOIN h ON f = field LIMIT 3$$);
-- a table can do without
SELECT plan($$SELECT * FROM ids JOIN n ON id = n.field WHERE id < 50$$);
ALTER FOREIGN TABLE n OPTIONS (SET join_batch_size '4096');
SELECT trips($$SELECT * FROM ids JOIN n ON id = n.field$$);
-- once more for each row further out, with what has changed there
SELECT * FROM (VALUES ('v1%'), ('v5%')) p (pattern), LATERAL (SELECT count(*), min(value) FROM ids JOIN h ON f = field AND value LIKE pattern OFFSET 0) x;
SELECT o.id, x.* FROM (SELECT * FROM ids ORDER BY id LIMIT 2) o, LATERAL (SELECT count(*), min(value) FROM ids JOIN h ON f = field AND field > o.f OFFSET 0) x ORDER BY 1;
-- in cursors, prepared and in functions
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, value FROM ids JOIN h ON f = field WHERE id > 9980 ORDER BY id;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH ALL FROM c;
COMMIT;
SET plan_cache_mode = force_generic_plan;
PREPARE p (int) AS SELECT count(*), sum(id) FROM ids JOIN h ON f = field WHERE id > $1;
EXECUTE p (0);
EXECUTE p (9000);
EXECUTE p (9000);
RESET plan_cache_mode;
-- changes, and rows that are locked
BEGIN;
UPDATE h SET value = 'joined' FROM ids WHERE f = field AND id > 9000;
SELECT count(*) FROM h WHERE value = 'joined';
DELETE FROM h USING ids WHERE f = field AND id > 9000;
SELECT count(*) FROM h;
SELECT count(*) FROM (SELECT * FROM ids JOIN z ON f = member FOR UPDATE OF ids) x;
UPDATE ids SET f = 'x' || score FROM z WHERE f = member AND id > 9990;
SELECT * FROM ids WHERE id > 9990 ORDER BY id;
ROLLBACK;
-- fewer rows are kept where memory is short, and what is too large is asked for row by row
SET work_mem = '64kB';
CREATE TABLE wide AS SELECT id, f, repeat('x', 1000) AS filler FROM ids;
ANALYZE wide;
SELECT trips($$SELECT * FROM wide JOIN h ON f = field$$);
SELECT count(*), sum(id) FROM wide JOIN h ON f = field;
RESET work_mem;
CREATE FOREIGN TABLE large (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'large');
INSERT INTO large SELECT i * 5, repeat('y', 100000) FROM generate_series(1, 400) i;
ANALYZE large;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off;
SELECT trips($$SELECT * FROM ids JOIN large ON f = field$$);
SELECT count(*), sum(length(value)) FROM ids JOIN large ON f = field;

-- every kind of join, beside the same without look-ahead
CREATE FOREIGN TABLE h1 (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h', join_batch_size '1');
CREATE FOREIGN TABLE kh1 (key text, field text, value text, ttl int) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'kh:*', join_batch_size '1');
CREATE FUNCTION differs(query text) RETURNS bigint LANGUAGE plpgsql AS $body$
DECLARE
    differing bigint;
    plain text := regexp_replace(query, '(JOIN|FROM) (k?h)\M', '\1 \21 \2', 'g');
    compared text := format('SELECT count(*) FROM ((%1$s EXCEPT ALL %2$s) UNION ALL (%2$s EXCEPT ALL %1$s)) x', query, plain);
    line text;
    ahead boolean := false;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP ahead := ahead OR line ~ 'Look-Ahead'; END LOOP;
    IF NOT ahead THEN RAISE WARNING 'no look-ahead: %', query; END IF;
    EXECUTE compared INTO differing;
    RETURN differing;
END $body$;
CREATE TABLE few AS SELECT * FROM ids WHERE id IS NULL OR id < 1000;
ANALYZE few; ANALYZE h1; ANALYZE kh1;
SELECT differs($$SELECT id, h.value FROM few JOIN h ON f = h.field$$);
SELECT differs($$SELECT id, h.value FROM few LEFT JOIN h ON f = h.field AND id > 50$$);
SELECT differs($$SELECT id FROM few WHERE EXISTS (SELECT FROM h WHERE h.field = f AND h.value LIKE 'v1%')$$);
SELECT differs($$SELECT id FROM few WHERE NOT EXISTS (SELECT FROM h WHERE h.field = f AND h.value LIKE 'v1%')$$);
SELECT differs($$SELECT id, h.value FROM few JOIN h ON h.field = ANY (ARRAY[f, NULL, '7'])$$);
SELECT differs($$SELECT id, kh.value FROM few LEFT JOIN kh ON kh.key = 'kh:' || id AND kh.field = 'f' || id % 3$$);
SELECT differs($$SELECT id, kh.value, kh.ttl > 0 FROM few JOIN kh ON kh.key = 'kh:' || id AND kh.field IN ('f1', 'f' || id % 4)$$);
SELECT differs($$SELECT id, kh.value FROM few LEFT JOIN kh ON kh.key = 'kh:' || id$$);
SELECT differs($$SELECT a.id, h.value, kh.value FROM few a LEFT JOIN h ON a.f = h.field LEFT JOIN few b ON b.f = h.field LEFT JOIN kh ON kh.key = 'kh:' || b.id AND kh.field = 'f1'$$);
SELECT differs($$SELECT id, (h.*)::text FROM few JOIN h ON f = h.field$$);
SELECT differs($$SELECT x.id, h.value FROM (SELECT id, max(f) AS m FROM few GROUP BY id) x LEFT JOIN h ON m = h.field$$);
SELECT differs($$SELECT id, kh.value FROM few JOIN kh ON kh.key = 'kh:' || id AND kh.field > 'f' || id % 3$$);
-- look-ups that differ in more than names are made one by one
SELECT plan($$SELECT * FROM few JOIN kh ON kh.key = 'kh:' || id AND kh.field LIKE f || '%'$$);
