-- Statements that change data inside WITH, several of them on one table too.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE archive (id int PRIMARY KEY, name text);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 6) n;
INSERT INTO archive VALUES (5, 'five'), (6, 'six');
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; archive:{id} => SELECT name FROM archive WITH (insert = set)';
\! reload
UPDATE users SET name = name || '.';
UPDATE archive SET name = name || '.';
\! cached

-- moved from one to the other
WITH d AS (DELETE FROM users WHERE id = 1 RETURNING *) INSERT INTO archive SELECT * FROM d;
-- two of them on one table, none of whose rows are read; the order is not defined, the rows are different ones
WITH u AS (UPDATE users SET name = 'deux' WHERE id = 2), d AS (DELETE FROM users WHERE id = 3)
    SELECT 'done' AS done;
WITH u AS (UPDATE users SET name = 'quatre' WHERE id = 4 RETURNING name),
    a AS (UPDATE archive SET name = u.name FROM u WHERE archive.id = 5)
    UPDATE users SET name = 'cinq' FROM u WHERE users.id = 5;
\! cached
-- more rows than the outer query reads
WITH u AS (UPDATE users SET name = name || '!' RETURNING id, name) SELECT count(*) FROM (SELECT * FROM u LIMIT 1) one;
WITH u AS (UPDATE archive SET name = name || '!') SELECT 1 AS one WHERE false;
\! cached
-- a fill from a statement that changes: not from this one
WITH u AS (UPDATE users SET name = 'six' WHERE id = 6 RETURNING id) SELECT name FROM users WHERE id = 6;
\! cached user:6
WITH RECURSIVE r(n) AS (SELECT 2 UNION ALL SELECT n + 2 FROM r WHERE n < 6),
    u AS (UPDATE users SET name = 'even' FROM r WHERE id = n RETURNING id)
    INSERT INTO archive SELECT id + 100, 'even' FROM u;
\! cached
