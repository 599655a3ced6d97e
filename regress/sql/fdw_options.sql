-- Options: where they stand, which are taken, and what is said of the others.
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (hostport 'localhost:6379');
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port 'localhost:x');
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port 'redissss://:sesame@localhost:6379');
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port 'rediss://localhost:1,redis://localhost:2');
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port 'rediss://localhost:1', tls_verify 'perhaps');
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port 'localhost:1', cluster_mode 'perhaps');
CREATE SERVER s FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port 'localhost:1', pool_max_size '128', cluster_mode 'true', colour 'red');
DROP SERVER s;
-- the wrapper of a script for redis_fdw_rs, and its cluster syntax
SELECT make_redis_server();
CREATE SERVER redis_cluster FOREIGN DATA WRAPPER redis_wrapper
    OPTIONS (host_port '127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002', password 'your_password');
CREATE SERVER redis_secure FOREIGN DATA WRAPPER redis_wrapper OPTIONS (host_port 'rediss://redis.example.com:6380');
CREATE FOREIGN DATA WRAPPER no_validator HANDLER redis_cache.redis_fdw_handler;
CREATE SERVER unchecked FOREIGN DATA WRAPPER no_validator OPTIONS (table_type 'hasch', table_key_prefix 'k');
CREATE FOREIGN TABLE unchecked (a text) SERVER unchecked;
SELECT * FROM unchecked;
-- tables
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (table_type 'hasch', table_key_prefix 'k');
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix '');
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'k', ttl '0');
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'k', batch_size '99');
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'k', database 'one');
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (tabletype 'set');
CREATE FOREIGN TABLE t (a text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'k', table_key 'k', password 'sesame');
ALTER FOREIGN TABLE t OPTIONS (SET table_type 'list', ADD ttl '60', ADD join_batch_size '0');
ALTER FOREIGN TABLE t ALTER COLUMN a OPTIONS (field 'a');
DROP FOREIGN TABLE t;
-- what is missing, and columns that do not fit, are told when the table is used
CREATE FOREIGN TABLE t (a text) SERVER redis_server;
SELECT * FROM t;
ALTER FOREIGN TABLE t OPTIONS (ADD table_type 'Hash');
SELECT * FROM t;
ALTER FOREIGN TABLE t OPTIONS (ADD table_key_prefix 'k');
SELECT * FROM t;
ALTER FOREIGN TABLE t ADD COLUMN b text, ADD COLUMN ttl int;
SELECT * FROM t;
ALTER FOREIGN TABLE t DROP COLUMN a;
INSERT INTO t VALUES ('x', 1);
ALTER FOREIGN TABLE t ADD COLUMN c text;
INSERT INTO t (b, c) VALUES ('field', 'value');
SELECT * FROM t;
-- wrapper, server, table: the later wins
ALTER FOREIGN DATA WRAPPER redis_wrapper OPTIONS (ADD table_type 'set', ADD database '1', ADD batch_size '100');
ALTER SERVER redis_server OPTIONS (ADD table_type 'string', ADD table_key_prefix 'of the server');
CREATE FOREIGN TABLE merged (value text) SERVER redis_server;
INSERT INTO merged VALUES ('x');
EXPLAIN (COSTS OFF) SELECT * FROM merged;
\! redis -n 1 GET 'of the server'
ALTER FOREIGN TABLE merged OPTIONS (ADD table_type 'list', ADD database '2');
INSERT INTO merged VALUES ('y');
\! redis -n 2 LRANGE 'of the server' 0 -1

-- the server of the extension has the address of pg_redis_cache.url
CREATE FOREIGN TABLE of_cache (value text) SERVER redis_cache OPTIONS (table_type 'string', table_key_prefix 'here');
INSERT INTO of_cache VALUES ('it is');
\! redis GET here
-- so nobody else may make one like it
CREATE ROLE pupil;
GRANT USAGE ON FOREIGN DATA WRAPPER redis_cache_fdw TO pupil;
GRANT CREATE ON SCHEMA public TO pupil;
SET ROLE pupil;
CREATE SERVER own FOREIGN DATA WRAPPER redis_cache_fdw;
CREATE SERVER own FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:1');
ALTER SERVER own OPTIONS (DROP host_port);
CREATE FOREIGN TABLE others (value text) SERVER redis_cache OPTIONS (table_type 'string', table_key_prefix 'here');
RESET ROLE;

-- secrets: in user mappings, of the user or of PUBLIC; a view's owner's for a view
\! redis ACL SETUSER teacher on '>sesame' '~*' '&*' +@all
\! redis ACL SETUSER default '#9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'
\! redis CONFIG SET requirepass test
\! redis -a test --no-auth-warning SET secret word
ALTER SERVER redis_server OPTIONS (DROP table_type, DROP table_key_prefix);
CREATE FOREIGN TABLE secret (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'secret', database '0');
\c -
SELECT * FROM secret;
CREATE USER MAPPING FOR CURRENT_USER SERVER redis_server OPTIONS (user 'teacher', password 'sesame');
CREATE USER MAPPING FOR CURRENT_USER SERVER redis_server OPTIONS (username 'teacher', password 'open');
SELECT * FROM secret;
ALTER USER MAPPING FOR CURRENT_USER SERVER redis_server OPTIONS (SET password 'sesame');
SELECT * FROM secret;
CREATE FUNCTION verbose_plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query LOOP
        RETURN NEXT replace(line, current_setting('test.redis_port'), 'port');
    END LOOP;
END $$;
SELECT verbose_plan('SELECT * FROM secret');
CREATE VIEW shown AS SELECT * FROM secret;
GRANT SELECT, INSERT ON shown, secret TO pupil;
SET ROLE pupil;
SELECT * FROM shown;
SELECT * FROM secret;
INSERT INTO shown VALUES ('words') RETURNING *;
RESET ROLE;
CREATE USER MAPPING FOR PUBLIC SERVER redis_server OPTIONS (password 'test');
SET ROLE pupil;
SELECT * FROM secret;
RESET ROLE;
-- an altered server or user mapping is used from the next statement on
DROP USER MAPPING FOR CURRENT_USER SERVER redis_server;
SELECT * FROM secret;
ALTER USER MAPPING FOR PUBLIC SERVER redis_server OPTIONS (SET password 'wrong');
SELECT * FROM secret;
ALTER USER MAPPING FOR PUBLIC SERVER redis_server OPTIONS (SET password 'test');
ALTER SERVER redis_server OPTIONS (SET host_port '127.0.0.1:1,127.0.0.1:2');
SELECT * FROM secret;
