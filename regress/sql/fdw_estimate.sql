-- How many rows the planner takes a table for: a guess, what ANALYZE has seen, or what Redis says.
SELECT make_redis_server();
CREATE FOREIGN TABLE h (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE hs (key text, field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h:*');
CREATE FOREIGN TABLE st (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 's:*');
CREATE FOREIGN TABLE one (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 's:1');
CREATE FOREIGN TABLE absent (member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'absent');
CREATE FOREIGN TABLE wrong (member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'h');
INSERT INTO h SELECT g, g FROM generate_series(1, 2345) g;
INSERT INTO hs SELECT 'h:' || g, f, g FROM generate_series(1, 100) g, generate_series(1, 3) f;
INSERT INTO st SELECT 's:' || g, g FROM generate_series(1, 77) g;
CREATE FUNCTION planned(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
        IF line ~ 'rows=' THEN RETURN NEXT regexp_replace(trim(line), ' *\(.*(rows=[0-9]+).*\)', ': \1'); END IF;
    END LOOP;
END $$;
-- a guess
SELECT planned('SELECT * FROM ' || t) FROM unnest('{h,hs,st,one,absent}'::text[]) t;
-- what Redis says
ALTER SERVER redis_server OPTIONS (ADD use_remote_estimate 'on');
SELECT planned('SELECT * FROM ' || t) FROM unnest('{h,hs,st,one,absent,wrong}'::text[]) t;
SELECT planned('SELECT * FROM h WHERE field = ''1''');
ALTER FOREIGN TABLE hs OPTIONS (ADD use_remote_estimate 'off');
SELECT planned('SELECT * FROM hs');
ALTER FOREIGN TABLE hs OPTIONS (SET use_remote_estimate 'perhaps');
-- of many keys a sample: half of them are the table's strings, and each fourth is a hash of 20 fields
SELECT redis('FLUSHALL');
INSERT INTO st SELECT 's:' || g, g FROM generate_series(1, 10000) g;
ALTER FOREIGN TABLE hs OPTIONS (DROP use_remote_estimate);
INSERT INTO hs SELECT 'h:' || g, f, g FROM generate_series(1, 5000) g, generate_series(1, 20) f;
CREATE FOREIGN TABLE others (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'x:*');
INSERT INTO others SELECT 'x:' || g, g FROM generate_series(1, 5000) g;
CREATE FUNCTION is_about(query text, expected float8) RETURNS bool LANGUAGE sql AS
    $$ SELECT substring(line FROM 'rows=([0-9]+)')::float8 BETWEEN expected / 2 AND expected * 2 FROM planned(query) line $$;
SELECT is_about('SELECT * FROM st', 10000) AS strings, is_about('SELECT * FROM hs', 100000) AS hashes;
-- it stands above what ANALYZE has seen, which is of another day
ANALYZE st;
DELETE FROM st WHERE key LIKE 's:%1%';
SELECT reltuples FROM pg_class WHERE relname = 'st';
SELECT is_about('SELECT * FROM st', (SELECT count(*) FROM st)) AS of_today;
-- what Redis holds decides how a join is done
CREATE FOREIGN TABLE s (member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'small');
INSERT INTO s VALUES ('1'), ('2');
CREATE TABLE few AS SELECT g::text AS f FROM generate_series(1, 50) g;
ANALYZE few;
SELECT planned('SELECT * FROM few JOIN s ON f = member');
-- a Redis that is away, or keeps its user from asking, is found out about when the statement is carried out
CREATE SERVER away FOREIGN DATA WRAPPER redis_wrapper OPTIONS (host_port '127.0.0.1:1', use_remote_estimate 'on');
CREATE FOREIGN TABLE a (field text, value text) SERVER away OPTIONS (table_type 'hash', table_key_prefix 'a');
SELECT planned('SELECT * FROM a');
SELECT * FROM a WHERE false;
\set VERBOSITY terse
SELECT * FROM a;
SELECT redis('ACL', 'SETUSER', 'limited', 'on', '>secret', '~*', '+hmget');
CREATE USER MAPPING FOR CURRENT_USER SERVER redis_server OPTIONS (username 'limited', password 'secret');
SELECT planned('SELECT * FROM h');
SELECT count(*) FROM h;
SELECT * FROM h WHERE field = '1';
ALTER USER MAPPING FOR CURRENT_USER SERVER redis_server OPTIONS (SET password 'wrong');
SELECT planned('SELECT * FROM h');
SELECT * FROM h WHERE field = '1';
