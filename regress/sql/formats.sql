-- The three formats: NULL, the empty string, nothing at all, quotes, control characters, many bytes.
CREATE TABLE things (id int PRIMARY KEY, a text, b int, c jsonb);
CREATE TABLE lone (id int PRIMARY KEY);
INSERT INTO things VALUES
    (1, 'one', 1, '{"x": [1, 2.50, null]}'), (2, '', 0, 'null'), (3, NULL, NULL, NULL),
    (4, E'q"uote \\ back', -1, '"s"'), (5, E'tab\tnl\ncr\rbs\bff\f\x01\x7f', 2147483647, '[]'), (6, 'Ünïcödé 😀 𝄞', NULL, '{}');
ALTER SYSTEM SET pg_redis_cache.mappings =
    'h:{id} => SELECT a, b, c FROM things WITH (name = h, format = hash); '
    'j:{id} => SELECT a, b, c FROM things WITH (name = j, format = json); '
    's:{id} => SELECT a FROM things WITH (name = s, format = string); '
    'all:{id} => SELECT * FROM things WITH (name = "all", format = json); '
    'lone:{id} => SELECT * FROM lone; '
    'n:{id} => SELECT b FROM things WITH (name = n, format = string)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT name, format, value_columns, problem FROM redis_cache.mappings;

UPDATE things SET id = id;
\! cached
\! redis GET s:5
\! redis GET j:5
\! redis HGET h:2 a
\! redis TYPE h:1
\! redis TYPE j:1
\! redis EXISTS h:3

-- from a value to nothing and back, by a write and by a fill
UPDATE things SET a = NULL, b = NULL, c = NULL WHERE id = 1;
\! cached ?:1
UPDATE things SET a = 'back' WHERE id = 1;
\! cached ?:1
UPDATE things SET a = NULL WHERE id = 1;
SELECT id FROM things WHERE id = 1 AND a IS NULL;
\! cached ?:1
UPDATE things SET b = 5 WHERE id = 1;
SELECT redis_cache.invalidate_all('h') > 0, redis_cache.invalidate_all('j') > 0, redis_cache.invalidate_all('s') > 0;
SELECT b FROM things WHERE id IN (1, 2, 3);
\! cached ?:[123]

-- the key column alone
INSERT INTO lone VALUES (1);
SELECT id, ctid FROM lone WHERE id = 1;
\! cached lone:*

-- What was there under the key as another kind is replaced.
\! redis SET h:4 'put here by hand'
\! redis RPUSH s:4 'put' 'here'
\! redis HSET j:4 field 'left over'
UPDATE things SET b = 4 WHERE id = 4;
\! cached ?:4
\! redis HSET h:4 extra 'left over'
UPDATE things SET a = NULL WHERE id = 4;
UPDATE things SET a = 'four' WHERE id = 4;
SELECT redis_cache.wait();
\! redis HDEL h:4 extra
\! cached ?:4

-- long values, compressed and stored apart, and changed in place of another column
UPDATE things SET a = repeat('x', 1000000) WHERE id = 1;
UPDATE things SET a = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 10000) n) WHERE id = 2;
SELECT redis_cache.wait();
\! redis STRLEN s:1
\! redis HSTRLEN h:2 a
UPDATE things SET b = 77 WHERE id = 2;
SELECT redis_cache.wait();
SELECT length(a) = length(redis_cache.get('s', '2') #>> '{}') AS length, a = redis_cache.get('s', '2') #>> '{}' AS s,
    a = redis_cache.get('h', '2')->>'a' AS h, a = redis_cache.get('j', '2')->>'a' AS j,
    redis_cache.get('j', '2')->>'b' AS b FROM things WHERE id = 2;
