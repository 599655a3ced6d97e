-- Triggers that change the row, its key, suppress the change, or change the row once more.
CREATE TABLE users (id int PRIMARY KEY, name text, revision int NOT NULL DEFAULT 0);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 6) n;
CREATE FUNCTION before_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RETURN CASE WHEN OLD.name = 'keep' THEN NULL ELSE OLD END;
    END IF;
    IF NEW.name = 'suppress' THEN RETURN NULL; END IF;
    IF NEW.name = 'rekey' THEN NEW.id := NEW.id + 100; END IF;
    NEW.revision := NEW.revision + 1;
    NEW.name := lower(NEW.name);
    RETURN NEW;
END $$;
CREATE TRIGGER before_change BEFORE INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION before_change();
ALTER SYSTEM SET pg_redis_cache.mappings = 'user:{id} => SELECT name, revision FROM users WITH (insert = set)';
\! reload

UPDATE users SET name = upper(name) WHERE id <= 3;
INSERT INTO users VALUES (7, 'SEVEN'), (8, 'suppress'), (9, 'rekey');
\! cached
UPDATE users SET name = 'suppress' WHERE id IN (1, 2);
UPDATE users SET name = 'rekey' WHERE id IN (2, 3);
UPDATE users SET name = 'keep' WHERE id = 1;
DELETE FROM users WHERE id IN (1, 7);
DELETE FROM users WHERE id IN (1, 109) RETURNING *;
\! cached
INSERT INTO users VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET name = 'KEPT';
INSERT INTO users VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET name = 'rekey';
SELECT id, name, revision FROM users WHERE id IN (1, 101) ORDER BY id;
\! cached *1
DROP TRIGGER before_change ON users;

-- AFTER ROW, changing the same row, another row, deleting it
CREATE FUNCTION after_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'once more' THEN
        UPDATE users SET name = 'changed by the trigger', revision = revision + 10 WHERE id = NEW.id;
    ELSIF NEW.name = 'the next' THEN
        UPDATE users SET name = 'was next' WHERE id = NEW.id + 1;
    ELSIF NEW.name = 'delete' THEN
        DELETE FROM users WHERE id = NEW.id;
    ELSIF NEW.name = 'insert' THEN
        INSERT INTO users VALUES (NEW.id + 1000, 'inserted');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER after_change AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION after_change();
SELECT redis_cache.wait();
UPDATE users SET name = 'once more' WHERE id = 4;
UPDATE users SET name = 'the next' WHERE id = 5;
\! cached user:?
UPDATE users SET name = 'delete' WHERE id = 4;
UPDATE users SET name = 'once more' WHERE id = 5 RETURNING name;
INSERT INTO users VALUES (10, 'once more'), (11, 'delete'), (12, 'insert');
\! cached
-- deferred
DROP TRIGGER after_change ON users;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION after_change();
SELECT redis_cache.wait();
BEGIN;
UPDATE users SET name = 'once more' WHERE id = 6;
SELECT name FROM users WHERE id = 6;
COMMIT;
\! cached user:6
DROP TRIGGER at_commit ON users;
-- AFTER STATEMENT with a transition table
CREATE FUNCTION after_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN UPDATE users u SET revision = -1 FROM changed c WHERE c.id = u.id; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER after_all AFTER UPDATE ON users REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION after_all();
SELECT redis_cache.wait();
UPDATE users SET name = 'counted' WHERE id IN (5, 6);
\! cached user:[56]
