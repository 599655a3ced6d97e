-- A partitioned table is mapped with all its partitions, however a row is reached.
CREATE TABLE events (id int NOT NULL, region text NOT NULL, body text, n int) PARTITION BY LIST (region);
CREATE TABLE events_eu PARTITION OF events FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE events_eu_low PARTITION OF events_eu FOR VALUES FROM (0) TO (100);
CREATE TABLE events_rest PARTITION OF events DEFAULT;
-- leaves whose columns stand in another order, with dropped ones between
CREATE TABLE events_eu_high (dead1 int, n int, body text, dead2 text, region text NOT NULL, id int NOT NULL);
ALTER TABLE events_eu_high DROP dead1, DROP dead2;
ALTER TABLE events_eu ATTACH PARTITION events_eu_high FOR VALUES FROM (100) TO (200);
CREATE TABLE events_us (body text, dead int, id int NOT NULL, n int, region text NOT NULL);
ALTER TABLE events_us DROP dead;
ALTER TABLE events ATTACH PARTITION events_us FOR VALUES IN ('us');
ALTER TABLE events ADD PRIMARY KEY (region, id);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'event:{region}:{id} => SELECT body, n FROM events WITH (insert = set)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT name, state, problem FROM redis_cache.mappings;

INSERT INTO events VALUES (1, 'eu', 'low', 1), (101, 'eu', 'high', 2), (1, 'us', 'west', 3), (1, 'jp', 'east', 4);
\! cached
UPDATE events SET n = n * 10;
\! cached
-- leaves, and a table between, addressed directly
UPDATE events_us SET body = 'leaf';
UPDATE events_eu SET body = body || ' between';
DELETE FROM events_rest WHERE id = 1;
INSERT INTO events_eu_high (id, region, body, n) VALUES (102, 'eu', 'direct', 5);
INSERT INTO events_eu (id, region, body, n) VALUES (103, 'eu', 'routed', 6);
\! cached
-- rows that move to another partition: within a level, between levels, back
UPDATE events SET id = 150 WHERE id = 1 AND region = 'eu';
UPDATE events SET region = 'eu' WHERE region = 'us';
UPDATE events SET region = 'mars', id = 7 WHERE id = 102;
\! cached
UPDATE events_eu SET id = id - 99 WHERE id >= 100 RETURNING id, body;
\! cached
SELECT tableoid::regclass AS leaf, * FROM events ORDER BY region, id;
-- plans pruned at run time, to one leaf and to none
PREPARE touch (text, int) AS UPDATE events SET n = n + 1 WHERE region = $1 AND id = $2;
SET plan_cache_mode = force_generic_plan;
EXECUTE touch('eu', 1);
EXECUTE touch('mars', 7);
EXECUTE touch('eu', 1000);
EXECUTE touch('nowhere', 1);
\! cached
-- ON CONFLICT
INSERT INTO events VALUES (1, 'eu', 'new', 0), (107, 'eu', 'new', 0), (1, 'us', 'new', 0)
    ON CONFLICT (region, id) DO UPDATE SET body = 'conflict';
\! cached
-- COPY routes too
COPY events (id, region, body) FROM stdin;
108	eu	copied
\.
SELECT count(*) FROM events WHERE id = 108;
\! cached event:eu:108
-- a scan fills from every leaf, by any of their names
SELECT redis_cache.invalidate_all('events') > 0 AS purged;
SELECT body, n FROM events WHERE region IN ('eu', 'us') AND id IN (1, 107) ORDER BY region, id;
SELECT n FROM events_rest WHERE region = 'mars' AND id = 7;
\! cached
-- partitions that come, go and are emptied
CREATE TABLE events_jp PARTITION OF events FOR VALUES IN ('jp');
SELECT await_state('events', 'active');
INSERT INTO events VALUES (2, 'jp', 'late', 0);
UPDATE events SET body = 'later' WHERE region = 'jp';
\! cached event:jp:*
UPDATE events SET n = -1;
TRUNCATE events_eu;
\! cached
UPDATE events SET n = -2;
DROP TABLE events_us;
SELECT await_state('events', 'active');
UPDATE events SET n = -3;
\! cached
