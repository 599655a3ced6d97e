-- Mappings on several servers: here databases of the topic's own Redis, whose port changes from run to run.
SELECT current_setting('test.redis_port') AS port \gset
\set b 'b => redis://127.0.0.1:' :port '/1'
\set c '"C d" => ''redis://:hunter2@127.0.0.1:' :port '/2'''
\set twin 'twin => redis://127.0.0.1:' :port
\set other 'other => redis://127.0.0.1:' :port '/3'
CREATE FUNCTION without_port(text) RETURNS text LANGUAGE sql AS $$ SELECT regexp_replace($1, ':\d+/', ':PORT/', 'g') $$;
CREATE VIEW places AS SELECT name, without_port(url) AS url, connected, mappings, regexp_replace(last_error, 'character \d+', 'character N') AS last_error FROM redis_cache.servers;
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO users VALUES (1, 'ann'), (2, 'bob');
INSERT INTO notes VALUES (1, 'one'), (2, 'two');

-- the names fold, passwords are not shown
\set list :b '; ' :twin
ALTER SYSTEM SET pg_redis_cache.servers = :'list';
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; '
    'user:{id} => SELECT name FROM users WITH (name = far, server = B, ttl = 100); '
    'note:{id} => SELECT body FROM notes WITH (server = b, format = string); '
    'note:{id} => SELECT body FROM notes WITH (name = here, server = DEFAULT)';
\! reload
SELECT name, server, state, problem FROM redis_cache.mappings;
SELECT without_port(current_setting('pg_redis_cache.servers'));
SELECT * FROM places;
UPDATE users SET name = name || '!';
UPDATE notes SET body = body || '?' WHERE id = 1;
\! cached '*:*'
\! redis -n 1 --scan --pattern '*r:*' | sort
\! redis -n 1 HGETALL user:1
\! redis -n 1 GET note:1
SELECT redis_cache.get('users', '1'), redis_cache.get('far', '1'), redis_cache.get('notes', '1'), redis_cache.get('notes', '2');
SELECT redis_cache.ttl('users', '1') IS NULL AS here, redis_cache.ttl('far', '1') > '90s' AS far;
SELECT redis_cache.ping() > '0s' AS here, redis_cache.ping('b') > '0s' AS b;
SELECT redis_cache.ping('twin');
SELECT redis_cache.ping('nowhere');
SELECT count(*) FROM redis_cache.verify('far');
\! redis -n 1 HSET user:1 name stale
SELECT key, problem FROM redis_cache.verify('far');
SELECT redis_cache.warm('notes');
SELECT redis_cache.wait();
\! redis -n 1 MGET note:1 note:2

-- a table over a mapping is where its keys are
CREATE SCHEMA cached;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached;
SELECT * FROM cached.users ORDER BY id;
SELECT id, name FROM cached.far ORDER BY id;
DELETE FROM cached.far WHERE id = 1;
SELECT redis_cache.invalidate('notes', '2'), redis_cache.invalidate('notes', '3');
\! redis -n 1 EXISTS user:1 note:2
\! redis EXISTS user:1
SELECT redis_cache.invalidate_all('far');
\! redis -n 1 EXISTS user:1 user:2
\! redis EXISTS user:1 user:2

-- two names of one place: their keys would be the same
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; '
    'user:{id} => SELECT name FROM users WITH (name = again, server = twin); '
    'note:{id} => SELECT body FROM notes WITH (server = twin)';
\! reload
SELECT name, server, state, problem FROM redis_cache.mappings;
UPDATE notes SET body = 'twin' WHERE id = 1;
\! cached 'note:*'
-- what was at b has gone with its mappings
\! redis -n 1 --scan --pattern '*' | grep -v ':alive:'
SELECT * FROM places;

-- a mapping that moves: nothing stays where it was
ALTER SYSTEM SET pg_redis_cache.mappings = 'note:{id} => SELECT body FROM notes WITH (server = b)';
\! reload
UPDATE notes SET body = 'moved';
\! cached '*:*'
\! redis -n 1 HGETALL note:1

-- a server that leaves the list: its mapping does not work, and what it held is gone
ALTER SYSTEM SET pg_redis_cache.servers = '';
\! reload -n
SELECT await_state('notes', 'error');
SELECT redis_cache.wait('20s');
\! redis -n 1 EXISTS note:1 note:2
SELECT name, url, mappings, last_error FROM places;
SELECT redis_cache.get('notes', '1');
UPDATE notes SET body = 'unseen';
-- and comes back
ALTER SYSTEM SET pg_redis_cache.servers = :'list';
\! reload -n
SELECT await_state('notes', 'active');
UPDATE notes SET body = 'seen' WHERE id = 2;
SELECT redis_cache.wait();
\! redis -n 1 EXISTS note:1
\! redis -n 1 HGETALL note:2

-- the list is never refused: it would be logged with its passwords; what can be read works
\set list :b '; default => redis://127.0.0.1; ' :c '; b => redis://:hunter2@h; e => rediss//:hunter2@h; f redis://:hunter2@h; ' :other
ALTER SYSTEM SET pg_redis_cache.servers = :'list';
\! reload -n
SELECT without_port(current_setting('pg_redis_cache.servers'));
SELECT setting ~ 'hunter2' AS setting, boot_val ~ 'hunter2' AS boot_val, reset_val ~ 'hunter2' AS reset_val
    FROM pg_settings WHERE name = 'pg_redis_cache.servers';
SELECT name, url, mappings, last_error FROM places;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'note:{id} => SELECT body FROM notes WITH (server = other); '
    'user:{id} => SELECT name FROM users WITH (server = b)';
\! reload -n
SELECT await_state('users', 'active'), await_state('notes', 'error');
UPDATE users SET name = 'b works';
SELECT redis_cache.wait();
\! redis -n 1 HGETALL user:1

-- a name that is none
ALTER SYSTEM SET pg_redis_cache.mappings = 'note:{id} => SELECT body FROM notes WITH (server = 1b)';

-- others than superusers do not see where the servers are
CREATE ROLE anybody;
SET ROLE anybody;
-- in other words from 16 on
\set VERBOSITY sqlstate
SHOW pg_redis_cache.servers;
\set VERBOSITY default
SELECT * FROM redis_cache.servers;
RESET ROLE;
DROP ROLE anybody;
