-- Of a mapping's hashes only the fields are asked for that a query needs, if they are few.
CREATE TABLE users (id int PRIMARY KEY, a text, b text, c text, d text, e text, f text, g text);
INSERT INTO users (id, a, b, c, d) VALUES (1, 'a1', 'b1', 'c1', 'd1'), (2, NULL, NULL, 'c2', NULL), (3, NULL, NULL, NULL, NULL);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT a, b, c, d, e, f, g, id FROM users WITH (fill = any)';
\! reload
SELECT count(*) FROM (SELECT * FROM users OFFSET 0) u;
\! cached 'user:*'
CREATE SCHEMA cached;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached;
ALTER FOREIGN TABLE cached.users ADD COLUMN ttl bigint;
CREATE FUNCTION figures(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Ops|Commands|Trips|Fetched' THEN RETURN NEXT line; END IF;
    END LOOP;
END $$;

SELECT figures('SELECT a FROM cached.users WHERE id = 1');
SELECT figures('SELECT a, b FROM cached.users WHERE id = ANY (''{1,2,9}'')');
SELECT figures('SELECT a, b, c FROM cached.users WHERE id = 1');
SELECT figures('SELECT * FROM cached.users WHERE id = 1');
SELECT figures('SELECT id FROM cached.users WHERE id = 1');
SELECT figures('SELECT id FROM cached.users');
SELECT figures('SELECT count(ttl) FROM cached.users');

SELECT id, a, b FROM cached.users ORDER BY id;
SELECT id, d, a IS NULL AS none FROM cached.users WHERE id = ANY ('{1,2,3,9}') ORDER BY id;
SELECT count(*) FROM cached.users;
SELECT count(*) FROM cached.users WHERE a IS NULL;
SELECT id, ttl, b FROM cached.users WHERE c = 'c2';
-- a key that holds another type is no row, and one that has gone neither
\! redis DEL user:1
\! redis SET user:1 x
SELECT id FROM cached.users WHERE id IN (1, 2, 9);
SELECT id, a FROM cached.users WHERE id IN (1, 2, 9);
SELECT id, a FROM cached.users ORDER BY id;
-- what else is in a hash is nobody's column
\! redis HSET user:7 other x
SELECT id, a FROM cached.users WHERE id = 7;
SELECT * FROM cached.users WHERE id = 7;
SELECT count(*) FROM cached.users WHERE ttl = -1;
