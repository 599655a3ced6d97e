-- EXPLAIN shows the same with and without a mapping: the two tables are alike, one is mapped.
CREATE TABLE plain (id int PRIMARY KEY, name text, visits int);
CREATE TABLE mapped (LIKE plain INCLUDING ALL);
INSERT INTO plain SELECT n, 'user ' || n, 0 FROM generate_series(1, 100) n;
INSERT INTO mapped SELECT * FROM plain;
CREATE TABLE plain_parts (id int PRIMARY KEY, name text, visits int) PARTITION BY RANGE (id);
CREATE TABLE plain_parts_1 PARTITION OF plain_parts FOR VALUES FROM (0) TO (50);
CREATE TABLE plain_parts_2 PARTITION OF plain_parts FOR VALUES FROM (50) TO (1000);
CREATE TABLE mapped_parts (id int PRIMARY KEY, name text, visits int) PARTITION BY RANGE (id);
CREATE TABLE mapped_parts_1 PARTITION OF mapped_parts FOR VALUES FROM (0) TO (50);
CREATE TABLE mapped_parts_2 PARTITION OF mapped_parts FOR VALUES FROM (50) TO (1000);
INSERT INTO plain_parts SELECT * FROM plain;
INSERT INTO mapped_parts SELECT * FROM plain;
VACUUM ANALYZE plain, mapped, plain_parts, mapped_parts;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'm:{id} => SELECT name, visits FROM mapped WITH (insert = set); '
    'p:{id} => SELECT name, visits FROM mapped_parts WITH (insert = set, fill = any)';
\! reload

-- Costs, widths and rows are compared; so is what ANALYZE counts. Buffers and times are not.
CREATE FUNCTION explain(options text, statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE format('EXPLAIN (%s) %s', options, statement) LOOP RETURN NEXT line; END LOOP;
END $$;
CREATE FUNCTION differences(statement text) RETURNS TABLE (difference text) LANGUAGE plpgsql AS $$
DECLARE
    options text;
    theirs text[];
    ours text[];
BEGIN
    FOREACH options IN ARRAY ARRAY[
        'VERBOSE', 'ANALYZE, VERBOSE, BUFFERS OFF, TIMING OFF, SUMMARY OFF', 'VERBOSE, FORMAT JSON',
        'ANALYZE, VERBOSE, BUFFERS OFF, TIMING OFF, SUMMARY OFF, FORMAT YAML'] LOOP
        BEGIN
            SELECT array_agg(l) INTO theirs FROM explain(options, replace(statement, '#', 'plain')) l;
            RAISE SQLSTATE 'TEST1';
        EXCEPTION WHEN SQLSTATE 'TEST1' THEN NULL;
        END;
        BEGIN
            SELECT array_agg(replace(l, 'mapped', 'plain')) INTO ours
                FROM explain(options, replace(statement, '#', 'mapped')) l;
            RAISE SQLSTATE 'TEST1';
        EXCEPTION WHEN SQLSTATE 'TEST1' THEN NULL;
        END;
        RETURN QUERY SELECT options || ': ' || coalesce(t, '(no line)') || E'\n  and: ' || coalesce(o, '(no line)')
            FROM unnest(theirs, ours) u(t, o) WHERE t IS DISTINCT FROM o;
    END LOOP;
END $$;
SELECT statement, differences(statement) FROM (VALUES
    ('SELECT name FROM # WHERE id = 5'),
    ('SELECT * FROM # WHERE id IN (1, 2, 3)'),
    ('SELECT a.name FROM # a JOIN # b ON a.id = b.visits'),
    ('SELECT count(*) FROM #_parts WHERE id < 60'),
    ('INSERT INTO # VALUES (1000, NULL, 1)'),
    ('INSERT INTO #_parts SELECT 0, name, 1 FROM # WHERE id = 1'),
    ('INSERT INTO # VALUES (1, NULL, 1) ON CONFLICT DO NOTHING'),
    ('INSERT INTO # VALUES (1, NULL, 1) ON CONFLICT (id) DO UPDATE SET visits = 5'),
    ('UPDATE # SET visits = 1'),
    ('UPDATE # SET visits = 1 WHERE id = 5'),
    ('UPDATE # SET visits = 1 WHERE false'),
    ('UPDATE # SET visits = 1 WHERE id = 5 RETURNING id, name'),
    ('UPDATE #_parts SET visits = 1'),
    ('UPDATE #_parts SET id = id + 200 WHERE id = 1'),
    ('UPDATE #_parts_1 SET visits = 2'),
    ('UPDATE # SET visits = p.visits FROM #_parts p WHERE p.id = #.id'),
    ('DELETE FROM # WHERE id < 10'),
    ('DELETE FROM # WHERE id < 10 RETURNING *'),
    ('DELETE FROM #_parts USING # p WHERE p.id = #_parts.id'),
    ('WITH u AS (UPDATE # SET visits = 1 WHERE id = 5) SELECT 1'),
    ('WITH u AS (UPDATE # SET visits = 1 RETURNING id) DELETE FROM #_parts USING u WHERE u.id = #_parts.id'),
    ('MERGE INTO # USING #_parts p ON p.id = #.id WHEN MATCHED THEN UPDATE SET visits = 3')
) AS s (statement);
-- What EXPLAIN ANALYZE changed was rolled back there, and is not in Redis; what it read may be.
\! cached | grep -v visits=0
-- Here it is. (18 writes row counts with decimals, and counts index searches.)
CREATE FUNCTION analyzed(statement text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT replace(line, '.00 loops', ' loops')
    FROM explain('ANALYZE, VERBOSE, COSTS OFF, BUFFERS OFF, TIMING OFF, SUMMARY OFF', statement) line
    WHERE line !~ 'Index Searches' $$;
SET enable_seqscan = off;
SELECT analyzed('UPDATE mapped SET visits = 1 WHERE id = 5');
SELECT analyzed('UPDATE mapped SET visits = 1 WHERE id IN (6, 7) RETURNING id');
SELECT analyzed('DELETE FROM mapped_parts WHERE id IN (1, 60)');
SELECT analyzed('INSERT INTO mapped_parts VALUES (0, ''new'', 0)');
EXPLAIN (VERBOSE, COSTS OFF) UPDATE mapped SET visits = 1 WHERE id = 8;
\! cached m:*
\! cached p:[16]0*
-- and a prepared one, planned once
PREPARE touch (int) AS UPDATE mapped SET visits = visits + 1 WHERE id = $1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (VERBOSE, COSTS OFF) EXECUTE touch(9);
SELECT analyzed('EXECUTE touch(9)');
EXECUTE touch(9);
\! cached m:9
