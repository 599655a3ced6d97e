-- Without its unique index two rows could share a key: the mapping stops, and goes on with another index.
CREATE TABLE items (id int NOT NULL, name text, price int);
CREATE UNIQUE INDEX items_id ON items (id);
INSERT INTO items VALUES (1, 'cup', 1);
ALTER SYSTEM SET pg_redis_cache.mappings = 'item:{id} => SELECT name, price FROM items';
\! reload

UPDATE items SET price = price + 1;
\! cached
DROP INDEX items_id;
SELECT await_state('items', 'error');
\! cached
ALTER TABLE items ADD CONSTRAINT items_key PRIMARY KEY (id);
SELECT await_state('items', 'active');
UPDATE items SET price = price + 1;
\! cached
ALTER TABLE items DROP CONSTRAINT items_key;
SELECT await_state('items', 'error');
\! cached
ALTER TABLE items ADD CONSTRAINT items_key UNIQUE (id);
SELECT await_state('items', 'active');
