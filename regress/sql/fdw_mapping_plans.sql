-- Tables over mappings in plans that are made once and carried out often, under cursors, in functions, and while the
-- list of mappings changes.
CREATE TABLE users (id int PRIMARY KEY, name text);
INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 1000) i;
CREATE TABLE places (country text, zip int, name text, PRIMARY KEY (country, zip));
INSERT INTO places SELECT c, z, c || z FROM unnest(ARRAY['de', 'ch']) c, generate_series(1, 3) z;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users WITH (fill = any); place:{country}:{zip} => SELECT name FROM places WITH (fill = any)';
\! reload
SELECT count(*) FROM (SELECT * FROM users OFFSET 0) u; SELECT count(*) FROM (SELECT * FROM places OFFSET 0) u;
SELECT redis_cache.wait();
CREATE SCHEMA cached;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached;

SET plan_cache_mode = force_generic_plan;
PREPARE by_id(int) AS SELECT name FROM cached.users WHERE id = $1;
EXPLAIN (COSTS OFF) EXECUTE by_id(1);
EXECUTE by_id(1); EXECUTE by_id(2); EXECUTE by_id(NULL); EXECUTE by_id(-1);
PREPARE by_ids(int[]) AS SELECT count(*), min(name) FROM cached.users WHERE id = ANY ($1);
EXECUTE by_ids('{1,2,2,3000}'); EXECUTE by_ids('{}'); EXECUTE by_ids(NULL); EXECUTE by_ids('{NULL,7}');
PREPARE by_both(text, int[]) AS SELECT name FROM cached.places WHERE country = $1 AND zip = ANY ($2) ORDER BY zip;
EXECUTE by_both('de', '{1,3}'); EXECUTE by_both('fr', '{1}');
-- stable expressions, sub-selects, joins
SELECT name FROM cached.users WHERE id = length(current_setting('plan_cache_mode'));
SELECT name FROM cached.users WHERE id = (SELECT max(zip) FROM places);
SELECT u.name FROM cached.users u JOIN places p ON u.id = p.zip WHERE p.country = 'ch' ORDER BY u.id;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
EXPLAIN (COSTS OFF) SELECT u.name FROM places p JOIN cached.users u ON u.id = p.zip WHERE p.name = 'ch2';
SELECT u.name FROM places p JOIN cached.users u ON u.id = p.zip WHERE p.name IN ('ch2', 'de3') ORDER BY u.id;
SELECT p.name, c.name FROM places p LEFT JOIN cached.places c USING (country, zip) ORDER BY 1;
RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_material;
ANALYZE cached.users;
SELECT reltuples FROM pg_class WHERE oid = 'cached.users'::regclass;
SELECT i, (SELECT name FROM cached.users WHERE id = i) FROM generate_series(999, 1001) i;
SELECT count(*) FROM cached.users;
SELECT count(*) FROM (SELECT FROM cached.users LIMIT 5) x;
PREPARE remove(int) AS DELETE FROM cached.users WHERE id = $1 RETURNING *;
EXECUTE remove(5); EXECUTE remove(5);
RESET plan_cache_mode;

-- the keys of a DELETE are gone when it has returned, whatever becomes of the transaction
BEGIN;
DELETE FROM cached.users WHERE id BETWEEN 10 AND 19;
\! redis EXISTS user:10 user:11 user:12 user:19
ROLLBACK;
SELECT count(*) FROM cached.users;
-- thousands in one statement, and through a join
WITH gone AS (DELETE FROM cached.users u USING places p WHERE u.id = p.zip AND p.country = 'de' RETURNING u.id) SELECT id FROM gone ORDER BY id;
DELETE FROM cached.users WHERE id > 500;
SELECT count(*), max(id) FROM cached.users;
-- what the transaction itself has changed is in Redis when it is committed
BEGIN;
UPDATE users SET name = 'changed' WHERE id = 20;
SELECT name FROM cached.users WHERE id = 20;
DELETE FROM cached.users WHERE id = 20;
COMMIT;
SELECT redis_cache.wait();
SELECT name FROM cached.users WHERE id = 20;
-- a trigger on the table sees each key gone
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE NOTICE '% % %', tg_op, old.id, (SELECT count(*) FROM cached.users WHERE id = old.id);
    RETURN old;
END $$;
CREATE TRIGGER tell AFTER DELETE ON cached.users FOR EACH ROW EXECUTE FUNCTION tell();
DELETE FROM cached.users WHERE id IN (30, 31);
DROP TRIGGER tell ON cached.users;
-- where the worker writes, and nowhere else
CREATE SERVER elsewhere FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:1');
CREATE FOREIGN TABLE elsewhere (id int) SERVER elsewhere OPTIONS (mapping 'users');
DELETE FROM elsewhere WHERE id = 1;
TRUNCATE elsewhere;

-- cursors, with deletes between
BEGIN;
DECLARE a CURSOR FOR SELECT id FROM cached.users WHERE id IN (40, 41, 42) ORDER BY id;
DECLARE b CURSOR FOR SELECT name FROM cached.places WHERE country = 'ch' ORDER BY zip;
FETCH 1 FROM a; FETCH 1 FROM b;
DELETE FROM cached.users WHERE id = 43;
SAVEPOINT here;
SELECT name::int FROM cached.users WHERE id = 44;
ROLLBACK TO here;
FETCH 1 FROM a; FETCH ALL FROM b;
COMMIT;
CREATE FUNCTION hits(first int, last int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    hit int := 0;
    r record;
BEGIN
    FOR i IN first .. last LOOP
        BEGIN
            SELECT * INTO r FROM cached.users WHERE id = i;
            IF FOUND THEN hit := hit + 1; END IF;
            IF i % 7 = 0 THEN RAISE division_by_zero; END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
    RETURN hit;
END $$;
SELECT hits(1, 50), hits(1, 50);

-- the list changes: what the table means is looked up when a statement runs
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (fill = any)';
\! reload
EXECUTE by_id(50);
EXECUTE by_both('de', '{1}');
SELECT name FROM users WHERE id = 50;
SELECT redis_cache.wait();
EXECUTE by_id(50);
-- another template: the old keys are gone, and the table is over the new ones
ALTER SYSTEM SET pg_redis_cache.mappings = 'person/{id} => SELECT name FROM users WITH (name = users, format = string, fill = any)';
\! reload
EXECUTE by_id(50);
SELECT name FROM users WHERE id = 50;
SELECT redis_cache.wait();
EXECUTE by_id(50);
EXPLAIN (COSTS OFF) EXECUTE by_id(50);
-- the key column is another: a column that the mapping has not any more
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT id FROM users WITH (fill = any)';
\! reload
EXECUTE by_id(50);
-- columns of the mapped table change their type
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (fill = any)';
\! reload
ALTER TABLE users ALTER id TYPE bigint;
SELECT await_state('users', 'active');
SELECT name FROM users WHERE id = 50;
SELECT redis_cache.wait();
EXECUTE by_id(50);
SELECT note_activations('users');
ALTER TABLE users ALTER id TYPE text;
SELECT await_activation('users');
SELECT name FROM users WHERE id = '50';
SELECT redis_cache.wait();
EXECUTE by_id(50);
-- the condition cannot be asked by any more: the plan's scan checks it
EXECUTE by_id(49);
-- off, and gone
ALTER SYSTEM SET pg_redis_cache.enabled = off;
\! reload -n
EXECUTE by_id(50);
ALTER SYSTEM SET pg_redis_cache.enabled = on;
\! reload
DROP TABLE users;
SELECT await_state('users', 'error');
SELECT * FROM cached.users;
SELECT is_updatable FROM information_schema.columns WHERE table_schema = 'cached' AND table_name = 'users';
