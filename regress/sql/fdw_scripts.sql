-- A script for redis_fdw_rs runs as it is, with the schema of the two functions in the search_path.
SET search_path = public, redis_cache;
CREATE FOREIGN DATA WRAPPER redis_wrapper HANDLER redis_fdw_handler VALIDATOR redis_fdw_validator;
DO $$ BEGIN
    EXECUTE format('CREATE SERVER redis_server FOREIGN DATA WRAPPER redis_wrapper OPTIONS (host_port %L, pool_max_size ''128'',
        pool_min_idle ''16'', pool_connection_timeout_ms ''10000'', pool_max_lifetime_secs ''3600'', pool_idle_timeout_secs ''300'')',
        '127.0.0.1:' || current_setting('test.redis_port'));
END $$;
RESET search_path;
-- one table of each type over one key, and what is done with it first
CREATE FOREIGN TABLE profiles (key text, value text) SERVER redis_server OPTIONS (database '0', table_type 'hash', table_key_prefix 'user:profiles');
INSERT INTO profiles VALUES ('name', 'John Doe'), ('email', 'john@example.com');
SELECT * FROM profiles WHERE key = 'email';
SELECT * FROM profiles WHERE key IN ('name', 'email', 'phone') ORDER BY key;
CREATE FOREIGN TABLE queue (element text) SERVER redis_server OPTIONS (database '0', table_type 'list', table_key_prefix 'tasks:pending');
INSERT INTO queue VALUES ('Process invoice #123');
SELECT * FROM queue;
CREATE FOREIGN TABLE setting (value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'config:app_name');
INSERT INTO setting VALUES ('MyApp');
UPDATE setting SET value = 'NewName';
SELECT * FROM setting;
CREATE FOREIGN TABLE colours (member text) SERVER redis_server OPTIONS (table_type 'set', table_key_prefix 'tags');
INSERT INTO colours VALUES ('red'), ('green'), ('blue');
UPDATE colours SET member = 'yellow' WHERE member = 'red';
SELECT EXISTS (SELECT 1 FROM colours WHERE member = 'yellow') AS yellow, EXISTS (SELECT 1 FROM colours WHERE member = 'red') AS red;
CREATE FOREIGN TABLE board (member text, score float8) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'leaderboard');
INSERT INTO board VALUES ('player1', 100.5), ('player2', 95.0);
UPDATE board SET score = '200' WHERE member = 'player2';
SELECT * FROM board ORDER BY score DESC;
CREATE FOREIGN TABLE events (stream_id text, event_type text, event_data text) SERVER redis_server OPTIONS (table_type 'stream', table_key_prefix 'events');
INSERT INTO events VALUES ('*', 'user_login', '{"user":"123"}');
SELECT event_type, event_data FROM events WHERE stream_id >= '1640995200000-0';
UPDATE events SET event_type = 'x';
-- times to live
CREATE FOREIGN TABLE item (value text, ttl bigint) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'cache:item', ttl '3600');
INSERT INTO item VALUES ('short-lived', 60);
UPDATE item SET value = 'permanent', ttl = -1;
SELECT * FROM item;
-- many keys: the key comes first, the columns of a zset in either order
CREATE FOREIGN TABLE scores (key text, score numeric, member text) SERVER redis_server OPTIONS (table_type 'zset', table_key_prefix 'scores:*');
INSERT INTO scores VALUES ('scores:1', 150, 'alice'), ('scores:2', 310, 'alice'), ('scores:2', 280, 'bob');
SELECT * FROM scores WHERE key = 'scores:2' AND score > 300;
CREATE FOREIGN TABLE every_user (key text, value text) SERVER redis_server OPTIONS (table_type 'string', table_key_prefix 'user:*');
INSERT INTO every_user VALUES ('user:2', 'bob'), ('user:3', 'charlie');
DELETE FROM every_user WHERE key = 'user:2';
SELECT * FROM every_user;
-- bulk loads and joins
INSERT INTO profiles (key, value) SELECT i, 'value_' || i FROM generate_series(1, 100000) i;
SELECT * FROM profiles WHERE key IN ('10', '15', '20') ORDER BY key;
SELECT count(*), min(key), max(key) FROM profiles WHERE key LIKE '555%';
CREATE TEMPORARY TABLE vip (id text PRIMARY KEY);
INSERT INTO vip SELECT i FROM generate_series(1, 200) i;
SELECT count(*), max(p.value) FROM vip JOIN profiles p ON vip.id = p.key;
COPY colours FROM stdin WITH (FORMAT csv);
"one, two"
three
\.
SELECT count(*) FROM colours;
IMPORT FOREIGN SCHEMA "scores:*" FROM SERVER redis_server INTO public;
IMPORT FOREIGN SCHEMA "leader*" FROM SERVER redis_server INTO public;
SELECT * FROM leaderboard ORDER BY member;
TRUNCATE profiles; TRUNCATE scores;
\! redis EXISTS user:profiles scores:1 scores:2
-- what else its examples do: a wrapper without a validator, a log with many columns, newest first and counted by kind
SET search_path = public, redis_cache;
CREATE FOREIGN DATA WRAPPER bare_wrapper HANDLER redis_fdw_handler;
RESET search_path;
DO $$ BEGIN
    EXECUTE format('CREATE SERVER bare_server FOREIGN DATA WRAPPER bare_wrapper OPTIONS (host_port %L)',
        '127.0.0.1:' || current_setting('test.redis_port'));
END $$;
CREATE FOREIGN TABLE application_events (stream_id text, event_type text, user_id text, action text, metadata text)
    SERVER bare_server OPTIONS (database '0', table_type 'stream', table_key_prefix 'app:log');
INSERT INTO application_events VALUES
    ('*', 'user_login', '123', 'authenticate', '{"ip":"10.1.1.1"}'),
    ('*', 'page_view', '123', 'view_dashboard', '{"page":"/dashboard"}'),
    ('*', 'page_view', '123', 'view_report', '{"page":"/report"}');
INSERT INTO application_events VALUES ('*', 'user_logout', '123', 'logout', '{"duration":"45m"}');
SELECT event_type, action FROM application_events ORDER BY stream_id DESC LIMIT 100;
SELECT action, metadata FROM application_events WHERE event_type = 'page_view' ORDER BY stream_id DESC;
SELECT event_type, count(*) AS event_count FROM application_events WHERE stream_id >= '1640995200000-0'
    GROUP BY event_type ORDER BY event_count DESC, event_type;
SELECT count(*) FROM (SELECT * FROM application_events LIMIT 1000) x;
-- a string that is found by its value, and used in an expression
CREATE FOREIGN TABLE app_config (value text) SERVER bare_server OPTIONS (table_type 'string', table_key_prefix 'config:database_url');
INSERT INTO app_config VALUES ('db://old');
DELETE FROM app_config WHERE value = 'db://old';
INSERT INTO app_config VALUES ('db://new');
SELECT 'Database URL: ' || value AS setting FROM app_config;
-- a row with fewer values than there are columns has the table's time to live
CREATE FOREIGN TABLE cache_ttl (key text, value text, ttl bigint) SERVER bare_server OPTIONS (table_type 'string', table_key_prefix 'ttlcache:*', ttl '300');
INSERT INTO cache_ttl VALUES ('ttlcache:hot', 'soon gone', 30);
INSERT INTO cache_ttl VALUES ('ttlcache:warm', 'as usual');
INSERT INTO cache_ttl VALUES ('ttlcache:permanent', 'for ever', -1);
SELECT key, value, CASE WHEN ttl > 30 THEN '> 30' WHEN ttl > 0 THEN '> 0' ELSE ttl::text END AS ttl FROM cache_ttl
    WHERE key IN ('ttlcache:hot', 'ttlcache:warm', 'ttlcache:permanent') ORDER BY key;
-- a hash's field beside a condition that Redis does not know, and in a join with a name that is put together
CREATE FOREIGN TABLE redis_hash (field text, value text) SERVER bare_server OPTIONS (table_type 'hash', table_key_prefix 'user:1');
INSERT INTO redis_hash VALUES ('name', 'John'), ('age', '30'), ('email:1', 'john@example.com'), ('user_x', 'x');
SELECT value FROM redis_hash WHERE field = 'name' AND value LIKE '%oh%';
SELECT * FROM redis_hash WHERE field LIKE 'user_%';
CREATE TABLE people (id int, name text);
INSERT INTO people VALUES (1, 'John'), (2, 'Jane');
SELECT p.name, h.value AS email FROM people p JOIN redis_hash h ON h.field = 'email:' || p.id;
SELECT EXISTS (SELECT 1 FROM colours WHERE member = 'admin') AS admin;
-- sets and sorted sets of a pattern of keys, by key
CREATE FOREIGN TABLE post_tags (key text, member text) SERVER bare_server OPTIONS (table_type 'set', table_key_prefix 'tag:*');
INSERT INTO post_tags VALUES ('tag:post:1', 'rust'), ('tag:post:2', 'docker');
INSERT INTO post_tags VALUES ('tag:post:2', 'redis');
SELECT * FROM post_tags WHERE key IN ('tag:post:2', 'tag:post:3') ORDER BY member;
CREATE FOREIGN TABLE game_scores (key text, member text, score numeric) SERVER bare_server OPTIONS (table_type 'zset', table_key_prefix 'game:*');
INSERT INTO game_scores VALUES ('game:round1', 'alice', 150), ('game:round1', 'bob', 230), ('game:round2', 'alice', 310);
SELECT * FROM game_scores WHERE key IN ('game:round1', 'game:round2') AND score >= 200 ORDER BY score;
-- from a file
CREATE TEMPORARY TABLE staging AS SELECT 'evt:' || i AS field, format('{"type":"click","page":"/p/%s"}', i % 50) AS value FROM generate_series(1, 10000) i;
DO $$ DECLARE file text := current_setting('data_directory') || '/events.csv'; BEGIN
    EXECUTE format('COPY staging TO %L WITH (FORMAT csv)', file);
    EXECUTE format('COPY redis_hash FROM %L WITH (FORMAT csv)', file);
END $$;
SELECT count(*) FROM redis_hash WHERE value LIKE '%click%';
SELECT * FROM redis_hash WHERE field = 'evt:5000';
