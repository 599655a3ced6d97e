-- DELETE in its forms, TRUNCATE and DROP: no key without a row.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE gone (id int);
CREATE TABLE carts (user_id int PRIMARY KEY REFERENCES users, items int);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 9) n;
INSERT INTO carts SELECT n, n FROM generate_series(7, 9) n;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; cart:{user_id} => SELECT items FROM carts';
\! reload
UPDATE users SET name = upper(name);
UPDATE carts SET items = items * 10;
\! cached

DELETE FROM users WHERE id = 1;
DELETE FROM users WHERE id = 99;
INSERT INTO gone VALUES (2), (2), (3);
DELETE FROM users u USING gone g WHERE g.id = u.id AND u.id < 3;
DELETE FROM users WHERE id IN (SELECT id FROM gone) RETURNING *;
WITH d AS (DELETE FROM users WHERE id = 4 RETURNING name) SELECT * FROM d;
WITH d AS (DELETE FROM users WHERE id = 5) SELECT 'gone' AS five;
\! cached user:*

-- updated, then deleted; deleted, then there again; a rollback
BEGIN;
UPDATE users SET name = 'late' WHERE id = 6;
DELETE FROM users WHERE id = 6;
COMMIT;
BEGIN;
DELETE FROM users;
ROLLBACK;
DELETE FROM users;
\! cached
BEGIN;
DELETE FROM carts WHERE user_id = 7;
INSERT INTO carts VALUES (7, 77);
UPDATE carts SET items = 78 WHERE user_id = 7;
COMMIT;
\! cached

TRUNCATE users;
\! cached
BEGIN;
TRUNCATE users CASCADE;
ROLLBACK;
\! cached
TRUNCATE users CASCADE;
\! cached

-- a purge orders what comes after it, in the same transaction too
INSERT INTO users VALUES (1, 'one');
UPDATE users SET name = 'ein';
\! cached
BEGIN;
TRUNCATE users CASCADE;
INSERT INTO users VALUES (1, 'new');
UPDATE users SET name = 'new one';
COMMIT;
\! cached
UPDATE users SET name = 'newer';
\! cached
DROP TABLE users CASCADE;
\! cached
