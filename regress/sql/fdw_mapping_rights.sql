-- Who may read a mapping as a table: as with a view, the table's owner needs the right to read what is behind it, and
-- everybody else the right on the table.
CREATE ROLE keeper; CREATE ROLE pupil;
CREATE TABLE users (id int PRIMARY KEY, name text, secret text);
INSERT INTO users SELECT i, 'user ' || i, 'secret ' || i FROM generate_series(1, 3) i;
CREATE TABLE own (id int PRIMARY KEY, name text);
ALTER TABLE own ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON own USING (name = current_user);
INSERT INTO own VALUES (1, 'keeper'), (2, 'pupil');
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name, secret FROM users WITH (fill = any); own:{id} => SELECT name FROM own WITH (fill = any, allow_rls = on)';
\! reload
SELECT count(*) FROM (SELECT * FROM users OFFSET 0) u; SELECT count(*) FROM (SELECT * FROM own OFFSET 0) u;
SELECT redis_cache.wait();
-- only whoever may use the server can make a table on it
GRANT CREATE ON SCHEMA public TO keeper;
SET ROLE keeper;
CREATE FOREIGN TABLE kept (id int, name text, secret text) SERVER redis_cache OPTIONS (mapping 'users');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER redis_cache TO keeper;
SET ROLE keeper;
CREATE FOREIGN TABLE kept (id int, name text, secret text) SERVER redis_cache OPTIONS (mapping 'users');
CREATE FOREIGN TABLE kept_own (id int, name text) SERVER redis_cache OPTIONS (mapping 'own');
-- and its owner needs the right on what it shows
SELECT * FROM kept WHERE id = 1;
ANALYZE kept;
RESET ROLE;
GRANT SELECT (id, name) ON users TO keeper;
SET ROLE keeper;
SELECT id, name FROM kept ORDER BY id;
SELECT count(*) FROM kept;
SELECT secret FROM kept WHERE id = 1;
SELECT id FROM kept WHERE secret = 'secret 1';
DELETE FROM kept WHERE id = 3;
DELETE FROM kept WHERE secret = 'secret 2';
SELECT count(*) FROM kept;
-- whoever else reads it needs the right on the foreign table alone
SET ROLE pupil;
SELECT name FROM kept WHERE id = 1;
DELETE FROM kept;
TRUNCATE kept;
SET ROLE keeper;
GRANT SELECT (name, id) ON kept TO pupil;
SET ROLE pupil;
SELECT name FROM kept WHERE id = 1;
SELECT secret FROM kept WHERE id = 1;
-- a superuser's right does not make up for the owner's
RESET ROLE;
SELECT * FROM kept WHERE id = 1;
REVOKE SELECT (id, name) ON users FROM keeper;
SELECT count(*) FROM kept;
GRANT SELECT ON users TO keeper;
SELECT * FROM kept WHERE id = 1;
-- row-level security that hides rows from the owner
GRANT SELECT ON own TO keeper;
SELECT * FROM kept_own;
ALTER ROLE keeper BYPASSRLS;
SELECT * FROM kept_own ORDER BY id;
ALTER ROLE keeper NOBYPASSRLS;
-- a plan that is kept does not keep a right
PREPARE by_id(int) AS SELECT name FROM kept WHERE id = $1;
EXECUTE by_id(1);
REVOKE SELECT ON users FROM keeper;
EXECUTE by_id(1);
EXPLAIN (COSTS OFF) DELETE FROM kept WHERE id = 1;
