-- A sorted set as a table: members and scores.
SELECT make_redis_server();
CREATE FOREIGN TABLE redis_zset (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'leaderboard');
INSERT INTO redis_zset VALUES ('player1', 100.5), ('player2', 95.0), ('player3', '-infinity'), ('player4', 1e300), ('player5', 0.1);
SELECT * FROM redis_zset ORDER BY score DESC;
-- (how a score is written depends on Redis: 0.1 is 0.10000000000000001 before 7.2)
\! redis ZRANGE leaderboard 0 -1
\! redis ZRANGE leaderboard -inf -inf BYSCORE
\! redis ZRANGE leaderboard 0.1 0.1 BYSCORE
\! redis ZRANGE leaderboard 1e300 1e300 BYSCORE
UPDATE redis_zset SET score = '200' WHERE member = 'player1';
SELECT * FROM redis_zset WHERE member = 'player1';
SELECT * FROM redis_zset WHERE member IN ('player1', 'player2', 'player9') ORDER BY score;
SELECT * FROM redis_zset WHERE score >= 95 AND score < 1e10 ORDER BY score;
SELECT * FROM redis_zset WHERE score > 95 ORDER BY score;
SELECT * FROM redis_zset WHERE score = 0.1;
SELECT * FROM redis_zset WHERE score BETWEEN 95 AND 200 AND member LIKE '%2';
SELECT count(*) FROM redis_zset WHERE score > 'NaN' OR score < '-infinity';
SELECT count(*) FROM redis_zset WHERE score < 'NaN';
EXPLAIN (COSTS OFF) SELECT * FROM redis_zset WHERE score >= 95 AND score < 1e10;
EXPLAIN (COSTS OFF) SELECT * FROM redis_zset WHERE member = 'player1' AND score > 1;
EXPLAIN (COSTS OFF) SELECT * FROM redis_zset WHERE member LIKE 'player1%';
INSERT INTO redis_zset VALUES ('player1', 1), ('player6', 6), ('player1', 2);
INSERT INTO redis_zset VALUES ('player7', 'NaN');
INSERT INTO redis_zset VALUES ('player7', NULL);
-- rows move past the scan, and are changed once
UPDATE redis_zset SET score = score + 10 WHERE score BETWEEN 0 AND 1000;
UPDATE redis_zset SET member = 'x' || member WHERE score < 20;
DELETE FROM redis_zset WHERE score > 1e200 RETURNING *;
SELECT * FROM redis_zset ORDER BY score;
TRUNCATE redis_zset;

-- many members of one score, and a range over them
INSERT INTO redis_zset SELECT 'm' || i, i / 5000 FROM generate_series(1, 30000) i;
SELECT score, count(*) FROM redis_zset WHERE score >= 1 AND score <= 3 GROUP BY 1 ORDER BY 1;
SELECT count(DISTINCT member) FROM redis_zset WHERE score >= 0;
DELETE FROM redis_zset WHERE score >= 2;
SELECT count(*), max(score) FROM redis_zset;
TRUNCATE redis_zset;

-- numeric scores; the columns the other way round
CREATE FOREIGN TABLE demo_scores (score numeric, member text, ttl int) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'demo:scores');
INSERT INTO demo_scores VALUES (10, 'a'), (20.25, 'b'), (30, 'c'), (40, 'd'), (50, 'e');
SELECT score, member FROM demo_scores WHERE score >= 20.25 AND score <= 40.000 ORDER BY score;
SELECT member FROM demo_scores WHERE score = 20.2500;
SELECT score, member, ttl FROM demo_scores WHERE member = 'b';

-- the keys of a pattern
CREATE FOREIGN TABLE rounds (key text, member text, score numeric) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'round:*');
INSERT INTO rounds VALUES ('round:1', 'alice', 150), ('round:1', 'bob', 230), ('round:2', 'alice', 310), ('round:2', 'carol', 280);
SELECT * FROM rounds WHERE key = 'round:1' ORDER BY score;
SELECT * FROM rounds WHERE score > 200 ORDER BY score;
UPDATE rounds SET score = score + 1 WHERE member = 'alice';
UPDATE rounds SET key = 'round:3' WHERE key = 'round:2' AND score > 300;
DELETE FROM rounds WHERE member = 'bob';
SELECT * FROM rounds ORDER BY key, score;
-- an order by score does not lose what the members are asked for
CREATE FOREIGN TABLE ordered (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'ordered');
INSERT INTO ordered SELECT 'm' || i, i FROM generate_series(1, 50) i;
INSERT INTO ordered VALUES ('a', 1), ('ab', 2), ('c', 'inf'), ('d', '-inf');
SELECT * FROM ordered WHERE member LIKE 'a%' ORDER BY score DESC LIMIT 1;
SELECT max(score), min(score) FROM ordered WHERE member LIKE 'a%';
SELECT * FROM (SELECT * FROM ordered WHERE member ^@ 'a' ORDER BY score LIMIT 5) s;
SELECT * FROM ordered WHERE member LIKE 'a%' AND score > 1 ORDER BY score DESC LIMIT 5;
SELECT row_number() OVER (ORDER BY score), member FROM ordered WHERE member LIKE 'a%' LIMIT 1;
SET enable_sort = off; SET enable_hashagg = off;
SELECT score, count(*) FROM ordered WHERE member ^@ 'a' GROUP BY score ORDER BY 1;
RESET enable_sort; RESET enable_hashagg;
