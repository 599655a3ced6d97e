-- Row-level security that comes later stops a mapping too, unless it says allow_rls.
CREATE TABLE items (id int NOT NULL, name text, price int);
CREATE UNIQUE INDEX items_id ON items (id);
INSERT INTO items VALUES (1, 'cup', 1);
ALTER SYSTEM SET pg_redis_cache.mappings = 'item:{id} => SELECT name, price FROM items';
\! reload

UPDATE items SET price = price + 1;
ALTER TABLE items ENABLE ROW LEVEL SECURITY;
SELECT await_state('items', 'error');
\! cached
ALTER TABLE items DISABLE ROW LEVEL SECURITY;
SELECT await_state('items', 'active');
