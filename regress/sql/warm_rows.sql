-- warm: rows get into Redis without anybody reading them.
CREATE TABLE users (id int PRIMARY KEY, name text, note text, last_login timestamptz);
CREATE TABLE moods (mood text PRIMARY KEY, n int);
CREATE TABLE pairs (a text, b text, n int, PRIMARY KEY (a, b));
CREATE TABLE parts (id int, region text, dead int, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE parts_eu_low PARTITION OF parts_eu FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_us (region text NOT NULL, body text, id int NOT NULL, dead int);
ALTER TABLE parts ATTACH PARTITION parts_us FOR VALUES IN ('us');
ALTER TABLE parts DROP dead;
CREATE TABLE big (id int PRIMARY KEY, body text);
ALTER TABLE big ALTER body SET STORAGE EXTERNAL;
INSERT INTO users SELECT i, 'user ' || i, CASE WHEN i % 2 = 0 THEN 'note' END, timestamptz '2024-01-01' + i * interval '1 day'
    FROM generate_series(1, 3000) i;
INSERT INTO moods VALUES ('good', 1), ('bad', 2);
INSERT INTO pairs VALUES ('x', '1:y', 1), ('x:1', 'y', 2);
INSERT INTO parts VALUES (1, 'eu', 'a'), (2, 'us', 'b');
INSERT INTO big SELECT i, repeat(chr(64 + i), 300000) FROM generate_series(1, 10) i;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name, note FROM users WITH (fill = off); '
    'u:{id} => SELECT * FROM users WITH (name = as_json, format = json); '
    'n:{id} => SELECT note FROM users WITH (name = as_string, format = string, ttl = 1000); '
    'mood:{mood} => SELECT n FROM moods WITH (write = delete); '
    'pair:{a}:{b} => SELECT n FROM pairs; '
    'part:{region}:{id} => SELECT body FROM parts; '
    'big:{id} => SELECT body FROM big';
\! reload

SELECT redis_cache.warm('users', 'last_login > ''2024-01-01'' AND id <= 3 -- the first') AS handed;
SELECT redis_cache.warm('moods'), redis_cache.warm('parts'), redis_cache.warm('parts', 'region = ''eu''') AS eu;
-- a row with nothing to store, and one whose key could be another's, are left out
SELECT redis_cache.warm('as_string', 'id <= 4'), redis_cache.warm('pairs');
SELECT redis_cache.warm('users', 'false'), redis_cache.warm('users', NULL),
    redis_cache.warm('as_json', 'users.id = (SELECT min(id) FROM users)');
\! cached user:[123]
\! cached -t [mnpu]:*
\! cached [mp][oa][oir]*
SELECT redis_cache.warm('big') AS handed, redis_cache.wait();
SELECT id, redis_cache.get('big', id::text)->>'body' = body AS same FROM big ORDER BY id;
SELECT name, (SELECT count(*) FROM redis_cache.verify(name)) AS differences FROM redis_cache.mappings ORDER BY name;
SELECT name, fills, fills_skipped, fills_dropped FROM redis_cache.stats ORDER BY name;
-- what is there already is loaded again, whatever the hints say; changed rows replace it
SELECT redis_cache.warm('as_json') AS handed;
SELECT redis_cache.warm('as_json') AS handed, redis_cache.wait();
SELECT fills FROM redis_cache.stats WHERE name = 'as_json';
UPDATE users SET name = 'new' WHERE id = 1;
\! cached u:1
-- rows that a concurrent transaction may have changed are left to it: specs/warm.spec
-- as a part of something larger
DO $$ BEGIN PERFORM redis_cache.warm('moods'); COMMIT; PERFORM redis_cache.warm('moods'); END $$;
SELECT * FROM redis_cache.progress;
