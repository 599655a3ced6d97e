-- MERGE: what it changes is fresh or absent in Redis, on every version. (merge_returning: which of the two since 17.)
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE others (id int PRIMARY KEY, name text);
CREATE TABLE news (id int, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 4) n;
INSERT INTO others VALUES (1, 'other');
INSERT INTO news VALUES (1, 'first'), (2, NULL), (9, 'ninth');
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users; other:{id} => SELECT name FROM others';
\! reload
UPDATE users SET name = name;
UPDATE others SET name = name;
\! cached
BEGIN;
MERGE INTO users u USING news n ON n.id = u.id
    WHEN MATCHED AND n.name IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET name = n.name
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.name);
ROLLBACK;
\! cached
MERGE INTO users u USING news n ON n.id = u.id
    WHEN MATCHED AND n.name IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET name = n.name
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.name);
SELECT count(*) FROM users WHERE redis_cache.wait()
    AND redis_cache.get('users', id::text)->>'name' IS DISTINCT FROM name AND redis_cache.get('users', id::text) IS NOT NULL;
SELECT coalesce(redis_cache.get('users', '1')->>'name', 'first') AS first, redis_cache.get('users', '2') AS second;
-- In a transaction with other changes.
UPDATE users SET name = name;
BEGIN;
UPDATE users SET name = 'third' WHERE id = 3;
MERGE INTO users u USING news n ON n.id = u.id + 1 WHEN MATCHED THEN UPDATE SET name = 'merged';
UPDATE users SET name = 'fourth' WHERE id = 4;
COMMIT;
SELECT id, name, redis_cache.get('users', id::text)->>'name' AS cached FROM users
    WHERE redis_cache.wait() AND redis_cache.get('users', id::text)->>'name' <> name;
\! cached other:*
-- A prepared one, planned before the table was mapped.
ALTER SYSTEM SET pg_redis_cache.mappings = '';
\! reload
PREPARE m AS MERGE INTO others o USING news n ON n.id = o.id WHEN MATCHED THEN UPDATE SET name = 'prepared';
EXECUTE m;
ALTER SYSTEM SET pg_redis_cache.mappings = 'other:{id} => SELECT name FROM others';
\! reload
UPDATE others SET name = 'known';
\! cached
EXECUTE m;
SELECT coalesce(redis_cache.get('others', '1')->>'name', 'prepared') FROM redis_cache.wait();
