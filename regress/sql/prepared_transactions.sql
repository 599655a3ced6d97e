-- PREPARE TRANSACTION: nobody knows when it ends, so its mappings are purged, and nothing fills until it has.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE others (id int PRIMARY KEY, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 3) n;
INSERT INTO others VALUES (1, 'other');
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users; other:{id} => SELECT name FROM others';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
UPDATE users SET name = name || '.';
UPDATE others SET name = name || '.';
\! cached
BEGIN;
UPDATE users SET name = 'prepared' WHERE id = 1;
DELETE FROM users WHERE id = 2;
PREPARE TRANSACTION 'one';
\! cached
-- What others read meanwhile is what may be replaced at any moment.
SELECT name FROM users WHERE id IN (1, 2) ORDER BY id;
\! cached
UPDATE users SET name = 'not in doubt' WHERE id = 3;
COMMIT PREPARED 'one';
SELECT name FROM users WHERE id IN (1, 2, 3) ORDER BY id;
SELECT id, name FROM users WHERE redis_cache.wait() AND coalesce(redis_cache.get('users', id::text)->>'name', name) <> name;
SELECT redis_cache.get('users', '2') AS deleted;
SELECT name FROM users WHERE id = 1;
\! cached user:[12]

BEGIN;
UPDATE users SET name = 'never' WHERE id = 1;
PREPARE TRANSACTION 'two';
SELECT name FROM users WHERE id = 1;
\! cached user:1
ROLLBACK PREPARED 'two';
SELECT name FROM users WHERE id = 1;
\! cached user:1
\! cached other:*
