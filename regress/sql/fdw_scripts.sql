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
