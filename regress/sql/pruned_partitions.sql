-- Partitions that are pruned when a prepared statement starts: one is left, or none.
CREATE TABLE stock (shop int, item int, amount int, PRIMARY KEY (shop, item)) PARTITION BY LIST (shop);
CREATE TABLE stock_1 PARTITION OF stock FOR VALUES IN (1);
CREATE TABLE stock_2 (amount int, gone int, item int NOT NULL, shop int NOT NULL);
ALTER TABLE stock_2 DROP COLUMN gone;
ALTER TABLE stock ATTACH PARTITION stock_2 FOR VALUES IN (2);
CREATE TABLE stock_3 PARTITION OF stock FOR VALUES IN (3);
INSERT INTO stock SELECT n % 3 + 1, n, n FROM generate_series(1, 9) n;
ALTER SYSTEM SET pg_redis_cache.mappings = 'stock:{shop}:{item} => SELECT amount FROM stock';
\! reload
UPDATE stock SET amount = amount;
\! cached
SET plan_cache_mode = force_generic_plan;
PREPARE amount (int, int) AS UPDATE stock SET amount = amount + 100 WHERE shop = $1 AND item = $2;
EXECUTE amount (2, 1);
EXECUTE amount (3, 2);
EXECUTE amount (4, 2);
\! cached
PREPARE move (int, int) AS UPDATE stock SET shop = $2, item = item + 10 WHERE shop = $1;
EXECUTE move (3, 2);
EXECUTE move (3, 1);
EXECUTE move (4, 1);
\! cached
PREPARE gone (int) AS DELETE FROM stock WHERE shop = $1;
EXECUTE gone (1);
EXECUTE gone (1);
EXECUTE gone (4);
\! cached
PREPARE returned (int) AS DELETE FROM stock WHERE shop = $1 AND item < 10 RETURNING item;
EXECUTE returned (3);
EXECUTE returned (2);
\! cached
SELECT * FROM stock ORDER BY 1, 2;
SELECT name, reason, count FROM redis_cache.purges WHERE reason <> 'activated';
