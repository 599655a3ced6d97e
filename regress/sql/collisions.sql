-- Two mappings whose templates could give the same key: the first that is active works, the other says why not.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE posts (id int PRIMARY KEY, title text);
CREATE TABLE tags (tag text PRIMARY KEY, uses int);
CREATE TABLE carts (id int PRIMARY KEY, items int);
INSERT INTO users VALUES (1, 'ann');
INSERT INTO carts VALUES (1, 3);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'x:{id} => SELECT name FROM users; '
    'x:{id}:cart => SELECT items FROM carts; '
    'x:{id} => SELECT title FROM posts';
\! reload
-- `x:{id}` over an integer cannot produce `x:1:cart`.
SELECT name, state, problem FROM redis_cache.mappings;
UPDATE users SET name = 'anna';
UPDATE carts SET items = 4;
\! cached
-- A purge of the one leaves the other's keys.
TRUNCATE users;
\! cached

-- Over a text, it can.
ALTER SYSTEM SET pg_redis_cache.mappings =
    'x:{tag} => SELECT uses FROM tags; '
    'x:{id}:cart => SELECT items FROM carts';
\! reload
SELECT count(*) FILTER (WHERE state = 'active') AS active,
    count(*) FILTER (WHERE problem ~ 'could be those of another mapping') AS colliding FROM redis_cache.mappings;

-- Keys that could begin as the extension's own do.
ALTER SYSTEM SET pg_redis_cache.mappings = 'pg_{tag} => SELECT uses FROM tags';
\! reload
SELECT name, state, problem FROM redis_cache.mappings;

-- Once the other one is gone, the second works.
ALTER SYSTEM SET pg_redis_cache.mappings = 'x:{id} => SELECT title FROM posts; x:{id} => SELECT name FROM users';
\! reload
SELECT count(*) FILTER (WHERE state = 'active') AS active FROM redis_cache.mappings;
ALTER SYSTEM SET pg_redis_cache.mappings = 'x:{id} => SELECT name FROM users';
\! reload
SELECT await_state('users', 'active');
