-- What a mapping rests on is dropped or changed: it is purged, and looked at anew.
CREATE TABLE items (id int NOT NULL, name text, price int);
CREATE UNIQUE INDEX items_id ON items (id);
INSERT INTO items VALUES (1, 'cup', 1);
ALTER SYSTEM SET pg_redis_cache.mappings = 'item:{id} => SELECT name, price FROM items';
\! reload

-- NOT NULL goes
UPDATE items SET price = price + 1;
ALTER TABLE items ALTER id DROP NOT NULL;
SELECT await_state('items', 'error');
\! cached
ALTER TABLE items ALTER id SET NOT NULL;
SELECT await_state('items', 'active');

-- a type changes, and with it each row
UPDATE items SET price = price + 1;
ALTER TABLE items ALTER price TYPE numeric(8,2);
\! cached
SELECT name FROM items WHERE id = 1;
UPDATE items SET price = price + 1;
\! cached
SELECT note_activations('items');
ALTER TABLE items ALTER id TYPE text;
-- the mapping stays active, but the second look finds another kind of key, and purges again
SELECT await_activation('items');
UPDATE items SET price = price + 1;
\! cached

-- a value column goes
ALTER TABLE items DROP price;
SELECT await_state('items', 'error');
\! cached

-- rolled back, nothing is purged
ALTER SYSTEM SET pg_redis_cache.mappings = 'item:{id} => SELECT name FROM items';
\! reload
UPDATE items SET name = name || '!';
BEGIN;
ALTER TABLE items DROP name;
TRUNCATE items;
ROLLBACK;
\! cached
SELECT name, state, problem FROM redis_cache.mappings;

-- another schema
CREATE SCHEMA attic;
ALTER TABLE items SET SCHEMA attic;
SELECT await_state('items', 'error');
\! cached
ALTER TABLE attic.items SET SCHEMA public;
SELECT await_state('items', 'active');

-- a child makes of it what no mapping works on, until it is gone
CREATE TABLE child () INHERITS (items);
SELECT await_state('items', 'error');
DROP TABLE child;
SELECT await_state('items', 'active');
