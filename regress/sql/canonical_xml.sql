-- XML has one text, whatever the session's settings. The other expected file is that of a server without libxml.
SELECT setting !~ 'with-libxml' AS none FROM pg_config WHERE name = 'CONFIGURE' \gset
\if :none
\quit
\endif
CREATE TABLE pages (id int PRIMARY KEY, x xml, xs xml[]);
ALTER SYSTEM SET pg_redis_cache.mappings = 'h:{id} => SELECT x, xs FROM pages WITH (name = h, insert = set); '
    'j:{id} => SELECT x, xs FROM pages WITH (name = j, format = json, insert = set)';
\! reload
INSERT INTO pages VALUES (1, '<a>b</a>', ARRAY['<c/>'::xml]), (2, '', '{}'), (3, NULL, NULL);
SET xmloption = 'content';
INSERT INTO pages VALUES (4, 'b <i>c</i>', NULL);
SET xmloption = 'document';
SET xmlbinary = 'hex';
UPDATE pages SET x = xmlconcat(x, '<d/>') WHERE id = 1;
\! cached ?:*
