-- A mapping of a database that is not there says so; the others work, and it does too once the database is there.
-- Once it is gone again, or renamed, its keys are.
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'here');
ALTER SYSTEM SET pg_redis_cache.mappings =
    'here:{id} => SELECT body FROM notes; '
    'later:{id} => SELECT body FROM notes WITH (name = later, database = later)';
SELECT pg_reload_conf();
\c
SELECT split_part(await_state('later', 'error'), ':', 1) AS later, await_state('notes', 'active') AS notes;
UPDATE notes SET body = body || '!';
CREATE DATABASE later;
\c later
CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes VALUES (1, 'there');
\c regression
SELECT await_state('later', 'active') AS later;
\c later
UPDATE notes SET body = body || '?';
\! cached
\c regression
ALTER DATABASE later RENAME TO much_later;
\! cached
SELECT split_part(await_state('later', 'error'), ':', 1) AS later;
ALTER DATABASE much_later RENAME TO later;
SELECT await_state('later', 'active') AS later;
\c later
UPDATE notes SET body = body || '!';
\! cached
\c regression
DROP DATABASE later;
\! cached
SELECT split_part(await_state('later', 'error'), ':', 1) AS later;
