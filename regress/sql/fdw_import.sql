-- IMPORT FOREIGN SCHEMA mappings: one table for each mapping of the database, with the types of the real table.
CREATE SCHEMA app; CREATE SCHEMA "Odd Schema";
CREATE TYPE "Odd Schema"."Mood" AS ENUM ('good', 'bad');
CREATE DOMAIN app.email AS varchar(50) CHECK (value LIKE '%@%');
CREATE COLLATION app.own FROM "C";
CREATE TABLE app.users (id bigint PRIMARY KEY, name varchar(20) COLLATE "C", mail app.email, mood "Odd Schema"."Mood", moods "Odd Schema"."Mood"[],
    price numeric(8,2) NOT NULL, seen timestamp(3) with time zone, bits bit(3), "Last Name" text COLLATE app.own, address point);
CREATE TABLE app.sessions (token uuid, host inet, payload jsonb, PRIMARY KEY (token, host));
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT * FROM app.users; u:{id} => SELECT "Last Name", id, mood FROM app.users WITH (name = "Some Users", format = json); '
    'sess:{host}/{token} => SELECT payload FROM app.sessions WITH (format = string); gone:{id} => SELECT x FROM app.gone; '
    'far:{id} => SELECT x FROM app.far WITH (database = elsewhere)';
\! reload
SELECT name, state FROM redis_cache.mappings ORDER BY name;
CREATE SCHEMA cached;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached;
\d cached.*
-- what is there already, LIMIT TO, EXCEPT
IMPORT FOREIGN SCHEMA mappings LIMIT TO (users) FROM SERVER redis_cache INTO cached;
CREATE SCHEMA part;
IMPORT FOREIGN SCHEMA mappings LIMIT TO (users, sessions, far, nobody) FROM SERVER redis_cache INTO part;
IMPORT FOREIGN SCHEMA mappings EXCEPT (users, sessions, gone) FROM SERVER redis_cache INTO part;
SELECT relname FROM pg_class WHERE relnamespace = 'part'::regnamespace ORDER BY 1;
IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO part OPTIONS (ttl 'true');
-- the search_path does not matter, and the tables can be used
SET search_path = pg_catalog;
DROP SCHEMA part CASCADE;
CREATE SCHEMA part;
IMPORT FOREIGN SCHEMA mappings EXCEPT (gone) FROM SERVER redis_cache INTO part;
SELECT count(*) FROM part."Some Users";
RESET search_path;
-- while caching is off
ALTER SYSTEM SET pg_redis_cache.enabled = off;
\! reload -n
DROP SCHEMA part CASCADE;
CREATE SCHEMA part;
IMPORT FOREIGN SCHEMA mappings LIMIT TO (users) FROM SERVER redis_cache INTO part;
