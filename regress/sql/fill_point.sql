-- fill = point (the default): a scan that looks rows up by equality on all key columns fills, whatever plan it has.
CREATE TABLE users (id int PRIMARY KEY, name text, grp int);
CREATE TABLE orders (id int PRIMARY KEY, user_id int);
INSERT INTO users SELECT n, 'user ' || n, n % 10 FROM generate_series(1, 5000) n;
INSERT INTO orders SELECT n, n + 100 FROM generate_series(1, 5) n;
CREATE INDEX ON users (grp);
VACUUM ANALYZE users, orders;
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
-- The keys that a query fills.
CREATE FUNCTION filled(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    keys text[];
BEGIN
    PERFORM redis_cache.invalidate_all('users');
    EXECUTE query;
    PERFORM redis_cache.wait();
    SELECT array_agg(line) INTO keys FROM redis('--raw', 'KEYS', 'user:*') line WHERE line <> '';
    RETURN coalesce((SELECT string_agg(key, ' ' ORDER BY key) FROM unnest(keys) key), '-');
END $$;

\pset format unaligned
\pset tuples_only on
SELECT query, filled(query) FROM (VALUES
    ('SELECT * FROM users WHERE id = 1'),
    ('SELECT name FROM users WHERE 2 = id'),
    ('SELECT name FROM users WHERE id = 3 AND name LIKE ''user%'''),
    ('SELECT name FROM users WHERE id = 3 AND name = ''nobody'''),
    ('SELECT name FROM users WHERE id IN (4, 5, 6)'),
    ('SELECT name FROM users WHERE id = ANY (ARRAY[7, 8, NULL])'),
    ('SELECT name FROM users WHERE id = 9::bigint'),
    ('SELECT name FROM users WHERE id = (SELECT 10)'),
    ('SELECT name FROM users WHERE id = (SELECT min(user_id) FROM orders)'),
    ('SELECT name FROM users WHERE id = 5 + 6'),
    ('SELECT name FROM users WHERE id = length(current_setting(''server_encoding''))'),
    ('SELECT count(name) FROM users u WHERE id = 12 AND EXISTS (SELECT FROM orders)'),
    ('SELECT name FROM (SELECT * FROM users) s WHERE id = 13'),
    ('WITH c AS (SELECT * FROM users WHERE id = 14) SELECT name FROM c'),
    ('WITH c AS MATERIALIZED (SELECT * FROM users WHERE id = 15) SELECT name FROM c'),
    ('SELECT (SELECT name FROM users WHERE id = o.user_id) FROM orders o'),
    ('SELECT count(name) FROM users WHERE NOT id <> 25'),
    ('SELECT name FROM users WHERE id = 16 UNION ALL SELECT name FROM users WHERE id = 17'),
    ('SELECT name FROM users WHERE id = 18 FOR UPDATE'),
    ('SELECT name FROM users WHERE id = 19 FOR KEY SHARE'),
    ('SELECT name FROM users WHERE id = 20 ORDER BY name LIMIT 1'),
    ('SELECT name FROM users WHERE id IN (21, 22) ORDER BY id LIMIT 1'),
    ('SELECT grp, count(*) FROM users WHERE id IN (23, 24) GROUP BY grp'),
    ('TABLE orders')
) q (query);
-- a join by the key
SET enable_hashjoin = off; SET enable_mergejoin = off;
SELECT filled('SELECT name FROM orders o JOIN users u ON u.id = o.user_id');
SELECT filled('SELECT name FROM orders o, LATERAL (SELECT * FROM users WHERE id = o.user_id) u');
SELECT filled('SELECT name FROM orders o LEFT JOIN users u ON u.id = o.user_id WHERE o.id = 1');
RESET enable_hashjoin; RESET enable_mergejoin;
-- each scan type
SET enable_indexscan = off; SET enable_indexonlyscan = off;
EXPLAIN (COSTS OFF) SELECT name FROM users WHERE id IN (30, 31);
SELECT filled('SELECT name FROM users WHERE id IN (30, 31)');
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT name FROM users WHERE id IN (32, 33);
SELECT filled('SELECT name FROM users WHERE id IN (32, 33)');
RESET enable_indexscan; RESET enable_bitmapscan; RESET enable_indexonlyscan;
SELECT filled('SELECT name FROM users WHERE ctid = ''(0,1)'' AND id = 1');
SELECT filled('SELECT name FROM users WHERE id = 34 AND grp = 4');
-- prepared: custom, generic, with an array
PREPARE one (int) AS SELECT name FROM users WHERE id = $1;
PREPARE many (int[]) AS SELECT name FROM users WHERE id = ANY ($1);
SET plan_cache_mode = force_custom_plan;
SELECT filled('EXECUTE one(40)');
SELECT filled('EXECUTE many(ARRAY[41, 42])');
SET plan_cache_mode = force_generic_plan;
SELECT filled('EXECUTE one(43)');
SELECT filled('EXECUTE many(ARRAY[44, 45])');
SELECT filled('EXECUTE one(NULL)');
RESET plan_cache_mode;
-- and what was filled is the row
SELECT name FROM users WHERE id = 50;
\! cached
