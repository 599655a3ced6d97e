-- A mapping in error works as soon as what it lacks is there, and no longer when it is gone.
ALTER SYSTEM SET pg_redis_cache.mappings = 'item:{id} => SELECT name, price FROM shop.items';
\! reload
SELECT name, state, problem, value_columns FROM redis_cache.mappings;

CREATE SCHEMA shop;
CREATE TABLE shop.items (id int, name text);
INSERT INTO shop.items VALUES (1, 'cup');
SELECT await_state('items', 'error');
ALTER TABLE shop.items ALTER id SET NOT NULL;
CREATE UNIQUE INDEX items_id ON shop.items (id);
ALTER TABLE shop.items ADD price numeric(6,2) DEFAULT 3;
SELECT await_state('items', 'active');
SELECT problem FROM redis_cache.mappings;
SELECT name FROM shop.items WHERE id = 1;
UPDATE shop.items SET price = 4 WHERE id = 1;
\! cached

-- the column is renamed, and back
ALTER TABLE shop.items RENAME price TO cost;
SELECT await_state('items', 'error');
\! cached
UPDATE shop.items SET cost = 5;
\! cached
ALTER TABLE shop.items RENAME cost TO price;
SELECT await_state('items', 'active');
UPDATE shop.items SET price = 6;
\! cached

-- the table is replaced by another one of its name within one transaction
UPDATE shop.items SET price = 8;
\! cached
BEGIN;
ALTER TABLE shop.items RENAME TO items_old;
CREATE TABLE shop.items (id int PRIMARY KEY, name text, price numeric);
INSERT INTO shop.items VALUES (1, 'new cup', 1);
COMMIT;
\! reload
SELECT await_state('items', 'active');
\! cached
UPDATE shop.items_old SET price = 9;
UPDATE shop.items SET price = 2;
-- (whether the key survives depends on when the resolver sees the new table: then it purges once more)
SELECT redis_cache.wait();
SELECT coalesce(redis_cache.get('items', '1'), '{"name": "new cup", "price": "2"}') AS none_or_fresh;

-- the table goes, and comes again
DROP TABLE shop.items;
SELECT await_state('items', 'error');
\! cached
CREATE TABLE shop.items (price money, name text, id bigint PRIMARY KEY);
SELECT await_state('items', 'active');
INSERT INTO shop.items VALUES ('1', 'mug', 1);
UPDATE shop.items SET name = 'big mug';
\! cached

-- the mapping goes: nobody would keep its keys fresh
ALTER SYSTEM SET pg_redis_cache.mappings = '';
\! reload
\! cached
