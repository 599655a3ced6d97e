-- Conditions that Redis is asked by are not checked again where that is exact, and are where it is not: each finds
-- what it finds when everything is read. And a LIMIT asks for no more than it needs.
SELECT make_redis_server();
CREATE FOREIGN TABLE h (field text, value int) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE b (field bytea, value int) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE i (field smallint, value int) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'i');
CREATE FOREIGN TABLE z (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE n (member text, score numeric) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE l (index int, element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'l');
CREATE FOREIGN TABLE x (id text, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'x');
CREATE FOREIGN TABLE k (key text, field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'k:*');
INSERT INTO h SELECT t, row_number() OVER () FROM unnest('{a,ab,abc,b,ba,a_,a%,"",ä,007,7}'::text[]) t;
INSERT INTO i SELECT g, g FROM generate_series(-3, 300) g;
INSERT INTO z SELECT 'm' || g, g / 10.0 FROM generate_series(-20, 20) g;
INSERT INTO z VALUES ('low', '-infinity'), ('high', 'infinity'), ('large', 9007199254740992), ('tenth', 0.1);
INSERT INTO l (element) SELECT g FROM generate_series(0, 99) g;
INSERT INTO x SELECT g || '-' || s, g * s FROM unnest('{5,9,10,11,100}'::int[]) g, generate_series(0, 11) s;
INSERT INTO k SELECT 'k:' || g, 'f' || f, g * f FROM generate_series(1, 9) g, generate_series(1, 9) f;

CREATE FUNCTION differs(relation regclass, condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    asked text;
    read_all text;
BEGIN
    EXECUTE format('SELECT string_agg(t::text, '' '' ORDER BY t::text) FROM %s t WHERE %s', relation, condition) INTO asked;
    EXECUTE format('SELECT string_agg(t::text, '' '' ORDER BY t::text) FROM (SELECT * FROM %s OFFSET 0) t WHERE %s',
        relation, condition) INTO read_all;
    IF asked IS NOT DISTINCT FROM read_all THEN RETURN NULL; END IF;
    RETURN format('%s: %s, and not %s', condition, coalesce(asked, 'nothing'), coalesce(read_all, 'nothing'));
END $$;

-- each condition, and each two of them: what is asked for, and what is found by reading all
CREATE TABLE conditions (relation regclass, condition text);
INSERT INTO conditions SELECT 'h', c FROM unnest(ARRAY[$$field = 'a'$$, $$field = 'x'$$, $$field = '7'$$, $$field = NULL$$,
    $$field IN ('a', 'b', 'a', NULL, 'x')$$, $$field = ANY ('{}')$$, $$field = ANY (NULL::text[])$$, $$field LIKE 'a%'$$,
    $$field LIKE 'a_'$$, $$field LIKE 'a\_'$$, $$field LIKE '%b'$$, $$field LIKE '_'$$, $$field ^@ 'ab'$$, $$field ^@ 'a%'$$,
    $$field > 'a'$$, $$value > 3$$, $$field LIKE ''$$]) c;
INSERT INTO conditions SELECT 'b', c FROM unnest(ARRAY[$$field = 'a'$$, $$field = '\xc3a4'$$, $$field = ANY ('{a,a,b}')$$,
    $$field <> ''$$]) c;
INSERT INTO conditions SELECT 'i', c FROM unnest(ARRAY['field = 7', 'field = ANY (''{1,2,2,400000}''::int[])', 'field = 70000',
    'field = 7::bigint', 'field > 290']) c;
INSERT INTO conditions SELECT t, c FROM unnest('{z,n}'::regclass[]) t, unnest(ARRAY['score = 0.1', 'score > 0.1', 'score < 0.10',
    'score >= 0.3', 'score <= 0.3', $$score < 'infinity'$$, $$score > '-infinity'$$, $$score <= 'NaN'$$, $$score > 'NaN'$$,
    $$score = 'NaN'$$, 'score = 0.1000000000000000055', 'score > 9007199254740991', 'score >= 9007199254740993',
    $$member = 'm1'$$, $$member IN ('m1', 'm2', 'tenth', 'm1')$$, $$member LIKE 'm1%'$$, $$member LIKE 'm_'$$]) c;
INSERT INTO conditions SELECT 'l', c FROM unnest(ARRAY['index = 5', 'index = -1', 'index < 5', 'index >= 97', 'index IN (1, 5, 5, 98, 1000)',
    'index > 3000000000', 'index <= 9223372036854775807', $$element > '97'$$]) c;
INSERT INTO conditions SELECT 'x', c FROM unnest(ARRAY[$$id = '5'$$, $$id = '5-0'$$, $$id = '05-0'$$, $$id = '5-00'$$, $$id = '5-11'$$,
    $$id IN ('5-1', '9-11', '9', '5-1', 'x')$$, $$id > '5-9'$$, $$id <= '5-10'$$, $$id > '10'$$, $$id < '9'$$, $$f = '50'$$]) c;
INSERT INTO conditions SELECT 'k', c FROM unnest(ARRAY[$$key = 'k:1'$$, $$key = 'x'$$, $$key IN ('k:1', 'k:2', 'k:1')$$, $$key LIKE 'k:%1'$$,
    $$key LIKE 'k__'$$, $$key ^@ 'k:3'$$, $$field = 'f1'$$, $$field IN ('f1', 'f9', 'f1')$$, $$field LIKE 'f1%'$$, $$field LIKE '_3'$$]) c;
SELECT differs(relation, condition) FROM conditions WHERE differs(relation, condition) IS NOT NULL;
SELECT count(*) AS tried, count(differs(a.relation, a.condition || ' AND ' || b.condition)) AS different
    FROM conditions a JOIN conditions b USING (relation);
-- the same with parameters, under generic plans
SET plan_cache_mode = force_generic_plan;
PREPARE two(text[], text) AS SELECT string_agg(field, ' ' ORDER BY field) FROM h WHERE field = ANY ($1) AND field LIKE $2;
EXECUTE two('{a,ab,ab,b,NULL}', 'a%'); EXECUTE two('{a,ab,b}', '_'); EXECUTE two('{}', '%'); EXECUTE two(NULL, '%');
PREPARE pattern(text) AS SELECT string_agg(field, ' ' ORDER BY field) FROM h WHERE field LIKE $1;
EXECUTE pattern('a%'); EXECUTE pattern('a_'); EXECUTE pattern('%\%'); EXECUTE pattern(NULL);
PREPARE above(numeric) AS SELECT string_agg(member, ' ' ORDER BY score) FROM n WHERE score > $1;
EXECUTE above(1.80); EXECUTE above(9007199254740991.5); EXECUTE above('NaN'); EXECUTE above('infinity');
RESET plan_cache_mode;

-- what is left to PostgreSQL
CREATE FUNCTION checked(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line ~ 'Filter|Pushdown|Redis Ops| Limit:' THEN RETURN NEXT trim(line); END IF;
    END LOOP;
END $$;
SELECT checked($$SELECT * FROM h WHERE field = ANY ('{a,b}') AND field = 'a'$$);
SELECT checked($$SELECT * FROM h WHERE field = ANY ('{a,b}') AND field LIKE 'a%'$$);
SELECT checked($$SELECT * FROM z WHERE score > 1 AND score < 2$$);
SELECT checked($$SELECT * FROM z WHERE score > 1 AND member = 'a'$$);
SELECT checked($$SELECT * FROM i WHERE field = 7::bigint$$);
SELECT checked($$SELECT * FROM x WHERE id = '5-0'$$);
SELECT checked($$SELECT * FROM x WHERE id > '5-0'$$);
-- a row that is locked, or changed by a join, is checked as it was found
BEGIN;
SELECT * FROM h WHERE field = 'a' FOR UPDATE;
COMMIT;
UPDATE h SET value = 100 FROM (VALUES ('a'), ('b'), ('x')) AS v (f) WHERE field = f RETURNING field, value;

-- what a join looks up ahead is checked where it is not exact
CREATE TABLE few AS SELECT g AS n, 'k:' || g AS k FROM generate_series(1, 12) g;
INSERT INTO few VALUES (13, NULL), (14, 'k:1'), (15, 'x');
ANALYZE few;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
SELECT n, key, value FROM few JOIN k ON key = few.k WHERE field = 'f2' ORDER BY n;
SELECT n, key, value FROM few JOIN k ON key = few.k AND key LIKE 'k:%1' WHERE field = 'f2' ORDER BY n;
SELECT n, key, value FROM few LEFT JOIN k ON key = few.k AND key LIKE 'k_' || n AND field = 'f2' ORDER BY n;
RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_material;

-- LIMIT: what is asked for, and how many rows have come
SELECT checked('SELECT * FROM l LIMIT 3');
SELECT checked('SELECT * FROM l LIMIT 3 OFFSET 5');
SELECT checked('SELECT * FROM l WHERE index > 10 LIMIT 3');
SELECT checked('SELECT * FROM z ORDER BY score DESC LIMIT 3');
SELECT checked('SELECT * FROM z ORDER BY member LIMIT 3');
SELECT checked($$SELECT * FROM l WHERE element <> 'x' LIMIT 3$$);
SELECT checked('SELECT count(element) FROM l LIMIT 3');
SELECT checked('SELECT DISTINCT element FROM l LIMIT 3');
SELECT checked('SELECT * FROM l, h LIMIT 3');
CREATE FUNCTION fetched(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    commands int;
    trips int;
    bytes int;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Redis Commands' THEN commands := substring(line FROM '[0-9]+'); END IF;
        IF line ~ 'Redis Round Trips' THEN trips := substring(line FROM '[0-9]+'); END IF;
        IF line ~ 'Redis Bytes Received' THEN bytes := substring(line FROM '[0-9]+'); END IF;
    END LOOP;
    RETURN format('%s commands, %s round trips, %s', commands, trips,
        CASE WHEN bytes < 1000 THEN 'few bytes' ELSE 'many bytes' END);
END $$;
INSERT INTO l (element) SELECT repeat('x', 100) FROM generate_series(1, 5000);
INSERT INTO z SELECT 'member ' || g, g + 100 FROM generate_series(1, 5000) g;
INSERT INTO x SELECT '*', repeat('x', 100) FROM generate_series(1, 1000);
INSERT INTO k SELECT 'k:' || g, 'f', repeat('x', 100) FROM generate_series(1000, 3000) g;
SELECT fetched('SELECT * FROM l LIMIT 3');
SELECT fetched('SELECT * FROM l');
SELECT fetched('SELECT * FROM l WHERE index >= 200 LIMIT 3 OFFSET 2');
SELECT fetched('SELECT * FROM z ORDER BY score DESC LIMIT 3');
SELECT fetched('SELECT * FROM z WHERE score > 200 ORDER BY score LIMIT 3');
SELECT fetched('SELECT * FROM x LIMIT 3');
SELECT member, score FROM z WHERE score > 200 ORDER BY score LIMIT 3 OFFSET 1;
SELECT * FROM z ORDER BY score DESC FETCH FIRST 2 ROWS WITH TIES;
SELECT count(*) FROM (SELECT * FROM l LIMIT 5050) s;
SELECT count(*) FROM (SELECT * FROM l OFFSET 5050) s;
SELECT count(*) FROM (SELECT * FROM k LIMIT 2000) s;
SELECT count(*) FROM (SELECT * FROM l LIMIT NULL) s;
SELECT index FROM l LIMIT 0;
-- as parameters, again and again
SET plan_cache_mode = force_generic_plan;
PREPARE page(int, int) AS SELECT index FROM l WHERE index >= 10 LIMIT $1 OFFSET $2;
SELECT checked('EXECUTE page(3, 1)');
SELECT fetched('EXECUTE page(3, 1)');
EXECUTE page(3, 1); EXECUTE page(1, NULL); EXECUTE page(0, 0);
EXECUTE page(-1, 0);
SELECT count(*) FROM generate_series(1, 20) g, LATERAL (SELECT * FROM l WHERE index > g LIMIT g) s;
RESET plan_cache_mode;
-- a condition that turns out not to be exact takes no part in it
SELECT * FROM h WHERE field LIKE '__c' LIMIT 1;
BEGIN;
DECLARE c CURSOR FOR SELECT index FROM l LIMIT 4;
FETCH 2 FROM c; FETCH 10 FROM c;
COMMIT;
