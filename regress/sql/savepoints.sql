-- What a subtransaction changed counts if it and all around it committed, and not otherwise.
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 5) n;
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (insert = set)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload

BEGIN;
UPDATE users SET name = 'before' WHERE id = 1;
SAVEPOINT a;
UPDATE users SET name = 'in a' WHERE id IN (1, 2);
SAVEPOINT b;
DELETE FROM users WHERE id = 2;
UPDATE users SET name = 'in b' WHERE id = 3;
ROLLBACK TO b;
INSERT INTO users VALUES (6, 'in b again');
RELEASE a;
COMMIT;
\! cached
-- the outer one rolled back takes released ones along
BEGIN;
UPDATE users SET name = 'kept' WHERE id = 3;
SAVEPOINT a;
SAVEPOINT b;
UPDATE users SET name = 'released' WHERE id IN (3, 4);
TRUNCATE users;
RELEASE b;
ROLLBACK TO a;
COMMIT;
\! cached
-- rolled back to the state before, and to one after an earlier change of the same row
BEGIN;
UPDATE users SET id = 50 WHERE id = 5;
SAVEPOINT a;
UPDATE users SET id = 51 WHERE id = 50;
UPDATE users SET name = 'fifty-one' WHERE id = 51;
ROLLBACK TO a;
COMMIT;
BEGIN;
SAVEPOINT a;
UPDATE users SET name = 'nothing' WHERE id = 4;
ROLLBACK TO a;
UPDATE users SET name = 'something' WHERE id = 1;
ROLLBACK TO a;
COMMIT;
\! cached
-- exceptions in plpgsql, with a handler that changes, too
DO $$
BEGIN
    UPDATE users SET name = 'outside' WHERE id = 1;
    BEGIN
        UPDATE users SET name = 'inside' WHERE id IN (1, 2);
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        UPDATE users SET name = 'handler' WHERE id = 3;
    END;
    FOR i IN 1 .. 200 LOOP
        BEGIN
            UPDATE users SET name = 'loop ' || i WHERE id = 4;
            IF i > 100 THEN RAISE 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
\! cached
-- a statement that fails inside: only what it did
BEGIN;
UPDATE users SET name = 'first' WHERE id = 6;
SAVEPOINT a;
UPDATE users SET id = 1 WHERE id IN (50, 6);
ROLLBACK TO a;
UPDATE users SET name = name || ', second' WHERE id = 6;
COMMIT;
\! cached user:[56]*
-- psql's own savepoints
\set ON_ERROR_ROLLBACK on
BEGIN;
UPDATE users SET name = 'rollback on error' WHERE id = 6;
UPDATE users SET name = 1 / 0 || '' WHERE id = 1;
COMMIT;
\set ON_ERROR_ROLLBACK off
\! cached user:[16]
-- Reads in a subtransaction fill after it is rolled back, as long as nothing of the mapping was changed.
SELECT redis_cache.invalidate_all('users') > 0 AS purged;
BEGIN;
SAVEPOINT a;
SELECT name FROM users WHERE id = 1;
ROLLBACK TO a;
SELECT name FROM users WHERE id = 2;
COMMIT;
\! cached
SELECT redis_cache.invalidate_all('users') > 0 AS purged;
BEGIN;
SAVEPOINT a;
UPDATE users SET name = 'rolled back' WHERE id = 1;
SELECT name FROM users WHERE id = 1;
ROLLBACK TO a;
SELECT name FROM users WHERE id = 1;
COMMIT;
SELECT count(*) FROM users WHERE redis_cache.wait() AND coalesce(redis_cache.get('users', id::text)->>'name', name) <> name;
