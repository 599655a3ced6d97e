-- The view connections: a row for each connection of the worker, and who may see it.
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'redis_cache' AND table_name = 'connections' ORDER BY ordinal_position;
CREATE TABLE users (id int PRIMARY KEY, name text);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (insert = set)';
\! reload
INSERT INTO users SELECT i, 'ada' FROM generate_series(1, 100) i;
SELECT redis_cache.wait();

-- figures are shown within a second
CREATE FUNCTION await(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE is_so bool;
BEGIN
    FOR i IN 1..2000 LOOP
        EXECUTE 'SELECT ' || condition || ' FROM redis_cache.connections' INTO is_so;
        IF is_so THEN RETURN 'so it is'; END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN 'in vain';
END $$;
SELECT await($$ bool_and(state = 'connected') AND sum(sent) FILTER (WHERE role <> 'control') >= 100 $$);
SELECT server, role, address = (SELECT url FROM redis_cache.status) AS address, state,
    client_id > 0 AS client_id, connected_since < clock_timestamp() AS connected_since,
    in_flight >= 0 AS in_flight, sent > 0 AS sent, errors,
    average_time > '0' AS average_time, maximum_time >= average_time AS maximum_time
FROM redis_cache.connections;

-- lanes that have nothing to do
ALTER SYSTEM SET pg_redis_cache.pool_idle_timeout = '10ms';
SELECT pg_reload_conf();
SELECT await($$ count(*) FILTER (WHERE state = 'idle') = 4 $$);
SELECT role, state, client_id IS NULL AS client_id, connected_since IS NULL AS connected_since, in_flight, errors
FROM redis_cache.connections WHERE role <> 'control';
SELECT connected, pool_size, pool_idle, pool_waiting, last_error FROM redis_cache.status;
UPDATE users SET name = 'bob' WHERE id < 3;
\! cached 'user:[12]'

-- for monitoring, not for everybody
CREATE ROLE watcher; GRANT pg_monitor TO watcher; CREATE ROLE somebody;
SET ROLE watcher;
SELECT count(*) FROM redis_cache.connections;
SET ROLE somebody;
SELECT count(*) FROM redis_cache.connections;
SELECT count(*) FROM redis_cache.connection_rows();
RESET ROLE;
DROP ROLE watcher; DROP ROLE somebody;
