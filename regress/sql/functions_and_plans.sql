-- Changes and reads inside functions, procedures, DO blocks and prepared statements; custom and generic plans.
CREATE TABLE users (id int PRIMARY KEY, name text, visits int DEFAULT 0);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 9) n;
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, visits FROM users';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload

CREATE FUNCTION visit(int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN UPDATE users SET visits = visits + 1 WHERE id = $1; END $$;
CREATE FUNCTION visit_sql(int) RETURNS int LANGUAGE sql AS
    'UPDATE users SET visits = visits + 10 WHERE id = $1 RETURNING visits';
CREATE FUNCTION visit_sql_void(int) RETURNS void LANGUAGE sql AS 'UPDATE users SET visits = visits + 100 WHERE id = $1';
CREATE FUNCTION visit_body(int) RETURNS void LANGUAGE sql
    BEGIN ATOMIC UPDATE users SET visits = visits + 1000 WHERE id = $1; END;
CREATE FUNCTION visit_dynamic(int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN EXECUTE 'UPDATE users SET visits = -1 WHERE id <= $1' USING $1; GET DIAGNOSTICS n = ROW_COUNT; RETURN n; END $$;
SELECT visit(1), visit(1), visit_sql(1), visit_sql_void(1), visit_body(1);
SELECT visit_sql(id) FROM users WHERE id IN (2, 3) ORDER BY id;
\! cached
SELECT visit_dynamic(2);
\! cached

-- a procedure that commits on its way
CREATE PROCEDURE visit_all() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 3 LOOP
        UPDATE users SET visits = 100 + i WHERE id = i;
        IF i = 2 THEN ROLLBACK; ELSE COMMIT; END IF;
    END LOOP;
END $$;
CALL visit_all();
DO $$ BEGIN UPDATE users SET name = 'done' WHERE id = 4; DELETE FROM users WHERE id = 9; END $$;
\! cached

-- one prepared plan used before and after its table is mapped anew, with and without a generic plan
PREPARE touch (int) AS UPDATE users SET visits = visits + 1 WHERE id = $1;
PREPARE look (int) AS SELECT name FROM users WHERE id = $1;
PREPARE kill (int) AS DELETE FROM users WHERE id = $1;
SET plan_cache_mode = force_generic_plan;
EXECUTE touch(5);
EXECUTE look(6);
EXECUTE kill(7);
\! cached user:[567]
ALTER SYSTEM SET pg_redis_cache.mappings = 'u:{id} => SELECT visits FROM users';
\! reload
EXECUTE touch(5);
EXECUTE look(6);
EXECUTE kill(8);
SELECT visit(1), visit_sql(1), visit_sql_void(1), visit_body(1);
\! cached
ALTER SYSTEM SET pg_redis_cache.mappings = '';
\! reload
EXECUTE touch(5);
EXECUTE look(6);
SELECT visit(1), visit_sql(1);
\! cached
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, visits FROM users';
\! reload
SET plan_cache_mode = force_custom_plan;
EXECUTE touch(5);
EXECUTE look(6);
SELECT visit(1);
\! cached
RESET plan_cache_mode;
-- six times, so that the plan cache makes up its mind
EXECUTE touch(2); EXECUTE touch(2); EXECUTE touch(2); EXECUTE touch(2); EXECUTE touch(2); EXECUTE touch(2);
EXECUTE touch(2);
\! cached user:2

-- a read inside a function fills
CREATE FUNCTION name_of(int) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE r text; BEGIN SELECT name INTO r FROM users WHERE id = $1; RETURN r; END $$;
CREATE FUNCTION name_of_sql(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM users WHERE id = $1';
SELECT redis_cache.invalidate_all('users') > 0 AS purged;
SELECT name_of(1), name_of_sql(2), (SELECT name_of(n) FROM generate_series(3, 3) n);
\! cached
