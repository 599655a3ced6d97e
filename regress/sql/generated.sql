-- Generated columns and defaults, as values and as keys.
CREATE TABLE parcels (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    w int, h int,
    area int GENERATED ALWAYS AS (w * h) STORED,
    code text GENERATED ALWAYS AS ('P' || w || 'x' || h) STORED NOT NULL UNIQUE
);
INSERT INTO parcels (w, h) VALUES (1, 2), (3, 4);
ALTER SYSTEM SET pg_redis_cache.mappings =
    'parcel:{id} => SELECT w, h, area FROM parcels; '
    'code:{code} => SELECT * FROM parcels WITH (name = codes, insert = set)';
\! reload
SELECT name, state, problem, value_columns FROM redis_cache.mappings;
UPDATE parcels SET w = w;
\! cached
UPDATE parcels SET w = 10 WHERE id = 1;
UPDATE parcels SET h = DEFAULT WHERE id = 2;
UPDATE parcels SET h = 9 WHERE id = 2 RETURNING area, code;
INSERT INTO parcels (w, h) VALUES (7, 7);
\! cached
INSERT INTO parcels (w, h) VALUES (7, 7) ON CONFLICT (code) DO UPDATE SET h = 8;
SELECT id, area, code FROM parcels ORDER BY id;
\! cached code:*
DELETE FROM parcels WHERE id = 1;
\! cached code:*
