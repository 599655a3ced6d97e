-- What changes anything or shows cached values is for superusers until granted; the views are for pg_monitor;
-- anybody may wait.
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users VALUES (1, 'ann');
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users';
\! reload
CREATE ROLE reader;
CREATE ROLE monitor IN ROLE pg_monitor;
GRANT ALL ON users TO reader;

SELECT p.proname AS function, pg_get_function_identity_arguments(p.oid) AS arguments,
    has_function_privilege('reader', p.oid, 'EXECUTE') AS anybody,
    has_function_privilege('monitor', p.oid, 'EXECUTE') AS monitor
FROM pg_proc p WHERE pronamespace = 'redis_cache'::regnamespace ORDER BY 1;
SELECT relname AS view, has_table_privilege('reader', oid, 'SELECT') AS anybody,
    has_table_privilege('monitor', oid, 'SELECT') AS monitor,
    has_table_privilege('monitor', oid, 'INSERT, UPDATE, DELETE') AS monitor_writes
FROM pg_class WHERE relnamespace = 'redis_cache'::regnamespace ORDER BY 1;

SET ROLE reader;
SELECT redis_cache.get('users', '1');
SELECT redis_cache.ttl('users', '1');
SELECT redis_cache.invalidate('users', '1');
SELECT redis_cache.invalidate_all('users');
SELECT redis_cache.reset_stats();
SELECT redis_cache.ping();
SELECT * FROM redis_cache.status;
SELECT * FROM redis_cache.stats;
SELECT * FROM redis_cache.mappings;
SELECT * FROM redis_cache.mapping_rows();
SELECT redis_cache.wait();
-- but what an ordinary user reads and changes is cached
SELECT name FROM users WHERE id = 1;
\! cached
UPDATE users SET name = 'anna';
\! cached
SET pg_redis_cache.fill = off;
SET pg_redis_cache.synchronous = on;
ALTER SYSTEM SET pg_redis_cache.mappings = '';
RESET ROLE;

SET ROLE monitor;
SELECT name, state FROM redis_cache.mappings;
SELECT name, sets > 0 AS sets FROM redis_cache.stats;
SELECT connected FROM redis_cache.status;
SELECT redis_cache.ping() > '0' AS ping;
SELECT redis_cache.get('users', '1');
SELECT redis_cache.reset_stats();
RESET ROLE;

GRANT EXECUTE ON FUNCTION redis_cache.get, redis_cache.invalidate TO reader;
SET ROLE reader;
SELECT redis_cache.get('users', '1');
SELECT redis_cache.invalidate('users', '1');
RESET ROLE;

-- Row-level security decides for a query what it sees, and so what it may fill, where the mapping allows that.
CREATE TABLE secured (id int PRIMARY KEY, owner name);
INSERT INTO secured VALUES (1, 'reader'), (2, 'monitor');
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secured USING (owner = current_user);
GRANT ALL ON secured TO reader;
ALTER SYSTEM SET pg_redis_cache.mappings = 'secured:{id} => SELECT owner FROM secured WITH (allow_rls = on)';
\! reload
SET ROLE reader;
RESET pg_redis_cache.fill;
SELECT * FROM secured WHERE id IN (1, 2);
UPDATE secured SET id = id;
RESET ROLE;
\! cached
DROP OWNED BY reader;
DROP ROLE reader, monitor;
