-- The views, and who may use what. Written by hand; an upgrade script repeats what it changes here.

CREATE VIEW redis_cache.mappings AS SELECT * FROM redis_cache.mapping_rows();
CREATE VIEW redis_cache.stats AS SELECT * FROM redis_cache.stat_rows();
CREATE VIEW redis_cache.purges AS SELECT * FROM redis_cache.purge_rows();
CREATE VIEW redis_cache.status AS SELECT * FROM redis_cache.status_row();
CREATE VIEW redis_cache.servers AS SELECT * FROM redis_cache.server_rows();
CREATE VIEW redis_cache.connections AS SELECT * FROM redis_cache.connection_rows();
CREATE VIEW redis_cache.progress AS SELECT * FROM redis_cache.progress_rows();

COMMENT ON VIEW redis_cache.mappings IS 'the mappings in force and whether they work';
COMMENT ON VIEW redis_cache.stats IS 'what has been done for each mapping';
COMMENT ON VIEW redis_cache.purges IS 'how often each mapping had to be purged, and why';
COMMENT ON VIEW redis_cache.status IS 'the worker, its connection to the Redis of the setting url, and its queue';
COMMENT ON VIEW redis_cache.servers IS 'each Redis that mappings have their keys on, or could have';
COMMENT ON VIEW redis_cache.connections IS 'the connections of the worker to Redis';
COMMENT ON VIEW redis_cache.progress IS 'what verify and warm are doing in each session that runs them';

-- What changes anything, or shows cached values, is for superusers until granted. What the views show is for
-- monitoring; anybody may wait.
GRANT USAGE ON SCHEMA redis_cache TO PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA redis_cache FROM PUBLIC;
GRANT EXECUTE ON FUNCTION redis_cache.wait(interval) TO PUBLIC;
GRANT SELECT ON redis_cache.mappings, redis_cache.stats, redis_cache.purges, redis_cache.status, redis_cache.servers, redis_cache.connections, redis_cache.progress TO pg_monitor;
GRANT EXECUTE ON FUNCTION
    redis_cache.mapping_rows(), redis_cache.stat_rows(), redis_cache.purge_rows(), redis_cache.status_row(), redis_cache.server_rows(), redis_cache.connection_rows(), redis_cache.progress_rows(),
    redis_cache.ping(text)
    TO pg_monitor;
