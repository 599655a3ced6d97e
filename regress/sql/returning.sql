-- RETURNING in every form: the user's rows are the user's, and Redis has what was committed, even where an
-- expression of it changes the same row again (the key is then deleted: nobody can say in which order).
CREATE TABLE users (id int PRIMARY KEY, name text, visits int NOT NULL DEFAULT 0);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 9) n;
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, visits FROM users WITH (insert = set)';
\! reload
UPDATE users SET name = name;

UPDATE users SET visits = 1 WHERE id = 1 RETURNING *;
UPDATE users SET visits = 2 WHERE id = 1 RETURNING name, visits * 2, ctid IS NOT NULL, tableoid::regclass, 'const';
UPDATE users u SET visits = 3 FROM generate_series(1, 2) g WHERE g = u.id RETURNING u.id, g, u.visits;
INSERT INTO users VALUES (10, 'ten') RETURNING id, (SELECT count(*) FROM users WHERE id < 10);
DELETE FROM users u USING generate_series(9, 9) g WHERE g = u.id RETURNING u.*, g;
\! cached user:1*
\! cached user:9

CREATE FUNCTION again(int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN UPDATE users SET visits = visits + 100 WHERE id = $1; RETURN 'again'; END $$;
CREATE FUNCTION remove(int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN DELETE FROM users WHERE id = $1; RETURN 'removed'; END $$;
UPDATE users SET name = 'twice' WHERE id = 3 RETURNING again(id), visits;
\! cached user:3
SELECT * FROM users WHERE id = 3;
INSERT INTO users VALUES (11, 'eleven') RETURNING again(id);
\! cached user:11
UPDATE users SET name = 'late' WHERE id = 4 RETURNING remove(id);
\! cached user:4
DELETE FROM users WHERE id = 5 RETURNING again(id), again(6);
\! cached user:[56]
UPDATE users SET name = 'other' WHERE id = 7 RETURNING again(8);
\! cached user:[78]
-- the row before, changed by the next row's RETURNING
UPDATE users SET name = 'chain' WHERE id IN (7, 8) RETURNING id, again(id - 1);
\! cached user:[678]
SELECT * FROM users WHERE id BETWEEN 6 AND 8 ORDER BY id;

-- A limit on the rows that a caller takes: all are changed, and all are in Redis.
UPDATE users SET visits = 0;
CREATE FUNCTION first_only() RETURNS SETOF int LANGUAGE sql AS 'UPDATE users SET visits = visits + 1 RETURNING id';
SELECT count(*) FROM (SELECT first_only() LIMIT 1) one;
SELECT sum(visits) = count(*) AS all_changed FROM users;
CREATE FUNCTION into_one() RETURNS int LANGUAGE plpgsql AS $$
DECLARE n int; BEGIN UPDATE users SET visits = 7 RETURNING id INTO n; RETURN n; END $$;
SELECT into_one();
CREATE FUNCTION last_of() RETURNS int LANGUAGE sql AS 'UPDATE users SET visits = 9 WHERE id < 3 RETURNING id';
SELECT last_of() IN (1, 2) AS last_of;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint; BEGIN UPDATE users SET name = 'n'; GET DIAGNOSTICS n = ROW_COUNT; RETURN n; END $$;
SELECT counted() = (SELECT count(*) FROM users) AS counted;
DO $$ BEGIN UPDATE users SET name = 'found' WHERE id = 99; IF FOUND THEN RAISE 'found'; END IF;
    UPDATE users SET name = 'found' WHERE id = 1; IF NOT FOUND THEN RAISE 'not found'; END IF; END $$;
\! cached
\set QUIET off
UPDATE users SET visits = 0;
UPDATE users SET visits = 0 WHERE id = 99;
DELETE FROM users WHERE id = 1;
INSERT INTO users VALUES (1, 'one'), (2, 'two') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
WITH d AS (DELETE FROM users WHERE id = 2) UPDATE users SET visits = 1 WHERE id IN (1, 3);
WITH d AS (DELETE FROM users WHERE id = 3) SELECT 1 AS one;
\set QUIET on
