-- While pg_redis_cache.enabled is off nothing is cached: the mappings are there and off, the functions say so, and
-- the keys are gone.
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users VALUES (1, 'ann'), (2, 'bob');
CREATE TABLE notes (id int PRIMARY KEY, body text);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; '
    'note:{id} => SELECT body FROM notes WITH (fill = any, write = delete, insert = set)';
\! reload
UPDATE users SET name = name;
\! cached
SELECT name, state, problem, fill, write, insert FROM redis_cache.mappings;

ALTER SYSTEM SET pg_redis_cache.enabled = off;
\! reload
SELECT name, state, problem, fill, write, insert FROM redis_cache.mappings;
SELECT name FROM redis_cache.stats;
UPDATE users SET name = upper(name);
SELECT name FROM users WHERE id = 2;
\! cached
SELECT redis_cache.get('users', '1');
SELECT redis_cache.invalidate('users', '1');
SELECT redis_cache.invalidate_all('users');
SELECT redis_cache.warm('users');
SELECT redis_cache.get('nobody', '1');
\set VERBOSITY sqlstate
SELECT redis_cache.get('users', '1');
\set VERBOSITY default

ALTER SYSTEM RESET pg_redis_cache.enabled;
\! reload
SELECT await_state('users', 'active');
SELECT name FROM users WHERE id = 2;
\! cached
SELECT name, state FROM redis_cache.mappings;
