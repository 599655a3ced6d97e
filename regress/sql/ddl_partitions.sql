-- Rows that come or leave with a whole partition.
CREATE TABLE events (id int, region text, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE events_jp PARTITION OF events FOR VALUES IN ('jp');
CREATE TABLE events_us PARTITION OF events FOR VALUES IN ('us');
INSERT INTO events VALUES (1, 'jp', 'one'), (1, 'us', 'one');
ALTER SYSTEM SET pg_redis_cache.mappings = 'event:{region}:{id} => SELECT body FROM events';
\! reload
UPDATE events SET body = 'two';
\! cached
ALTER TABLE events DETACH PARTITION events_jp;
\! cached event:jp:*
UPDATE events_jp SET body = 'apart';
\! cached event:jp:*
ALTER TABLE events ATTACH PARTITION events_jp FOR VALUES IN ('jp');
SELECT await_state('events', 'active');
UPDATE events SET body = body || ' and back';
\! cached
ALTER TABLE events DETACH PARTITION events_us CONCURRENTLY;
\! cached event:us:*
UPDATE events_us SET body = 'apart';
\! cached event:us:*
