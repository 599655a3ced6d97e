-- A set as a table: its members.
SELECT make_redis_server();
CREATE FOREIGN TABLE tags (member text) SERVER redis_server OPTIONS (table_type 'SET', table_key_prefix 'tags');
INSERT INTO tags VALUES ('red'), ('green'), ('blue'), ('red');
SELECT * FROM tags ORDER BY 1;
SELECT EXISTS (SELECT FROM tags WHERE member = 'red') AS red, EXISTS (SELECT FROM tags WHERE member = 'pink') AS pink;
SELECT * FROM tags WHERE member = ANY (ARRAY['green', 'pink', 'blue']) ORDER BY 1;
SELECT * FROM tags WHERE member LIKE '%e%' ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT * FROM tags WHERE member = 'red';
EXPLAIN (COSTS OFF) SELECT * FROM tags WHERE member LIKE 'r%';
UPDATE tags SET member = 'yellow' WHERE member = 'red';
UPDATE tags SET member = CASE member WHEN 'green' THEN 'blue' WHEN 'blue' THEN 'green' ELSE member END RETURNING member IS NOT NULL AS changed;
DELETE FROM tags WHERE member = 'blue' RETURNING *;
SELECT * FROM tags ORDER BY 1;
-- the last member's time to live stays with the set
\! redis EXPIRE tags 1000
DELETE FROM tags WHERE member = 'green';
UPDATE tags SET member = 'orange';
\! redis SMEMBERS tags
SELECT line::int > 900 AS "ttl kept" FROM (SELECT replace(l, '(integer) ', '') AS line FROM redis('TTL', 'tags') l) s WHERE line <> '';
TRUNCATE tags;

-- large: each member once, by windows
INSERT INTO tags SELECT 'member ' || i FROM generate_series(1, 50000) i;
SELECT count(*), count(DISTINCT member) FROM tags;
SELECT count(*) FROM tags WHERE member LIKE 'member 777%';
DELETE FROM tags WHERE member LIKE '%1%';
SELECT count(*) FROM tags;
\! redis SCARD tags
TRUNCATE tags;
-- integers, which Redis keeps in another way
CREATE FOREIGN TABLE ids (id bigint) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'ids');
INSERT INTO ids SELECT i FROM generate_series(1, 400) i;
SELECT sum(id), count(*) FROM ids;
SELECT * FROM ids WHERE id IN (1, 400, 401) ORDER BY id;
UPDATE ids SET id = id + 1;
SELECT sum(id), count(*), min(id), max(id) FROM ids;

-- the keys of a pattern
CREATE FOREIGN TABLE members (key text, member text, ttl int) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'group:?');
INSERT INTO members VALUES ('group:a', 'ann', NULL), ('group:a', 'bob', 1000), ('group:b', 'bob', NULL);
\! redis SADD group:ab nobody
SELECT key, member, ttl > 0 AS ttl FROM members ORDER BY 1, 2;
SELECT key FROM members WHERE member = 'bob' ORDER BY key;
UPDATE members SET key = 'group:c' WHERE member = 'ann';
DELETE FROM members WHERE key = 'group:b';
SELECT key, member, ttl > 0 AS ttl FROM members ORDER BY 1, 2;
TRUNCATE members;
\! redis KEYS 'group:*'
