-- UPDATE in its forms: Redis has the committed row, whether or not anybody had read it.
CREATE TABLE users (id int PRIMARY KEY, name text, visits int NOT NULL DEFAULT 0);
CREATE TABLE changes (id int, name text, place int);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 5) n;
INSERT INTO changes VALUES (1, 'first', 1), (2, 'second', 2), (4, 'fourth', 4);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, visits FROM users';
\! reload

UPDATE users SET visits = 1 WHERE id IN (1, 2);
\! cached

-- no row
UPDATE users SET visits = 99 WHERE id = 99;
UPDATE users SET visits = 99 WHERE false;
\! cached

-- a column that is not cached, the same value again, a column to NULL and back
UPDATE users SET visits = visits WHERE id = 3;
UPDATE users SET name = NULL WHERE id = 1;
\! cached
UPDATE users SET name = 'ann' WHERE id = 1;
\! cached user:1

-- FROM, the target not first in the range table, an alias, a subquery in SET
UPDATE users u SET name = c.name FROM changes c WHERE c.id = u.id AND c.id < 4;
\! cached
UPDATE users SET (name, visits) = (SELECT name, place FROM changes WHERE changes.id = users.id) WHERE id = 4;
WITH other AS (SELECT * FROM changes) UPDATE users SET visits = place * 10 FROM other WHERE other.id = users.id;
\! cached

-- several matches for a row: PostgreSQL takes one of them, and Redis has the one that it took
INSERT INTO changes VALUES (5, 'one', 1), (5, 'two', 2);
UPDATE users u SET name = c.name FROM changes c WHERE c.id = u.id AND u.id = 5;
SELECT count(*) FROM users WHERE id = 5 AND redis_cache.wait() AND redis_cache.get('users', '5')->>'name' = name;

-- twice in a transaction: the last one counts
BEGIN;
UPDATE users SET visits = 50 WHERE id = 5;
UPDATE users SET visits = 51 WHERE id = 5;
UPDATE users SET name = 'fifth' WHERE id = 5;
-- not before the commit
\! cached user:1
COMMIT;
\! cached user:5
-- and none of it after a rollback
BEGIN;
UPDATE users SET visits = 52 WHERE id = 5;
DELETE FROM users WHERE id = 1;
ROLLBACK;
\! cached

-- all, and through another name of the table
UPDATE users SET visits = 0;
ALTER TABLE users RENAME COLUMN visits TO calls;
ALTER TABLE users RENAME COLUMN calls TO visits;
SELECT await_state('users', 'active');
SET search_path = pg_catalog;
UPDATE ONLY public.users SET visits = 7 WHERE id = 2;
RESET search_path;
\! cached
