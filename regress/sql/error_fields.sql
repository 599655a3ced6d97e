-- Errors of the user's queries keep every field on their way through the hooks: names, cursor positions, context.
CREATE SCHEMA app;
CREATE TABLE app.users (id int PRIMARY KEY, name text NOT NULL, age int CONSTRAINT adult CHECK (age >= 18));
CREATE TABLE app.carts (id int PRIMARY KEY, user_id int CONSTRAINT owner REFERENCES app.users);
CREATE DOMAIN app.percent AS int CONSTRAINT up_to_100 CHECK (VALUE BETWEEN 0 AND 100);
INSERT INTO app.users VALUES (1, 'ann', 30), (2, 'bob', 40);
INSERT INTO app.carts VALUES (1, 1);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name, age FROM app.users WITH (insert = set); cart:{id} => SELECT user_id FROM app.carts';
\! reload

CREATE FUNCTION fields(statement text) RETURNS TABLE (field text, value text) LANGUAGE plpgsql AS $$
DECLARE
    s text; m text; d text; h text; ns text; t text; c text; con text; ty text; ctx text;
BEGIN
    EXECUTE statement;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS s = RETURNED_SQLSTATE, m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT,
        ns = SCHEMA_NAME, t = TABLE_NAME, c = COLUMN_NAME, con = CONSTRAINT_NAME, ty = PG_DATATYPE_NAME,
        ctx = PG_EXCEPTION_CONTEXT;
    RETURN QUERY SELECT * FROM (VALUES ('sqlstate', s), ('message', m), ('detail', d), ('hint', h), ('schema', ns),
        ('table', t), ('column', c), ('constraint', con), ('datatype', ty), ('context', ctx)) f(f, x) WHERE x <> '';
END $$;
\pset tuples_only on
\pset format unaligned
SELECT * FROM fields('INSERT INTO app.users VALUES (1, ''twice'', 20)');
SELECT * FROM fields('UPDATE app.users SET id = 2 WHERE id = 1');
SELECT * FROM fields('UPDATE app.users SET name = NULL WHERE id = 1');
SELECT * FROM fields('UPDATE app.users SET age = 3 WHERE id = 1 RETURNING *');
SELECT * FROM fields('DELETE FROM app.users WHERE id = 1');
SELECT * FROM fields('INSERT INTO app.carts VALUES (2, 99)');
SELECT * FROM fields('SELECT 101::app.percent FROM app.users WHERE id = 1');
SELECT * FROM fields('UPDATE app.users SET age = age / 0 WHERE id = 1');
SELECT * FROM fields('SELECT name / 2 FROM app.users WHERE id = 1');
SELECT * FROM fields('TRUNCATE app.users');
SELECT * FROM fields('ALTER TABLE app.users ADD CONSTRAINT adult CHECK (age > 0)');
-- planner errors: the hook is on the stack then
SELECT * FROM fields('UPDATE app.users SET age = 1 WHERE name = 1::text AND 1 / 0 = id');
-- context from inside
CREATE FUNCTION app.fail(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN $1 / 0; END $$;
CREATE FUNCTION app.fail_sql(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT app.fail($1)';
SELECT * FROM fields('UPDATE app.users SET age = app.fail(id) WHERE id = 1');
SELECT * FROM fields('SELECT app.fail_sql(id) FROM app.users WHERE id = 1');
SELECT * FROM fields('DELETE FROM app.carts WHERE id = 1 RETURNING app.fail(id)');
SELECT * FROM fields('SELECT app.fail(1) WHERE EXISTS (SELECT FROM app.users WHERE id = 1)');
\pset format aligned
\pset tuples_only off

-- positions: found by the parser, by the planner (an inlined function), inside a function
UPDATE app.users SET nme = 'x' WHERE id = 1;
SELECT name FROM app.users WHERE id = 'one';
UPDATE app.users SET age = 'x'::text::int WHERE id = 1;
CREATE FUNCTION app.bad() RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE app.users SET nme = 'x' WHERE id = 1; END $$;
SELECT app.bad();
SELECT 1 / 0 FROM app.users WHERE id = 1;
DO $$ BEGIN EXECUTE 'UPDATE app.users SET age = 1 WHERE id = oops'; END $$;
-- verbose, but for the place in the source
\! psql -XAtq -d regression -v VERBOSITY=verbose -c "UPDATE app.users SET id = 2 WHERE id = 1" 2>&1 | grep -v LOCATION
\! psql -XAtq -d regression -v VERBOSITY=verbose -c "INSERT INTO app.users VALUES (3, NULL)" 2>&1 | grep -v LOCATION
\! psql -XAtq -d regression -v VERBOSITY=verbose -c "UPDATE app.users SET oops = 2" 2>&1 | grep -v LOCATION
-- none of it reached Redis, and the session goes on
\! cached
UPDATE app.users SET age = 31 WHERE id = 1;
\! cached
-- a cancelled statement, too
SET statement_timeout = '50ms';
UPDATE app.users SET age = 32 WHERE id = 1 AND pg_sleep(10) IS NOT NULL;
SELECT name, pg_sleep(10) FROM app.users WHERE id = 1;
RESET statement_timeout;
UPDATE app.users SET age = 33 WHERE id = 1;
\! cached
