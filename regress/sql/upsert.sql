-- INSERT … ON CONFLICT, with and without insert = set.
CREATE TABLE counters (name text PRIMARY KEY, n int NOT NULL, note text, UNIQUE (n, note));
INSERT INTO counters VALUES ('a', 1), ('b', 2);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'n:{name} => SELECT n, note FROM counters; '
    's:{name} => SELECT n FROM counters WITH (name = stored, insert = set, format = string)';
\! reload

INSERT INTO counters VALUES ('a', 10) ON CONFLICT (name) DO UPDATE SET n = counters.n + excluded.n;
INSERT INTO counters VALUES ('c', 3) ON CONFLICT (name) DO UPDATE SET n = counters.n + excluded.n;
INSERT INTO counters VALUES ('b', 10) ON CONFLICT (name) DO UPDATE SET n = counters.n WHERE excluded.n < 0;
INSERT INTO counters VALUES ('b', 10) ON CONFLICT DO NOTHING;
INSERT INTO counters VALUES ('d', 4) ON CONFLICT DO NOTHING;
\! cached
SELECT * FROM counters ORDER BY name;

-- both paths in one statement, RETURNING, a CTE
INSERT INTO counters VALUES ('a', 1), ('e', 5), ('c', 7) ON CONFLICT (name) DO UPDATE SET n = excluded.n, note = 'again'
    RETURNING *, xmax <> 0 AS updated;
WITH u AS (INSERT INTO counters VALUES ('b', 22) ON CONFLICT (name) DO UPDATE SET n = 22 RETURNING name)
    SELECT * FROM u;
\! cached
-- the same row twice: an error, and nothing of it
INSERT INTO counters VALUES ('f', 1), ('f', 2) ON CONFLICT (name) DO UPDATE SET n = excluded.n;
\! cached ?:f

-- on another constraint, and changing the key
INSERT INTO counters VALUES ('x', 7, 'again') ON CONFLICT (n, note) DO UPDATE SET note = 'other';
\! cached ?:c
INSERT INTO counters VALUES ('x', 7, 'other') ON CONFLICT (n, note) DO UPDATE SET name = 'moved';
\! cached ?:c
\! cached ?:moved
SELECT name, n FROM counters WHERE n = 7;

SELECT redis_cache.wait();
-- prepared, so that one plan serves both paths
PREPARE put (text, int) AS INSERT INTO counters VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = excluded.n;
EXECUTE put('a', 100);
EXECUTE put('g', 100);
EXECUTE put('a', 101);
EXECUTE put('g', 101);
\! cached ?:a
\! cached ?:g
