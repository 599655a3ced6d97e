-- write = delete: a change deletes the key, and the next read fills it.
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 3) n;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users WITH (write = delete); '
    'eager:{id} => SELECT name FROM users WITH (name = eager, write = delete, insert = set)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT name FROM users WHERE id IN (1, 2, 3) ORDER BY id;
\! cached
UPDATE users SET name = 'changed' WHERE id = 1;
\! cached
SELECT name FROM users WHERE id = 1;
\! cached *:1
UPDATE users SET id = 4 WHERE id = 2;
DELETE FROM users WHERE id = 3;
INSERT INTO users VALUES (5, 'five');
INSERT INTO users VALUES (1, 'one') ON CONFLICT (id) DO UPDATE SET name = 'one again';
\! cached
