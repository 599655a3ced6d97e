-- Keys: what a template makes of the key columns, and that one key belongs to one row.
CREATE TABLE pairs (a text, b text, v text, PRIMARY KEY (a, b));
CREATE TABLE odd ("Id" int PRIMARY KEY, "a {b}" text NOT NULL UNIQUE, "select" text);
CREATE TABLE uuids (id uuid PRIMARY KEY, v int);
CREATE TABLE flags (on_off bool, kind "char", v int, PRIMARY KEY (on_off, kind));
CREATE TABLE amounts (n numeric PRIMARY KEY, f float8 NOT NULL UNIQUE, v int);
CREATE TABLE texts (t varchar(20) PRIMARY KEY, c char(5) NOT NULL UNIQUE, n name NOT NULL UNIQUE, v int);
CREATE TABLE times (t timestamptz PRIMARY KEY, d date NOT NULL UNIQUE, b bytea NOT NULL UNIQUE, v int);
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."T""x" (id smallint PRIMARY KEY, v int);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'pair:{a}:{b} => SELECT v FROM pairs; '
    'far:{a}::{b}! => SELECT v FROM pairs WITH (name = far); '
    'odd:{"Id"} => SELECT "a {b}", "select" FROM odd; '
    '''o {{"a"}}; => ''''{"a {b}"}'''''' => SELECT "select" FROM odd WITH (name = "the odd"); '
    'uuid:{id} => SELECT v FROM uuids; '
    'flag:{on_off}/{kind} => SELECT v FROM flags; '
    'n:{n} => SELECT v FROM amounts WITH (name = n); f:{f} => SELECT v FROM amounts WITH (name = f); '
    't:{t} => SELECT v FROM texts WITH (name = t); c:{c}. => SELECT v FROM texts WITH (name = c); '
    'name:{n} => SELECT v FROM texts WITH (name = name); '
    'at:{t} => SELECT v FROM times WITH (name = at); d:{d} => SELECT v FROM times WITH (name = d); '
    'b:{b} => SELECT v FROM times WITH (name = b); '
    'quoted:{id} => SELECT v FROM "Odd Schema"."T""x" WITH (name = quoted)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload
SELECT name, relation, key_template, key_columns, state, problem FROM redis_cache.mappings;

INSERT INTO odd VALUES (1, 'x y', 'one'), (2, 'ä"\''', 'two');
UPDATE odd SET "select" = "select" || '!';
\! cached o*
SELECT redis_cache.get('the odd', 'x y');
INSERT INTO uuids VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1);
SELECT v FROM uuids WHERE id = '{a0eebc999c0b4ef8bb6d6bb9bd380a11}';
INSERT INTO flags VALUES (true, 'x', 1), (false, '', 2), (true, '/', 3);
UPDATE flags SET v = v * 10;
INSERT INTO amounts VALUES (1.50, 1.5, 1), ('NaN', '-0', 2), (1e20, 1e20, 3), (-0.000001, 1e-7, 4), (0.10, 'Infinity', 5);
UPDATE amounts SET v = v;
INSERT INTO texts VALUES ('a', 'a', 'a', 1), ('b ', 'b ', 'b ', 2), ('', '', '', 3), ('Ünïcödé', 'ü', 'ü', 4),
    (E'line\nbreak', E'\t', E'\n', 5);
UPDATE texts SET v = v;
SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET bytea_output = 'escape'; SET extra_float_digits = -5;
INSERT INTO times VALUES ('2024-02-29 12:00 UTC', '2024-02-29', '\x00ff', 1), ('0044-03-15 BC', '0044-03-15 BC', '', 2),
    ('infinity', '-infinity', 'a', 3), ('2024-01-01 00:00:00.123456+00', 'epoch', 'b', 4);
UPDATE times SET v = v;
UPDATE amounts SET v = v * 10;
SELECT v FROM times WHERE t = 'infinity';
RESET TimeZone; RESET DateStyle; RESET bytea_output; RESET extra_float_digits;
UPDATE times SET v = v * 10;
INSERT INTO "Odd Schema"."T""x" VALUES (-5, 1);
UPDATE "Odd Schema"."T""x" SET v = 2;
\! cached [^o]*
SELECT redis_cache.get('n', '1.500') AS other_scale, redis_cache.get('f', '1.50')->>'v' AS float,
    redis_cache.get('at', '2024-02-29 21:00+09')->>'v' AS at;
SELECT redis_cache.get('uuids', '{a0eebc999c0b4ef8bb6d6bb9bd380a11}')->>'v' AS uuid,
    redis_cache.get('flags', 'yes', 'x')->>'v' AS flag, redis_cache.get('c', 'a ')->>'v' AS padded;

-- A key that does not parse back into its own row's values is nobody's: not cached by either row, and deleted.
INSERT INTO pairs VALUES ('a', 'b', 'plain'), ('a:b', 'c', 'left'), ('a', 'b:c', 'right'), ('', '', 'empty'), ('x:', 'y', 'colon');
SELECT v FROM pairs WHERE a = 'a' AND b = 'b:c';
\! cached pair:*
UPDATE pairs SET v = v || '!';
\! cached pair:*
\! cached far:*
UPDATE pairs SET a = 'a:b', b = 'd' WHERE a = 'a' AND b = 'b';
\! cached pair:*
UPDATE pairs SET a = 'a', b = 'b' WHERE a = 'a:b' AND b = 'd';
DELETE FROM pairs WHERE b = 'c';
\! cached pair:*
-- The same numeric in another scale is the same row with another text.
UPDATE amounts SET n = 1.500 WHERE n = 1.5;
\! cached n:1.5*
