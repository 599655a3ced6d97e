-- Joins by key, ORDER BY score, count(*), and what ANALYZE tells the planner.
SELECT make_redis_server();
CREATE FOREIGN TABLE h (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE z (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE s (member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 's');
CREATE FOREIGN TABLE k (key text, field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'k:*');
CREATE FOREIGN TABLE l (index int, element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'l');
CREATE FOREIGN TABLE x (id text, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'x');
CREATE FOREIGN TABLE v (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'v');
INSERT INTO h SELECT i, 'v' || i FROM generate_series(1, 30000) i;
INSERT INTO z SELECT 'm' || i, (i * 7) % 30000 FROM generate_series(1, 30000) i;
INSERT INTO s SELECT i FROM generate_series(1, 30000, 3) i;
INSERT INTO k SELECT 'k:' || i, 'f' || j, i * j FROM generate_series(1, 200) i, generate_series(1, 3) j;
INSERT INTO l (element) SELECT i FROM generate_series(1, 500) i;
INSERT INTO x SELECT '*', i FROM generate_series(1, 300) i;
-- the sizes become known
ANALYZE h; ANALYZE z; ANALYZE s; ANALYZE k; ANALYZE l; ANALYZE x; ANALYZE v;
SELECT relname, reltuples FROM pg_class WHERE relkind = 'f' ORDER BY 1;
SELECT attname, null_frac, n_distinct FROM pg_stats WHERE tablename = 'k' ORDER BY attname;
CREATE TABLE few (f text, n int);
INSERT INTO few SELECT i * 1000, i FROM generate_series(1, 5) i;
CREATE TABLE many (f text);
INSERT INTO many SELECT i FROM generate_series(1, 20000) i;
ANALYZE few, many;

-- few rows ask for each, many rows read all (which side of = is left depends on the version)
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $body$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line !~ 'Filter|Pushdown|Redis Server|Table Type|Batch Size' THEN RETURN NEXT line; END IF;
    END LOOP;
END $body$;
SELECT plan($$SELECT * FROM few JOIN h ON f = field$$);
SELECT * FROM few JOIN h ON f = field ORDER BY n;
SELECT f, value FROM few LEFT JOIN h ON field = f || 'x' OR field = f ORDER BY f;
SELECT plan($$SELECT count(*) FROM many JOIN h ON f = field$$);
SELECT count(*), count(DISTINCT value) FROM many JOIN h ON f = field;
-- key and field from different tables
SELECT plan($$SELECT * FROM few JOIN k ON key = 'k:' || n WHERE field = 'f2'$$);
SELECT n, key, value FROM few JOIN k ON key = 'k:' || n WHERE field = 'f2' ORDER BY n;
SELECT n, (SELECT sum(value::int) FROM k WHERE key = 'k:' || few.n) AS sum FROM few ORDER BY n;
-- chains, by an equivalence of three
SELECT plan($$SELECT f, value, member FROM few JOIN h ON f = field JOIN s ON member = field$$);
SELECT f, value, member FROM few LEFT JOIN h ON f = field LEFT JOIN s ON member = field ORDER BY n;
SELECT count(*) FROM few JOIN z ON member = 'm' || f AND score > 10000;
SELECT n, element FROM few JOIN l ON index = n ORDER BY n;
SELECT plan($$SELECT n, element FROM few JOIN l ON index = n$$);
SELECT count(*) FROM few f1 WHERE EXISTS (SELECT FROM s WHERE member = f1.f);
SELECT count(*) FROM few f1 WHERE f NOT IN (SELECT member FROM s);
UPDATE h SET value = 'joined' FROM few WHERE f = field AND n > 3;
DELETE FROM h USING few WHERE f = field AND n = 5 RETURNING h.*;
SELECT field, value FROM h WHERE value = 'joined';

-- in the order of scores
EXPLAIN (COSTS OFF) SELECT * FROM z ORDER BY score DESC LIMIT 3;
SELECT * FROM z ORDER BY score DESC LIMIT 3;
SELECT * FROM z ORDER BY score LIMIT 3 OFFSET 1;
SELECT * FROM z WHERE score < 100 AND member LIKE 'm1%' ORDER BY score DESC LIMIT 3;
EXPLAIN (COSTS OFF) SELECT * FROM z WHERE score < 100 ORDER BY score DESC LIMIT 3;
EXPLAIN (COSTS OFF) SELECT * FROM z WHERE member IN ('m1', 'm2') ORDER BY score DESC LIMIT 3;
EXPLAIN (COSTS OFF) SELECT * FROM z ORDER BY score DESC, member LIMIT 3;
SELECT * FROM z ORDER BY score DESC, member LIMIT 3;
INSERT INTO z SELECT 'top' || i, 50000 FROM generate_series(1, 1000) i;
SELECT count(DISTINCT member), min(score) FROM (SELECT * FROM z ORDER BY score DESC LIMIT 1500) t;
SELECT score, lead FROM (SELECT score, lead(score) OVER (ORDER BY score) FROM z) w WHERE lead < score;

-- count(*) is one command
EXPLAIN (COSTS OFF) SELECT count(*) FROM h;
SELECT (SELECT count(*) FROM h) AS h, (SELECT count(*) FROM z) AS z, (SELECT count(*) FROM s) AS s,
    (SELECT count(*) FROM l) AS l, (SELECT count(*) FROM x) AS x, (SELECT count(*) FROM k) AS k, (SELECT count(*) FROM v) AS v;
SELECT count(*), count(*) + 1 AS next FROM s;
SELECT n, (SELECT count(*) FROM l) FROM few WHERE n < 3;
EXPLAIN (COSTS OFF) SELECT count(*) FROM h WHERE field <> '1';
EXPLAIN (COSTS OFF) SELECT count(value) FROM h;
EXPLAIN (COSTS OFF) SELECT count(*) FROM k;
SELECT count(*) FILTER (WHERE score > 5) FROM z;
SELECT 1 FROM h HAVING count(*) > 5;
CREATE FOREIGN TABLE h_child () INHERITS (h) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h:child');
INSERT INTO h_child VALUES ('of the child', 'x');
SELECT (SELECT count(*) FROM h) AS with_child, (SELECT count(*) FROM ONLY h) AS alone, (SELECT count(*) FROM h_child) AS child;
UPDATE h SET value = 'y' WHERE field IN ('of the child', '1');
SELECT tableoid::regclass, * FROM h WHERE value = 'y' ORDER BY 1;
DELETE FROM h WHERE value = 'y' RETURNING tableoid::regclass, field;
DROP FOREIGN TABLE h_child;
PREPARE counted AS SELECT count(*) FROM l;
EXECUTE counted; INSERT INTO l VALUES (NULL, 'more'); EXECUTE counted;
CREATE VIEW h_view AS SELECT count(*) FROM h;
CREATE ROLE reader;
GRANT SELECT ON h_view TO reader;
SET ROLE reader;
SELECT * FROM h_view;
SELECT count(*) FROM h;
RESET ROLE;
\! redis DEL s
\! redis SET s string
SELECT count(*) FROM s;
