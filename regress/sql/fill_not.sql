-- What does not fill a mapping with fill = point, and what fills none.
CREATE TABLE users (id int PRIMARY KEY, name text, grp int);
CREATE TABLE places (country text, zip int, name text, PRIMARY KEY (country, zip));
INSERT INTO users SELECT n, 'user ' || n, n FROM generate_series(1, 3000) n;
INSERT INTO places VALUES ('de', 1, 'one'), ('de', 2, 'two'), ('fr', 1, 'un');
CREATE INDEX ON users (grp);
VACUUM ANALYZE users, places;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; place:{country}:{zip} => SELECT name FROM places';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT redis_cache.wait();

-- no condition, one on another column, no equality, one that depends on the row itself
SELECT count(name) FROM users;
SELECT name FROM users WHERE grp = 1;
SELECT name FROM users WHERE id <= 1;
SELECT name FROM users WHERE id BETWEEN 2 AND 2;
SELECT count(name) FROM users WHERE id = grp;
SELECT count(name) FROM users WHERE grp = id AND id < 5;
SELECT name FROM users WHERE id + 0 = 1;
SELECT name FROM users WHERE abs(id) = 1;
SELECT name FROM users WHERE id::text = '1';
SELECT name FROM users WHERE id = 1 OR grp = 1;
SELECT count(name) FROM users WHERE id = ALL (ARRAY[1]);
SELECT count(name) FROM users WHERE id IS NOT DISTINCT FROM 1;
-- a part of a composite key
SELECT name FROM places WHERE country = 'fr';
SELECT name FROM places WHERE zip = 2;
SELECT name FROM places WHERE country = 'de' AND zip > 1;
SELECT name FROM places WHERE (country, zip) IN (('de', 1), ('de', 3));
-- a hash join reads all
SET enable_nestloop = off; SET enable_mergejoin = off;
SELECT count(u.name) FROM users u JOIN places p ON u.id = p.zip;
RESET enable_nestloop; RESET enable_mergejoin;
-- an index-only scan has no row
EXPLAIN (COSTS OFF) SELECT id FROM users WHERE id = 5;
SELECT id FROM users WHERE id = 5;
-- no row at all
SELECT name FROM users WHERE id = -1;
-- COPY of a query does; of a table, not
COPY users TO '/dev/null';
COPY (SELECT name FROM users WHERE grp = 7) TO stdout;
\! cached
COPY (SELECT name FROM users WHERE id = 7) TO stdout;
\! cached
-- the composite one
SELECT name FROM places WHERE country = 'de' AND zip = 2;
SELECT name FROM places WHERE (country, zip) = ('fr', 1);
\! cached place:*

-- the session does not want to
SET pg_redis_cache.fill = off;
SELECT name FROM users WHERE id = 8;
RESET pg_redis_cache.fill;
-- the transaction changed rows of the mapping; another mapping it did not
BEGIN;
UPDATE users SET name = 'changed' WHERE id = 9;
SELECT name FROM users WHERE id = 10;
SELECT name FROM places WHERE country = 'de' AND zip = 1;
ROLLBACK;
-- the transaction ran DDL
BEGIN;
CREATE TEMP TABLE t ();
SELECT name FROM users WHERE id = 11;
COMMIT;
-- the row is the transaction's own
BEGIN;
INSERT INTO users VALUES (0, 'own', 0);
SELECT name FROM users WHERE id = 0;
COMMIT;
\! cached user:?
\! cached user:??
\! cached place:*
-- reads of a statement that changes
UPDATE places p SET name = u.name FROM users u WHERE u.id = p.zip AND p.zip = 1 AND p.country = 'fr';
INSERT INTO places SELECT 'xx', id, name FROM users WHERE id = 2;
CREATE TABLE copied AS SELECT name FROM users WHERE id = 3;
\! cached user:[123]

-- parallel workers do not, the leader may
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2; SET enable_indexscan = off; SET enable_bitmapscan = off;
SET enable_indexonlyscan = off; SET parallel_leader_participation = off;
EXPLAIN (COSTS OFF) SELECT name FROM users WHERE id = 12;
SELECT name FROM users WHERE id = 12;
\! cached user:12
SET parallel_leader_participation = on; SET max_parallel_workers = 0;
SELECT name FROM users WHERE id = 13;
\! cached user:13
