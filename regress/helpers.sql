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
