-- Views that can be updated, INSTEAD OF triggers and rules: what reaches the table counts.
CREATE TABLE users (id int PRIMARY KEY, name text, secret text);
CREATE TABLE log (id int, name text);
INSERT INTO users SELECT n, 'user ' || n, 's' FROM generate_series(1, 8) n;
CREATE VIEW names AS SELECT id AS number, name AS label FROM users WHERE id < 7 WITH CHECK OPTION;
CREATE VIEW names2 AS SELECT * FROM names WHERE number > 1;
CREATE VIEW barrier WITH (security_barrier) AS SELECT id, name FROM users WHERE secret = 's';
CREATE VIEW upper_names AS SELECT id, upper(name) AS name FROM users;
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name FROM users WITH (insert = set)';
ALTER SYSTEM SET pg_redis_cache.refill_interval = 0;
\! reload

UPDATE names SET label = 'by view' WHERE number = 1;
UPDATE names2 SET label = 'by view of view' WHERE number <= 2;
INSERT INTO names VALUES (0, 'inserted by view');
DELETE FROM names2 WHERE number = 3;
UPDATE barrier SET name = 'behind a barrier' WHERE id = 4 RETURNING *;
INSERT INTO names VALUES (100, 'refused');
INSERT INTO names VALUES (2, 'x') ON CONFLICT (number) DO UPDATE SET label = 'upsert by view';
\! cached

CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE users SET name = NEW.name WHERE id = OLD.id; RETURN NEW; END $$;
CREATE TRIGGER put INSTEAD OF UPDATE ON upper_names FOR EACH ROW EXECUTE FUNCTION put();
UPDATE upper_names SET name = name || ' instead' WHERE id IN (5, 6);
\! cached user:[56]

-- rules: ALSO on a mapped table, INSTEAD to a mapped table, DO NOTHING
CREATE RULE also AS ON UPDATE TO users DO ALSO INSERT INTO log VALUES (NEW.id, NEW.name);
UPDATE users SET name = 'with a rule' WHERE id = 7;
SELECT * FROM log;
DROP RULE also ON users;
CREATE RULE instead AS ON INSERT TO log DO INSTEAD UPDATE users SET name = NEW.name WHERE id = NEW.id;
INSERT INTO log VALUES (7, 'by the rule of another table');
CREATE RULE two AS ON DELETE TO log DO ALSO (UPDATE users SET name = 'second' WHERE id = 8; DELETE FROM users WHERE id = OLD.id);
DELETE FROM log;
CREATE RULE nothing AS ON DELETE TO users DO INSTEAD NOTHING;
DELETE FROM users WHERE id = 1;
CREATE RULE nothing_conditional AS ON UPDATE TO users WHERE NEW.name = 'no' DO INSTEAD NOTHING;
UPDATE users SET name = CASE id WHEN 1 THEN 'no' ELSE 'yes' END WHERE id <= 2;
SELECT id, name FROM users ORDER BY id;
\! cached

-- reads through views fill
SELECT redis_cache.invalidate_all('users') > 0 AS purged;
SELECT label FROM names2 WHERE number = 2;
SELECT name FROM barrier WHERE id = 4;
SELECT name FROM upper_names WHERE id = 5;
\! cached
