-- Neither the url's password nor what the password file holds is ever shown.
CREATE TABLE users (id int PRIMARY KEY, name text);
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users';
ALTER SYSTEM SET pg_redis_cache.command_timeout = '500ms';
ALTER SYSTEM SET pg_redis_cache.connect_timeout = '500ms';
-- Refused by a Redis that nobody listens on.
ALTER SYSTEM SET pg_redis_cache.url = 'redis://app:hunter2@127.0.0.1:1/3';
\! reload -n
SHOW pg_redis_cache.url;
SELECT current_setting('pg_redis_cache.url');
SELECT setting ~ 'hunter2' AS setting, boot_val ~ 'hunter2' AS boot_val, reset_val ~ 'hunter2' AS reset_val
    FROM pg_settings WHERE name = 'pg_redis_cache.url';
SELECT url FROM redis_cache.status;
SELECT await_state('users', 'active');
SELECT redis_cache.get('users', '1');
SELECT redis_cache.ttl('users', '1');
SELECT coalesce(last_error, '') ~ 'hunter2' AS last_error FROM redis_cache.status;

-- A url that is none is not refused: the server would log it, password and all.
ALTER SYSTEM SET pg_redis_cache.url = 'rediss//app:hunter2@127.0.0.1';
\! reload -n
SHOW pg_redis_cache.url;
SELECT url FROM redis_cache.status;
SELECT redis_cache.get('users', '1');

-- Nor does a password file's trouble show more than its name.
ALTER SYSTEM SET pg_redis_cache.url = 'redis://app@127.0.0.1:1/3';
ALTER SYSTEM SET pg_redis_cache.password_file = '/nowhere/password';
\! reload -n
SELECT redis_cache.get('users', '1');

-- Others than superusers do not even see where Redis is.
CREATE ROLE anybody;
SET ROLE anybody;
SHOW pg_redis_cache.url;
SHOW pg_redis_cache.password_file;
SELECT current_setting('pg_redis_cache.url');
SELECT name FROM pg_settings WHERE name IN ('pg_redis_cache.url', 'pg_redis_cache.password_file') AND setting <> '';
RESET ROLE;
DROP ROLE anybody;
