-- What only the catalog can tell puts one mapping into state error, with the reason; the others work.
CREATE SCHEMA app;
CREATE TABLE good (id int PRIMARY KEY, name text);
CREATE TABLE no_key (id int NOT NULL, name text);
CREATE TABLE nullable (id int UNIQUE, name text);
CREATE TABLE partial (id int NOT NULL, name text);
CREATE UNIQUE INDEX ON partial (id) WHERE name IS NOT NULL;
CREATE TABLE on_expression (id int NOT NULL, name text);
CREATE UNIQUE INDEX ON on_expression ((id + 0));
CREATE TABLE too_wide (id int NOT NULL, kind int NOT NULL, name text, UNIQUE (id, kind));
CREATE TABLE too_narrow (id int PRIMARY KEY, kind int NOT NULL, name text);
CREATE TABLE deferred (id int NOT NULL UNIQUE DEFERRABLE, name text);
CREATE TABLE invalid (id int NOT NULL, name text);
INSERT INTO invalid VALUES (1, 'one'), (1, 'another');
CREATE UNIQUE INDEX CONCURRENTLY invalid_id ON invalid (id);
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE parts (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE VIEW goods AS SELECT * FROM good;
CREATE MATERIALIZED VIEW goods_then AS SELECT * FROM good;
CREATE SEQUENCE counter;
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE remote (id int NOT NULL, name text) SERVER nowhere;
CREATE TABLE half_remote (id int NOT NULL, name text) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE half_remote_low PARTITION OF half_remote FOR VALUES FROM (0) TO (10) SERVER nowhere;
CREATE TABLE reg (id int PRIMARY KEY, class regclass, acl aclitem[]);
CREATE TYPE pair AS (class regclass, name text);
CREATE DOMAIN class AS regclass;
CREATE TABLE regs (id int PRIMARY KEY, pairs pair[], class class);
CREATE TABLE secured (id int PRIMARY KEY, name text);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE TABLE wide (id int PRIMARY KEY, name text);
CREATE TABLE included (id int NOT NULL, name text);
CREATE UNIQUE INDEX ON included (id) INCLUDE (name);
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE parts_method (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE parts_method_low PARTITION OF parts_method FOR VALUES FROM (0) TO (10) USING heap2;
CREATE TABLE other_method (id int PRIMARY KEY, name text) USING heap2;

ALTER SYSTEM SET pg_redis_cache.mappings =
    'good:{id} => SELECT name FROM good; '
    'included:{id} => SELECT name FROM included; '
    'parts:{id} => SELECT name FROM parts; '
    'secured_on:{id} => SELECT name FROM secured WITH (name = secured_on, allow_rls = on); '
    'absent:{id} => SELECT name FROM absent; '
    'app:{id} => SELECT name FROM app.absent WITH (name = app); '
    'no_column:{id} => SELECT nam FROM good WITH (name = no_column); '
    'no_key_column:{ident} => SELECT name FROM good WITH (name = no_key_column); '
    'system:{id} => SELECT ctid FROM good WITH (name = system); '
    'no_key:{id} => SELECT name FROM no_key; '
    'nullable:{id} => SELECT name FROM nullable; '
    'partial:{id} => SELECT name FROM partial; '
    'on_expression:{id} => SELECT name FROM on_expression; '
    'too_wide:{id} => SELECT name FROM too_wide; '
    'too_narrow:{id}:{kind} => SELECT name FROM too_narrow; '
    'deferred:{id} => SELECT name FROM deferred; '
    'invalid:{id} => SELECT name FROM invalid; '
    'parent:{id} => SELECT name FROM parent; '
    'child:{id} => SELECT name FROM child; '
    'parts_low:{id} => SELECT name FROM parts_low; '
    'goods:{id} => SELECT name FROM goods; '
    'goods_then:{id} => SELECT name FROM goods_then; '
    'counter:{last_value} => SELECT * FROM counter; '
    'remote:{id} => SELECT name FROM remote; '
    'half_remote:{id} => SELECT name FROM half_remote; '
    'reg:{id} => SELECT class FROM reg; '
    'reg_acl:{id} => SELECT acl FROM reg WITH (name = reg_acl); '
    'regs:{id} => SELECT pairs FROM regs; '
    'regs_class:{id} => SELECT class FROM regs WITH (name = regs_class); '
    'secured:{id} => SELECT name FROM secured; '
    'wide:{id} => SELECT * FROM wide WITH (format = string); '
    'other_method:{id} => SELECT name FROM other_method; '
    'parts_method:{id} => SELECT name FROM parts_method';
\! reload
SELECT name, state, problem FROM redis_cache.mappings ORDER BY state, name COLLATE "C";

-- Those in error are neither filled nor written; the others are.
INSERT INTO good VALUES (1, 'one');
INSERT INTO nullable VALUES (1, 'one');
INSERT INTO too_wide VALUES (1, 1, 'one');
UPDATE good SET name = 'ein';
UPDATE nullable SET name = 'ein';
SELECT name FROM too_wide WHERE id = 1;
\! cached

-- Without the statistics' counters nobody could tell whether every change was seen.
ALTER SYSTEM SET track_counts = off;
ALTER SYSTEM SET pg_redis_cache.mappings = 'good:{id} => SELECT id, name FROM good';
\! reload
SELECT name, state, problem FROM redis_cache.mappings;
