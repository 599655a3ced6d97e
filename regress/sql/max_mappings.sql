-- There is room for two mappings here; a third one says so, and works when one of the others has gone.
CREATE TABLE a (id int PRIMARY KEY, v text);
CREATE TABLE b (id int PRIMARY KEY, v text);
CREATE TABLE c (id int PRIMARY KEY, v text);
INSERT INTO a VALUES (1, 'a'); INSERT INTO b VALUES (1, 'b'); INSERT INTO c VALUES (1, 'c');
ALTER SYSTEM SET pg_redis_cache.mappings = 'a:{id} => SELECT v FROM a; b:{id} => SELECT v FROM b';
\! reload
ALTER SYSTEM SET pg_redis_cache.mappings =
    'a:{id} => SELECT v FROM a; b:{id} => SELECT v FROM b; c:{id} => SELECT v FROM c';
\! reload
SELECT name, state, problem FROM redis_cache.mappings;
UPDATE a SET v = v || '!'; UPDATE b SET v = v || '!'; UPDATE c SET v = v || '!';
\! cached
ALTER SYSTEM SET pg_redis_cache.mappings = 'b:{id} => SELECT v FROM b; c:{id} => SELECT v FROM c';
\! reload
SELECT await_state('c', 'active');
SELECT name, state, problem FROM redis_cache.mappings;
UPDATE a SET v = v || '!'; UPDATE b SET v = v || '!'; UPDATE c SET v = v || '!';
\! cached
