-- Virtual generated columns, which PostgreSQL has since 18: no stored row holds them. The other expected file is that of
-- earlier versions.
SELECT current_setting('server_version_num')::int < 180000 AS old \gset
\if :old
\quit
\endif
CREATE TABLE areas (id int PRIMARY KEY, width int, height int, area int GENERATED ALWAYS AS (width * height),
    outline int GENERATED ALWAYS AS (2 * (width + height)) STORED);
ALTER SYSTEM SET pg_redis_cache.mappings = 'named:{id} => SELECT area FROM areas WITH (name = named); '
    'all:{id} => SELECT * FROM areas WITH (name = star); '
    'key:{area} => SELECT width FROM areas WITH (name = key); '
    'good:{id} => SELECT width, outline FROM areas WITH (name = good)';
\! reload
SELECT name, state, problem FROM redis_cache.mappings ORDER BY name;
INSERT INTO areas VALUES (1, 2, 3), (2, 4, 5);
SELECT area, outline FROM areas WHERE id = 1;
UPDATE areas SET width = 7 WHERE id = 2 RETURNING area, outline;
\! cached *:*
-- A column that becomes one, or is one no more.
ALTER TABLE areas DROP COLUMN area;
SELECT await_state('star', 'active');
SELECT id, outline FROM areas WHERE id = 2;
\! cached all:*
ALTER TABLE areas ADD COLUMN double int GENERATED ALWAYS AS (width * 2) VIRTUAL;
SELECT await_state('star', 'error');
UPDATE areas SET width = 8 WHERE id = 1 RETURNING *;
\! cached *:*
