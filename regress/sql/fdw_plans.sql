-- Plans that are made once and carried out often: prepared, generic, in functions, under cursors, rescanned.
SELECT make_redis_server();
CREATE FOREIGN TABLE h (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE z (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE s (key text, value int) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 's:*');
CREATE FOREIGN TABLE l (index int, element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'l');
INSERT INTO h SELECT 'f' || i, 'v' || i FROM generate_series(1, 1000) i;
INSERT INTO z SELECT 'm' || i, i FROM generate_series(1, 1000) i;
INSERT INTO s SELECT 's:' || i, i FROM generate_series(1, 1000) i;
INSERT INTO l (element) SELECT 'e' || i FROM generate_series(0, 999) i;

SET plan_cache_mode = force_generic_plan;
PREPARE point(text) AS SELECT value FROM h WHERE field = $1;
EXPLAIN (COSTS OFF) EXECUTE point('f5');
EXECUTE point('f5'); EXECUTE point('f6'); EXECUTE point('absent'); EXECUTE point(NULL);
PREPARE many(text[]) AS SELECT count(*) FROM h WHERE field = ANY ($1);
EXECUTE many('{f1,f2,f2,x}'); EXECUTE many('{}'); EXECUTE many(NULL); EXECUTE many('{NULL}');
PREPARE likes(text) AS SELECT count(*) FROM h WHERE field LIKE $1 || '%';
EXECUTE likes('f99'); EXECUTE likes('f'); EXECUTE likes('%9'); EXECUTE likes('\f');
PREPARE scores(float8, float8) AS SELECT count(*) FROM z WHERE score >= $1 AND score < $2;
EXECUTE scores(10, 20); EXECUTE scores(20, 10); EXECUTE scores('-infinity', 'infinity'); EXECUTE scores(990.5, 'NaN');
PREPARE keys(text) AS SELECT sum(value) FROM s WHERE key = $1;
EXECUTE keys('s:77'); EXECUTE keys('other');
PREPARE index(int) AS SELECT element FROM l WHERE index = $1;
EXECUTE index(5); EXECUTE index(999); EXECUTE index(-1);
PREPARE raise(text, int) AS UPDATE s SET value = value + $2 WHERE key = $1 RETURNING value;
EXECUTE raise('s:1', 10); EXECUTE raise('s:1', 10); EXECUTE raise('s:x', 10);
PREPARE remove(text) AS DELETE FROM h WHERE field = $1 RETURNING *;
EXECUTE remove('f1'); EXECUTE remove('f1');
PREPARE add(text, text) AS INSERT INTO h VALUES ($1, $2);
EXECUTE add('f1', 'again');
-- stable expressions and sub-selects
SELECT value FROM h WHERE field = 'f' || length(current_setting('plan_cache_mode'))::text;
SELECT value FROM h WHERE field = (SELECT 'f' || max(i) FROM generate_series(1, 3) i);
-- volatile ones are no condition for Redis
EXPLAIN (COSTS OFF) SELECT value FROM h WHERE field = 'f' || random()::text;
RESET plan_cache_mode;
-- custom plans, then a generic one
EXECUTE point('f7'); EXECUTE point('f8'); EXECUTE point('f9'); EXECUTE point('f10'); EXECUTE point('f11'); EXECUTE point('f12'); EXECUTE point('f13');
-- a plan is made anew when the table is altered
ALTER FOREIGN TABLE h OPTIONS (SET table_key_prefix 'other');
EXECUTE point('f7');
ALTER FOREIGN TABLE h OPTIONS (SET table_key_prefix 'h');
EXECUTE point('f7');
ALTER FOREIGN TABLE h ADD COLUMN ttl int;
EXECUTE point('f7');
ALTER FOREIGN TABLE h DROP COLUMN ttl;

CREATE FUNCTION total(prefix text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    found int := 0;
    r record;
BEGIN
    FOR i IN 1 .. 20 LOOP
        FOR r IN SELECT * FROM h WHERE field = prefix || i LOOP
            found := found + 1;
            UPDATE s SET value = value + 1 WHERE key = 's:' || i;
            BEGIN
                IF i = 13 THEN RAISE division_by_zero; END IF;
                found := found + (SELECT count(*) FROM z WHERE score = i);
            EXCEPTION WHEN division_by_zero THEN
                found := found + 100;
            END;
        END LOOP;
    END LOOP;
    RETURN found;
END $$;
SELECT total('f'), total('g'), total('f');
SELECT sum(value) FROM s WHERE key IN ('s:1', 's:2', 's:13', 's:21');

-- cursors: two at a time over one connection, with writes between
BEGIN;
DECLARE a CURSOR FOR SELECT * FROM l;
DECLARE b SCROLL CURSOR FOR SELECT member FROM z WHERE score > 500;
FETCH 2 FROM a;
FETCH 2 FROM b;
INSERT INTO l VALUES (2, 'changed'), (NULL, 'new');
FETCH 1 FROM a;
FETCH PRIOR FROM b;
MOVE FORWARD 990 IN a;
SAVEPOINT here;
SELECT 1 / value FROM (SELECT value - value AS value FROM s) x;
ROLLBACK TO here;
FETCH ALL FROM a;
FETCH 1 FROM b;
COMMIT;
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM h;
COMMIT;
FETCH c;
CLOSE c;

-- rescans: of a nested loop's inner side, of a correlated sub-select
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
SELECT count(*) FROM generate_series(1, 3) i JOIN z ON z.score < i + 1;
SELECT i, (SELECT value FROM h WHERE field = 'f' || i) AS value FROM generate_series(1, 4) i;
SELECT i, (SELECT count(*) FROM z WHERE score BETWEEN i AND i * 10) AS count FROM generate_series(1, 4) i;
SELECT count(*) FROM h h1 JOIN h h2 ON h1.field = h2.field WHERE h1.field LIKE 'f1_';
RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_material;
SELECT i, element FROM generate_series(3, 5) i, LATERAL (SELECT element FROM l WHERE index = i) x;
-- LIMIT ends a scan early, and the connection goes on
SELECT count(*) FROM (SELECT FROM h LIMIT 3) x;
SELECT count(*) FROM h;
-- EXPLAIN ANALYZE tells what was done
CREATE FUNCTION figures(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Redis|Rows' THEN RETURN NEXT line; END IF;
    END LOOP;
END $$;
SELECT figures('SELECT * FROM h WHERE field = ''f5''');
SELECT regexp_replace(figures('SELECT * FROM l'), '(Bytes .*) \d+', '\1 n');
-- points on a list's index and on a stream's id are one batch, neighbouring indexes one command
CREATE FOREIGN TABLE x (id text, a text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'x');
INSERT INTO x SELECT i || '-' || i, 'a' || i FROM generate_series(1, 20) i;
SELECT regexp_replace(figures('SELECT * FROM l WHERE index IN (999, 3, 2, 1, 10, 5000)'), '(Bytes .*) \d+', '\1 n');
SELECT index FROM l WHERE index IN (999, 3, 2, 1, 10, 5000);
SELECT regexp_replace(figures('SELECT FROM l WHERE index = ANY (ARRAY(SELECT 2 * i FROM generate_series(0, 199) i))'), '(Bytes .*) \d+', '\1 n');
SELECT regexp_replace(figures('SELECT * FROM x WHERE id IN (''19-19'', ''3-3'', ''3-4'', ''03-3'', ''x'')'), '(Bytes .*) \d+', '\1 n');
SELECT id FROM x WHERE id IN ('19-19', '3-3', '3-4', '03-3', 'x');
SELECT regexp_replace(figures('SELECT * FROM x WHERE id >= ''2'''), '(Bytes .*) \d+', '\1 n');
-- patterns that exclude each other match nothing: Redis is not asked
SELECT figures('SELECT * FROM s WHERE key LIKE ''user101%''');
