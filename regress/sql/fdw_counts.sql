-- count(*) by what Redis knows of its collections: of one key, of a pattern's keys, of a range of scores.
SELECT make_redis_server();
CREATE FOREIGN TABLE z (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE zn (member text, score numeric) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'z');
CREATE FOREIGN TABLE zi (member text, score int) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'zi');
CREATE FOREIGN TABLE zk (key text, member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'k:zset:*');
CREATE FOREIGN TABLE st (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'k:*');
CREATE FOREIGN TABLE hs (key text, field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'k:*');
CREATE FOREIGN TABLE ls (key text, element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'k:*');
CREATE FOREIGN TABLE se (key text, member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'k:*');
CREATE FOREIGN TABLE xs (key text, id text, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'k:*');
CREATE FOREIGN TABLE one (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'k:string:1');
INSERT INTO z SELECT 'm' || g, g / 10.0 FROM generate_series(-20, 20) g;
INSERT INTO z VALUES ('low', '-infinity'), ('high', 'infinity'), ('large', 9007199254740992);
INSERT INTO zi SELECT g, g FROM generate_series(1, 100) g;
INSERT INTO zk SELECT 'k:zset:' || g, m, m FROM generate_series(1, 30) g, generate_series(1, 10) m;
INSERT INTO st SELECT 'k:string:' || g, '' FROM generate_series(1, 3000) g;
INSERT INTO hs SELECT 'k:hash:' || g, f, 'v' FROM generate_series(1, 1500) g, generate_series(1, 1 + g % 3) f;
INSERT INTO ls SELECT 'k:list:' || g, f FROM generate_series(1, 7) g, generate_series(1, 1 + g % 3) f;
INSERT INTO se SELECT 'k:set:' || g, f FROM generate_series(1, 8) g, generate_series(1, 1 + g % 3) f;
INSERT INTO xs SELECT 'k:stream:' || g, '*', f FROM generate_series(1, 9) g, generate_series(1, 1 + g % 3) f;

-- what is counted, and what is read and counted
CREATE TABLE counts (relation regclass, condition text);
INSERT INTO counts SELECT r, 'true' FROM unnest('{z,zn,zi,zk,st,hs,ls,se,xs,one}'::regclass[]) r;
INSERT INTO counts SELECT r, c FROM unnest('{z,zn}'::regclass[]) r, unnest(ARRAY['score > 1', 'score > 0.10 AND score <= 1.5', 'score = 0.3',
    'score > 0.3 AND score < 0.3', 'score >= 9007199254740993', $$score < 'infinity'$$, $$score <= 'NaN'$$, $$score > 'NaN'$$,
    'score > 0.1000000000000000055', 'score = NULL', $$score > 0 AND member LIKE 'm1%'$$, 'member = ''m1''']) c;
INSERT INTO counts SELECT 'zi', c FROM unnest(ARRAY['score > 10', 'score BETWEEN 5 AND 7', 'score < 10::bigint', 'score <> 5']) c;
INSERT INTO counts SELECT 'zk', c FROM unnest(ARRAY['score > 5', $$key = 'k:zset:1'$$, $$key LIKE 'k:zset:1%' AND score > 3$$,
    $$key IN ('k:zset:1', 'k:zset:2', 'k:zset:1', 'k:zset:x')$$, $$key LIKE 'k:zset:_'$$, $$member = '1'$$]) c;
INSERT INTO counts SELECT r, c FROM unnest('{st,hs,ls,se,xs}'::regclass[]) r, unnest(ARRAY[$$key LIKE 'k:%:1%'$$, $$key ^@ 'k:hash:1'$$,
    $$key ^@ 'k:st'$$, $$key IN ('k:string:1', 'k:hash:1', 'k:list:1', 'k:set:1', 'k:stream:1', 'k:string:1', 'other', 'k:no')$$,
    $$key = NULL$$, $$key <> 'k:hash:5'$$, $$key LIKE '%1' AND key LIKE 'k:s%'$$]) c;
CREATE FUNCTION counted(relation regclass, condition text, OUT asked bigint, OUT read_all bigint, OUT how text) LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s WHERE %s', relation, condition) INTO asked;
    EXECUTE format('SELECT count(*) FROM (SELECT * FROM %s OFFSET 0) t WHERE %s', relation, condition) INTO read_all;
    FOR line IN EXECUTE format('EXPLAIN (COSTS OFF) SELECT count(*) FROM %s WHERE %s', relation, condition) LOOP
        IF line ~ 'One-Time Filter' THEN how := 'nothing'; END IF;
        IF line ~ 'Redis Ops' THEN how := substring(line FROM 'Redis Ops: (.*)'); END IF;
    END LOOP;
END $$;
SELECT relation, condition, c.asked, c.how FROM counts, counted(relation, condition) c ORDER BY relation, condition COLLATE "C";
SELECT relation, condition, c.* FROM counts, counted(relation, condition) c WHERE c.asked <> c.read_all;

EXPLAIN (COSTS OFF) SELECT count(*) FROM zk WHERE key = ANY ('{k:zset:1,k:zset:2}') AND score > 5;
-- parameters: doubles are what scores are, others are known by their value alone
SET plan_cache_mode = force_generic_plan;
PREPARE doubles(float8, float8) AS SELECT count(*) FROM z WHERE score >= $1 AND score < $2;
EXPLAIN (COSTS OFF) EXECUTE doubles(0, 1);
EXECUTE doubles(0, 1); EXECUTE doubles(1, 0); EXECUTE doubles('-infinity', 'NaN'); EXECUTE doubles('NaN', 'NaN'); EXECUTE doubles(NULL, 1);
PREPARE numerics(numeric) AS SELECT count(*) FROM zn WHERE score > $1;
EXPLAIN (COSTS OFF) EXECUTE numerics(0.5);
EXECUTE numerics(0.5); EXECUTE numerics(0.1000000000000000055);
PREPARE keys(text[]) AS SELECT count(*) FROM hs WHERE key = ANY ($1);
EXECUTE keys('{k:hash:1,k:hash:2,k:hash:1,k:string:1,NULL}'); EXECUTE keys('{}'); EXECUTE keys(NULL);
RESET plan_cache_mode;
-- again for each row of another
SELECT g, (SELECT count(*) FROM hs WHERE key = 'k:hash:' || g) AS fields, (SELECT count(*) FROM z WHERE score > g) AS above
    FROM generate_series(1, 3) g;
-- another type under the one key is an ERROR
CREATE FOREIGN TABLE wrong (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'k:set:1');
SELECT count(*) FROM wrong;
SELECT count(*) FROM wrong WHERE score > 1;
CREATE FUNCTION did(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Redis Commands|Round Trips' THEN RETURN NEXT trim(line); END IF;
    END LOOP;
END $$;
SELECT did($$SELECT count(*) FROM z WHERE score > 1$$);
SELECT did($$SELECT count(*) FROM hs WHERE key IN ('k:hash:1', 'k:hash:2')$$);
