-- Where verify and warm cannot run: a plain error each time, and the next call works.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE secured (id int PRIMARY KEY, owner name);
CREATE TABLE parted (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 5) i;
INSERT INTO secured VALUES (1, 'reader'), (2, 'other');
INSERT INTO parted VALUES (1, 'one');
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secured USING (owner = current_user);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users; '
    'secured:{id} => SELECT owner FROM secured WITH (allow_rls = on); parted:{id} => SELECT name FROM parted; '
    'broken:{id} => SELECT x FROM users WITH (name = broken)';
\! reload

SELECT * FROM redis_cache.verify('nobody');
SELECT * FROM redis_cache.verify('broken');
SELECT * FROM redis_cache.verify(NULL);
SELECT * FROM redis_cache.verify('users', 0);
SELECT * FROM redis_cache.verify('users', -1);
SELECT redis_cache.warm('nobody');
SELECT redis_cache.warm('broken');
SELECT redis_cache.warm(NULL);

-- transactions
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM redis_cache.verify('users');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT redis_cache.warm('users');
ROLLBACK;
BEGIN;
UPDATE users SET name = 'not committed' WHERE id = 1;
SAVEPOINT a;
SELECT * FROM redis_cache.verify('users');
ROLLBACK TO a;
SELECT redis_cache.warm('users');
ROLLBACK TO a;
SELECT * FROM redis_cache.verify('parted');
SELECT redis_cache.warm('parted');
ROLLBACK;
-- also where the rows are changed while it is under way
\! redis EVAL 'for id = 1, 400 do redis.call("HSET", "user:" .. 1000 + id, "name", "nobody") end' 0 >/dev/null
BEGIN;
DECLARE c CURSOR FOR SELECT (redis_cache.verify('users')).problem;
FETCH 1 FROM c;
UPDATE users SET name = 'not committed' WHERE id = 1;
FETCH ALL FROM c;
ROLLBACK;
SELECT redis_cache.invalidate_all('users') AS purged;
-- a new row that nobody captures is not committed either
BEGIN;
INSERT INTO users VALUES (6, 'not committed');
SELECT redis_cache.warm('users');
ROLLBACK;
BEGIN READ ONLY;
SELECT * FROM redis_cache.verify('users');
SELECT redis_cache.warm('users');
COMMIT;
\! cached

-- predicates
SELECT redis_cache.warm('users', 'id <');
SELECT redis_cache.warm('users', 'id < 3 AND nam = ''x''');
SELECT redis_cache.warm('users', 'name');
SELECT redis_cache.warm('users', 'id / 0 = 1');
SELECT redis_cache.warm('users', 'sum(id) > 1');
SELECT redis_cache.warm('users', 'id = ''one''');
SELECT redis_cache.warm('users', 'true) OR (true');
SELECT redis_cache.warm('users', 'true; DELETE FROM users');
SELECT redis_cache.warm('users', 'true) UNION ALL (SELECT 1, ''x''');
SELECT redis_cache.warm('users', 'true ORDER BY id');
SELECT redis_cache.warm('users', 'true FROM users');
SELECT redis_cache.warm('users', 'id, name');
SELECT redis_cache.warm('users', '*');
SELECT redis_cache.warm('users', 'true AS yes');
SELECT redis_cache.warm('users', '');
SELECT redis_cache.warm('users', '/* no end');
SELECT redis_cache.warm('users', '''no end');
SELECT redis_cache.warm('users', 'ü = 1');
SELECT count(*) FROM users;

-- privileges: those of the caller
CREATE ROLE reader;
SET ROLE reader;
SELECT * FROM redis_cache.verify('users');
SELECT redis_cache.warm('users');
SELECT * FROM redis_cache.progress;
RESET ROLE;
GRANT EXECUTE ON FUNCTION redis_cache.verify, redis_cache.warm TO reader;
SET ROLE reader;
SELECT * FROM redis_cache.verify('users');
SELECT redis_cache.warm('users');
RESET ROLE;
GRANT SELECT (id) ON users TO reader;
SET ROLE reader;
SELECT * FROM redis_cache.verify('users');
SELECT redis_cache.warm('users', 'name > ''''');
RESET ROLE;
-- a partition needs no grant of its own
GRANT SELECT ON users, parted, secured TO reader;
SET ROLE reader;
SELECT * FROM redis_cache.verify('users');
SELECT redis_cache.warm('users');
SELECT redis_cache.warm('parted');
SELECT * FROM redis_cache.verify('parted');
-- rows that are hidden would look like keys without a row
SELECT * FROM redis_cache.verify('secured');
SELECT redis_cache.warm('secured');
RESET ROLE;
SELECT redis_cache.warm('secured');
SELECT * FROM redis_cache.verify('secured');

\set VERBOSITY sqlstate
SELECT * FROM redis_cache.verify('nobody');
SELECT * FROM redis_cache.verify('users', 0);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM redis_cache.verify('users');
ROLLBACK;
SELECT redis_cache.warm('users', 'id <');
SET ROLE reader;
SELECT * FROM redis_cache.verify('secured');
RESET ROLE;
\set VERBOSITY default

-- an error within leaves nothing behind: no entry, no setting, no lock
DO $$ BEGIN PERFORM redis_cache.warm('users', 'id / (id - 3) > 0'); EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE 'caught'; END $$;
SELECT * FROM redis_cache.progress;
SHOW pg_redis_cache.fill;
SELECT redis_cache.warm('users'), redis_cache.wait();
SELECT * FROM redis_cache.verify('users');
\! cached
DROP OWNED BY reader;
DROP ROLE reader;

-- an error that is not about the key ends in the caller's own subtransaction
CREATE FUNCTION refuses(t text) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    IF t = 'refused' THEN RAISE EXCEPTION 'refused' USING ERRCODE = '42501'; END IF;
    RETURN true;
END $$;
CREATE DOMAIN word AS text CHECK (refuses(value));
CREATE TABLE words (word word PRIMARY KEY, n int);
CREATE TABLE seen (what text);
ALTER SYSTEM SET pg_redis_cache.mappings = 'word:{word} => SELECT n FROM words';
\! reload
\! redis HSET word:refused n 1 >/dev/null
DO $$
BEGIN
    BEGIN
        INSERT INTO seen VALUES ('rolled back');
        PERFORM redis_cache.verify('words');
    EXCEPTION WHEN insufficient_privilege THEN
        INSERT INTO seen VALUES (sqlerrm);
    END;
END $$;
SELECT pg_current_xact_id_if_assigned() IS NULL AS committed;
\c -
SELECT * FROM seen;

-- warm: a predicate that writes is refused before what it has written is read
CREATE FUNCTION writes(id int) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    IF id = 1 THEN INSERT INTO pages VALUES (100000, 'not committed'); END IF;
    RETURN true;
END $$;
CREATE TABLE pages (id int PRIMARY KEY, body text) WITH (fillfactor = 10);
INSERT INTO pages SELECT i, 'x' FROM generate_series(1, 3000) i;
ALTER SYSTEM SET pg_redis_cache.mappings = 'page:{id} => SELECT body FROM pages';
\! reload
SELECT redis_cache.warm('pages', 'writes(id)');
\! cached page:100000
