-- Two upserts of one statement that route to the same partition: each looks at its own result relation.
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (100);
CREATE TABLE p_high (v text, id int NOT NULL PRIMARY KEY);
ALTER TABLE p ATTACH PARTITION p_high FOR VALUES FROM (100) TO (200);
INSERT INTO p SELECT i, 'old' FROM unnest('{1, 2, 101, 102}'::int[]) i;
ALTER SYSTEM SET pg_redis_cache.mappings = 'p:{id} => SELECT v FROM p';
\! reload

UPDATE p SET v = 'cached';
\! cached
WITH a AS (INSERT INTO p VALUES (1, 'inner') ON CONFLICT (id) DO UPDATE SET v = excluded.v)
    INSERT INTO p VALUES (2, 'outer'), (3, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
\! cached
WITH a AS (INSERT INTO p VALUES (101, 'inner'), (103, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v)
    INSERT INTO p_high (id, v) VALUES (102, 'outer') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
\! cached
SELECT * FROM p ORDER BY id;
