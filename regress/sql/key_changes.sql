-- A row whose key changes: the old key goes, the new one comes, whoever had it before.
CREATE TABLE users (id int PRIMARY KEY, login text NOT NULL UNIQUE, name text);
INSERT INTO users SELECT n, 'u' || n, 'user ' || n FROM generate_series(1, 4) n;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT login, name FROM users; login:{login} => SELECT id FROM users WITH (name = logins, format = string)';
\! reload
UPDATE users SET name = name;
\! cached

UPDATE users SET login = 'ann' WHERE id = 1;
\! cached
-- each takes the place of the next, from above
UPDATE users SET id = 5 WHERE id = 4;
UPDATE users SET id = 4 WHERE id = 3;
\! cached
-- all at once, where no two meet
UPDATE users SET id = id + 10, login = login || '!';
\! cached
-- a swap, in a transaction
BEGIN;
UPDATE users SET login = 'x' WHERE id = 11;
UPDATE users SET login = 'ann!' WHERE id = 12;
UPDATE users SET login = 'u2!' WHERE id = 11;
COMMIT;
\! cached
-- there and back
BEGIN;
UPDATE users SET id = 99 WHERE id = 11;
UPDATE users SET id = 11 WHERE id = 99;
COMMIT;
\! cached user:*
-- RETURNING, and a rollback
UPDATE users SET id = 20 WHERE id = 11 RETURNING id, name;
BEGIN;
UPDATE users SET id = 21 WHERE id = 20;
ROLLBACK;
\! cached user:*
-- one that fails half-way leaves nothing
UPDATE users SET id = CASE id WHEN 14 THEN 15 ELSE id END;
\! cached user:*
