-- DDL that changes the text of stored values, or what a name means, without touching the table: all is purged.
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TYPE place AS (street text, number int);
CREATE TABLE people (id int PRIMARY KEY, mood mood, home place);
INSERT INTO people VALUES (1, 'glad', ('High Street', 1));
ALTER SYSTEM SET pg_redis_cache.mappings = 'person:{id} => SELECT mood, home FROM people';
\! reload

UPDATE people SET mood = 'sad';
\! cached
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
\! cached
UPDATE people SET mood = mood;
\! cached
ALTER TYPE place ADD ATTRIBUTE town text;
\! cached
UPDATE people SET mood = mood;
\! cached
ALTER TYPE place RENAME ATTRIBUTE town TO city;
\! cached
BEGIN;
ALTER TYPE mood RENAME VALUE 'blue' TO 'grey';
ROLLBACK;
UPDATE people SET mood = mood;
\! cached
ALTER SCHEMA public RENAME TO elsewhere;
\! cached
ALTER SCHEMA elsewhere RENAME TO public;

-- A table is a type, too: its columns are in the text of a mapped column of that type.
CREATE TABLE homes (street text);
CREATE TABLE plots (id int PRIMARY KEY, homes homes[]);
CREATE TABLE others (id int PRIMARY KEY, body text, span tstzrange);
CREATE TYPE estate AS (number int, homes homes);
CREATE TABLE estates (id int PRIMARY KEY, estate estate);
INSERT INTO plots VALUES (1, ARRAY[ROW('High Street')::homes]);
INSERT INTO others VALUES (1, 'stays', '[2024-01-01+00,2025-01-01+00)');
INSERT INTO estates VALUES (1, ROW(1, ROW('High Street')));
ALTER SYSTEM SET pg_redis_cache.mappings =
    'plot:{id} => SELECT homes FROM plots; other:{id} => SELECT body, span FROM others; '
    'estate:{id} => SELECT estate FROM estates';
\! reload
UPDATE plots SET id = id;
UPDATE others SET id = id;
UPDATE estates SET id = id;
\! cached
ALTER TABLE homes ADD number int;
\! cached
UPDATE plots SET id = id;
\! cached
ALTER TABLE homes DROP street;
\! cached
-- Other tables are not, whatever they are.
UPDATE plots SET id = id;
UPDATE estates SET id = id;
BEGIN;
CREATE TEMP TABLE scratch (street text) ON COMMIT DROP;
ALTER TABLE scratch ADD number int;
UPDATE others SET body = 'stays, too';
COMMIT;
CREATE TABLE unrelated (street text);
ALTER TABLE unrelated RENAME street TO road;
DROP TABLE unrelated;
\! cached
