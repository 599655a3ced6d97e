-- The foreign data wrapper. The functions have the names that scripts written for redis_fdw_rs use.

CREATE FUNCTION redis_cache.redis_fdw_handler() RETURNS fdw_handler
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'redis_fdw_handler';
CREATE FUNCTION redis_cache.redis_fdw_validator(text[], oid) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'redis_fdw_validator';
CREATE FOREIGN DATA WRAPPER redis_cache_fdw
    HANDLER redis_cache.redis_fdw_handler VALIDATOR redis_cache.redis_fdw_validator;
CREATE SERVER redis_cache FOREIGN DATA WRAPPER redis_cache_fdw;

COMMENT ON FOREIGN DATA WRAPPER redis_cache_fdw IS 'Redis as tables';
COMMENT ON SERVER redis_cache IS 'the Redis of pg_redis_cache.url';
