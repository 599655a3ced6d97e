-- Every setting: its unit, its bounds, who may change it and when; and what a bad value gets.
SELECT substr(name, 16) AS name, context, vartype, unit, min_val, max_val, boot_val
FROM pg_settings WHERE name LIKE 'pg\_redis\_cache.%' ORDER BY name COLLATE "C";

-- a number out of bounds, no number, a wrong unit
ALTER SYSTEM SET pg_redis_cache.queue_size = '1kB';
ALTER SYSTEM SET pg_redis_cache.queue_size = 'much';
ALTER SYSTEM SET pg_redis_cache.queue_size = '1s';
ALTER SYSTEM SET pg_redis_cache.hash_slots = 0;
ALTER SYSTEM SET pg_redis_cache.max_mappings = 0;
ALTER SYSTEM SET pg_redis_cache.max_mappings = 100000;
ALTER SYSTEM SET pg_redis_cache.transaction_buffer = '-1MB';
ALTER SYSTEM SET pg_redis_cache.pool_size = 0;
ALTER SYSTEM SET pg_redis_cache.connect_timeout = 0;
ALTER SYSTEM SET pg_redis_cache.connect_timeout = '1MB';
ALTER SYSTEM SET pg_redis_cache.command_timeout = '2 days';
ALTER SYSTEM SET pg_redis_cache.refill_interval = -1;
ALTER SYSTEM SET pg_redis_cache.shutdown_timeout = 'soon';
ALTER SYSTEM SET pg_redis_cache.pool_idle_timeout = -1;
ALTER SYSTEM SET pg_redis_cache.pool_max_lifetime = '1MB';
ALTER SYSTEM SET pg_redis_cache.reconnect_backoff_max = '10ms';
ALTER SYSTEM SET pg_redis_cache.log_min_push_duration = -2;
ALTER SYSTEM SET pg_redis_cache.enabled = 'perhaps';
SET pg_redis_cache.fill = 2;
SET pg_redis_cache.synchronous = '';
SET pg_redis_cache.synchronous_timeout = '0s';
SET pg_redis_cache.synchronous_timeout = NULL;

-- what a session may not change
SET pg_redis_cache.mappings = '';
SET pg_redis_cache.database = 'other';
SET pg_redis_cache.enabled = off;
SET pg_redis_cache.url = 'redis://127.0.0.1:1/0';
SET pg_redis_cache.password_file = '/nowhere';
SET pg_redis_cache.queue_size = '64MB';
SET pg_redis_cache.pool_max_lifetime = '1h';
-- and what it may
SET pg_redis_cache.fill = off;
SET pg_redis_cache.synchronous = on;
SET pg_redis_cache.synchronous_timeout = '250ms';
SHOW pg_redis_cache.fill;
SHOW pg_redis_cache.synchronous;
SHOW pg_redis_cache.synchronous_timeout;

-- no setting by a mistyped name
SET pg_redis_cache.refil = off;
ALTER SYSTEM SET pg_redis_cache.maping = '';
\set VERBOSITY sqlstate
SET pg_redis_cache.refil = off;
SET pg_redis_cache.fill = 2;
SET pg_redis_cache.mappings = '';
ALTER SYSTEM SET pg_redis_cache.pool_size = 0;
