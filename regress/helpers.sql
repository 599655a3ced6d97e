-- What every topic may use; run in its database before it. Nothing of the extension is called here.

-- One Redis command on the topic's own server, its answer line by line as redis-cli prints it. For
-- isolation specs, where there is no psql. It writes to a table: call it outside the transactions under test.
CREATE TABLE redis_answer (line text);
CREATE FUNCTION redis(VARIADIC command text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM redis_answer;
    EXECUTE format('COPY redis_answer FROM PROGRAM %L (FORMAT text, DELIMITER E''\x01'')',
        'redis-cli -p ' || current_setting('test.redis_port') || ' --no-raw '
        || (SELECT string_agg('''' || replace(word, '''', '''\''''') || '''', ' ') FROM unnest(command) word)
        || ' | sed ''s/\\/\\\\/g''');
    RETURN QUERY SELECT line FROM redis_answer;
END $$;

-- Waits until a mapping is in a state and its purge is done, and returns the state with its problem; gives up
-- after 20 s.
CREATE FUNCTION await_state(mapping text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    seen record;
BEGIN
    FOR attempt IN 1 .. 400 LOOP
        SELECT state, problem INTO seen FROM redis_cache.mappings WHERE name = mapping;
        EXIT WHEN seen.state = wanted;
        PERFORM pg_sleep(0.05);
    END LOOP;
    PERFORM redis_cache.wait('20s');
    RETURN concat_ws(': ', seen.state, seen.problem);
END $$;

-- An active mapping whose table gets other kinds of keys stays active, but the second look purges it again: before the
-- DDL `await_activation` has to know how often that has been.
CREATE FUNCTION activations(mapping text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT coalesce(sum(count), 0) FROM redis_cache.purges WHERE name = mapping AND reason = 'activated');
END $$;
CREATE FUNCTION note_activations(mapping text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('test.activations', activations(mapping)::text, false);
END $$;

-- Waits until a mapping has been activated once more and its purge is done; gives up after 20 s.
CREATE FUNCTION await_activation(mapping text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    FOR attempt IN 1 .. 400 LOOP
        IF activations(mapping) > current_setting('test.activations')::bigint THEN
            RETURN await_state(mapping, 'active');
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RETURN 'it has not been activated again';
END $$;

-- For isolation specs over a table acc (id int, v int), mapped as acc:{id}.

-- Makes the tables of a spec, for its first permutation.
CREATE FUNCTION make(statements text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('acc') IS NULL THEN EXECUTE statements; END IF;
END $$;

-- So that each permutation begins with nothing cached.
CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM redis_cache.wait();
    PERFORM redis_cache.invalidate_all('acc');
END $$;

-- Waits, and returns every row with what is cached of it. A key without a row has no v.
CREATE FUNCTION look() RETURNS TABLE (id int, v int, cached text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM redis_cache.wait();
    RETURN QUERY SELECT coalesce(a.id, k.id) AS id, a.v, redis_cache.get('acc', coalesce(a.id, k.id)::text)->>'v'
        FROM acc a FULL JOIN (SELECT substr(key, 5)::int AS id FROM redis('--raw', 'KEYS', 'acc:*') key
            WHERE key <> '') k ON k.id = a.id ORDER BY 1;
END $$;

-- A wrapper and a server as users of redis_fdw_rs write them, to the topic's own Redis.
CREATE FUNCTION make_redis_server() RETURNS void LANGUAGE plpgsql SET search_path = public, redis_cache AS $$
BEGIN
    CREATE FOREIGN DATA WRAPPER redis_wrapper HANDLER redis_fdw_handler VALIDATOR redis_fdw_validator;
    EXECUTE format('CREATE SERVER redis_server FOREIGN DATA WRAPPER redis_wrapper OPTIONS (host_port %L)',
        '127.0.0.1:' || current_setting('test.redis_port'));
END $$;
