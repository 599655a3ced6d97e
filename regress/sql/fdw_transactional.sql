-- transactional 'on': changes reach Redis at COMMIT, and never if the (sub)transaction aborts.
SELECT make_redis_server();
ALTER SERVER redis_server OPTIONS (ADD transactional 'on');
CREATE FOREIGN TABLE h (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h');
CREATE FOREIGN TABLE s (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 's:*');
CREATE FOREIGN TABLE l (index int, element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'l');
CREATE FOREIGN TABLE x (id text, f text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'x');
CREATE FOREIGN TABLE direct (field text, value text) SERVER redis_server OPTIONS (table_type 'hash', table_key_prefix 'h', transactional 'off');
INSERT INTO h VALUES ('a', '1'), ('b', '2');
SELECT * FROM h ORDER BY field;
BEGIN;
SELECT * FROM h WHERE field = 'a';
INSERT INTO h VALUES ('c', '3');
INSERT INTO s VALUES ('s:1', 'one'), ('s:2', 'two');
\! redis EXISTS s:1 s:2
\! redis HGET h c
ROLLBACK;
\! redis EXISTS s:1 s:2
\! redis HGET h c
BEGIN;
INSERT INTO h VALUES ('c', '3');
SAVEPOINT one;
INSERT INTO h VALUES ('d', '4');
SAVEPOINT two;
INSERT INTO s VALUES ('s:1', 'one');
RELEASE two;
ROLLBACK TO one;
INSERT INTO h VALUES ('e', '5');
SAVEPOINT three;
INSERT INTO s VALUES ('s:2', 'two');
RELEASE three;
COMMIT;
\! redis HGETALL h
\! redis EXISTS s:1
\! redis GET s:2
DO $$
BEGIN
    INSERT INTO h VALUES ('f', '6');
    BEGIN
        INSERT INTO h VALUES ('g', '7');
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
END $$;
SELECT field FROM h WHERE field >= 'f' ORDER BY 1;
-- changed keys cannot be read by the same transaction, others can
BEGIN;
UPDATE h SET value = value || '!' WHERE field IN ('a', 'b');
SAVEPOINT here;
SELECT * FROM h;
ROLLBACK TO here;
SELECT count(*) FROM h;
ROLLBACK TO here;
SELECT * FROM direct;
ROLLBACK TO here;
DELETE FROM h WHERE field = 'a';
ROLLBACK TO here;
SELECT * FROM s;
INSERT INTO h VALUES ('z', '26');
COMMIT;
SELECT * FROM h ORDER BY field;
BEGIN; DELETE FROM h WHERE field > 'b'; ROLLBACK;
BEGIN; DELETE FROM h WHERE field > 'b' RETURNING field; COMMIT;
\! redis HGETALL h
BEGIN; TRUNCATE s, h; ROLLBACK;
\! redis EXISTS s:2 h
BEGIN; TRUNCATE s, h; INSERT INTO h VALUES ('new', '1'); COMMIT;
\! redis EXISTS s:2
\! redis HGETALL h
-- what Redis makes up is not known before COMMIT
INSERT INTO x VALUES ('*', 'f') RETURNING id;
INSERT INTO l (element) VALUES ('e') RETURNING element;
-- what is given is
INSERT INTO x VALUES ('1-1', 'f') RETURNING id;
INSERT INTO l (element) VALUES ('e'), ('f');
INSERT INTO l VALUES (1, 'f') RETURNING *;
CREATE FOREIGN TABLE plain (element text) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'plain', transactional 'on');
INSERT INTO plain VALUES ('a'), ('b') RETURNING element;
\! redis LRANGE plain 0 -1
UPDATE l SET element = 'F' WHERE index = 1;
\! redis LRANGE l 0 -1
BEGIN; INSERT INTO h VALUES ('prepared', '1'); PREPARE TRANSACTION 'p';
\! redis HEXISTS h prepared
-- a refusal fails the transaction
CREATE TABLE t (a int);
BEGIN;
INSERT INTO t VALUES (1);
INSERT INTO l VALUES (100, 'beyond');
COMMIT;
SELECT * FROM t;
BEGIN;
UPDATE l SET element = 'changed' WHERE index = 0;
\! redis LPOP l
COMMIT;
\! redis LRANGE l 0 -1
