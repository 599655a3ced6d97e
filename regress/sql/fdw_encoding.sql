-- Redis has texts in UTF-8, whatever the encoding of the database.
CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
\c latin
SET client_encoding = 'UTF8';
CREATE EXTENSION pg_redis_cache;
CREATE FOREIGN TABLE s (key text, value text) SERVER redis_cache OPTIONS (table_type 'string', table_key_prefix 's:*');
CREATE FOREIGN TABLE b (key text, value bytea) SERVER redis_cache OPTIONS (table_type 'string', table_key_prefix 's:*');
CREATE FOREIGN TABLE v (key text, value varchar(3)) SERVER redis_cache OPTIONS (table_type 'string', table_key_prefix 's:*');
INSERT INTO s VALUES ('s:é', 'ä ö ü');
INSERT INTO v VALUES ('s:v', 'äöü');
\! redis GET s:v
SELECT * FROM s ORDER BY key;
SELECT value FROM s WHERE key = 's:é';
SELECT value FROM b WHERE key LIKE 's:é%';
SELECT * FROM v WHERE key = 's:v';
UPDATE s SET value = upper(value) || 'ß' WHERE key = 's:é' RETURNING *;
DELETE FROM s WHERE key LIKE '%é' RETURNING key;
\! redis KEYS 's:*'
\! redis SET s:euro "20 €"
SELECT * FROM s WHERE key = 's:euro';
