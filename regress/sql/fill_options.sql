-- fill = any takes every row that a scan of the table returns, fill = off none; a ttl goes with each key, and
-- refill_interval spares Redis what it has just been given.
CREATE TABLE users (id int PRIMARY KEY, name text, grp int);
INSERT INTO users SELECT n, 'user ' || n, n % 3 FROM generate_series(1, 6) n;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'any:{id} => SELECT name FROM users WITH (name = any, fill = any, ttl = ''1 hour''); '
    'off:{id} => SELECT name FROM users WITH (name = off, fill = off); '
    'point:{id} => SELECT name FROM users WITH (name = point, ttl = 100)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT name, ttl FROM redis_cache.mappings;
SELECT count(name) FROM users WHERE grp = 1;
\! cached -t
SELECT name FROM users WHERE id IN (1, 2);
\! cached -t
SELECT name FROM users LIMIT 1;
SELECT redis_cache.invalidate_all('any');
SELECT * FROM users ORDER BY id LIMIT 3;
\! cached any:*
UPDATE users SET name = 'changed' WHERE id = 6;
\! cached -t *:6
SELECT name, fills > 0 AS fills, sets > 0 AS sets FROM redis_cache.stats;

-- Within refill_interval a key that is there is not filled again; one that was deleted through the cache is.
ALTER SYSTEM SET pg_redis_cache.refill_interval = '1h';
\! reload
SELECT redis_cache.reset_stats();
SELECT name FROM users WHERE id = 3;
SELECT redis_cache.wait();
SELECT name FROM users WHERE id = 3;
SELECT name FROM users WHERE id = 3;
SELECT redis_cache.wait();
SELECT name, fills, fills_skipped FROM redis_cache.stats WHERE name = 'point';
SELECT redis_cache.invalidate('point', '3');
SELECT name FROM users WHERE id = 3;
\! cached point:3
SELECT redis_cache.invalidate_all('point') > 0 AS invalidated;
SELECT name FROM users WHERE id = 3;
\! cached point:3
UPDATE users SET id = 33 WHERE id = 3;
UPDATE users SET id = 3 WHERE id = 33;
DELETE FROM users WHERE id = 3;
SELECT redis_cache.wait();
INSERT INTO users VALUES (3, 'new', 0);
SELECT name FROM users WHERE id = 3;
\! cached point:3
TRUNCATE users;
SELECT redis_cache.wait();
INSERT INTO users VALUES (3, 'newer', 0);
SELECT name FROM users WHERE id = 3;
\! cached point:3

-- Turned off, nothing is captured or filled; turned on again, everything is purged first.
ALTER SYSTEM SET pg_redis_cache.enabled = off;
\! reload
UPDATE users SET name = 'unseen';
SELECT name FROM users WHERE id = 3;
ALTER SYSTEM SET pg_redis_cache.enabled = on;
\! reload
SELECT await_state('point', 'active');
\! cached
SELECT name FROM users WHERE id = 3;
\! cached
