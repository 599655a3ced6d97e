-- A mapping may belong to another database than pg_redis_cache.database; that too is looked at.
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'here');
CREATE DATABASE other;
CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
\c other
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'there');
\c ascii
CREATE TABLE notes (id int PRIMARY KEY, body text);
\c regression
ALTER SYSTEM SET pg_redis_cache.mappings =
    'here:{id} => SELECT body FROM notes; '
    'there:{id} => SELECT body FROM notes WITH (name = there, database = other); '
    'ascii:{id} => SELECT body FROM notes WITH (name = ascii, database = ascii)';
\! reload
SELECT name, database, state, problem, value_columns FROM redis_cache.mappings;
UPDATE notes SET body = body || '!';
\c other
UPDATE notes SET body = body || '?';
\c regression
\! cached
\c other
DROP TABLE notes;
\c regression
SELECT await_state('there', 'error');
\! cached
