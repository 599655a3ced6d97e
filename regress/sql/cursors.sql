-- Cursors: WHERE CURRENT OF, rows fetched one by one, a cursor that is closed early or held.
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 6) n;
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload

BEGIN;
DECLARE c CURSOR FOR SELECT * FROM users ORDER BY id FOR UPDATE;
FETCH 2 FROM c;
UPDATE users SET name = 'current' WHERE CURRENT OF c;
FETCH c;
DELETE FROM users WHERE CURRENT OF c;
COMMIT;
\! cached
-- twice through the same position
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM users WHERE id = 2 FOR UPDATE;
FETCH c;
UPDATE users SET name = 'once' WHERE CURRENT OF c;
UPDATE users SET name = 'twice' WHERE CURRENT OF c;
UPDATE users SET id = 22 WHERE CURRENT OF c RETURNING *;
COMMIT;
\! cached
-- What a cursor has read by its end fills.
SELECT redis_cache.invalidate_all('users');
BEGIN;
DECLARE c CURSOR FOR SELECT name FROM users WHERE id IN (4, 5, 6);
FETCH ALL FROM c;
CLOSE c;
COMMIT;
\! cached
SELECT redis_cache.invalidate_all('users');
DECLARE c CURSOR WITH HOLD FOR SELECT name FROM users WHERE id IN (4, 5);
FETCH ALL FROM c;
CLOSE c;
\! cached
-- A held cursor goes on with what it saw; a later fill must not bring that back.
SELECT redis_cache.invalidate_all('users');
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT name FROM users WHERE id IN (4, 5);
FETCH c;
UPDATE users SET name = 'newer' WHERE id IN (4, 5);
FETCH c;
CLOSE c;
COMMIT;
\! cached
-- plpgsql
DO $$
DECLARE r record; c CURSOR FOR SELECT * FROM users ORDER BY id FOR UPDATE;
BEGIN
    FOR r IN c LOOP
        UPDATE users SET name = 'loop ' || r.id WHERE CURRENT OF c;
    END LOOP;
END $$;
\! cached
