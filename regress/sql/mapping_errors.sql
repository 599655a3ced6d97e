-- A bad list of mappings is refused with the entry, the place, what was expected, and what helps; the list in
-- force stays. (Every rule of the grammar has its unit test; here is one of each kind, as a user sees it.)
CREATE TABLE users (id int PRIMARY KEY, name text);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users';
\! reload

-- the template
ALTER SYSTEM SET pg_redis_cache.mappings = '{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id}{name} => SELECT * FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id}} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id}:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user"s:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = '''user:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'pg_redis_cache:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = '=> SELECT name FROM users';
-- the SELECT
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => UPDATE users SET name = 1';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => name, email FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WHERE id > 5';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users JOIN others USING (id)';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users, others';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users u';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM ONLY users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT upper(name) FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name AS n FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT users.name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM a.b.c';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, order FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'order:{id} => SELECT name FROM order';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users -- all';
-- the options
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (tll = 5)';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (ttl = 5, TTL = 6)';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (ttl = -1)';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (ttl = ''2 parsecs'')';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (format = xml)';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT id, name FROM users WITH (format = string)';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (ttl = 5';
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH';
-- the list: entries count without the empty ones, characters from the beginning of the list
ALTER SYSTEM SET pg_redis_cache.mappings = ';; a:{id} => SELECT name FROM users; b:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.mappings = 'ä:{id} => SELECT name FROM users; ö:{id} => SELECT name FROM';

\set VERBOSITY sqlstate
ALTER SYSTEM SET pg_redis_cache.mappings = 'nonsense';
\set VERBOSITY default

-- What was in force still is; an empty list and one of empty entries are lists.
SHOW pg_redis_cache.mappings;
SELECT name, state FROM redis_cache.mappings;
ALTER SYSTEM SET pg_redis_cache.mappings = ' ; ;; ';
\! reload
SELECT name, state FROM redis_cache.mappings;
