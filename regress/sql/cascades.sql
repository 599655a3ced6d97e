-- What a foreign key does to other rows is seen like any other change.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE carts (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE, note text);
CREATE TABLE lines (cart_id int REFERENCES carts ON DELETE CASCADE ON UPDATE CASCADE, n int, PRIMARY KEY (cart_id, n));
CREATE TABLE posts (id int PRIMARY KEY, author int REFERENCES users ON DELETE SET NULL ON UPDATE SET NULL);
CREATE TABLE tasks (id int PRIMARY KEY, owner int DEFAULT 1 REFERENCES users ON DELETE SET DEFAULT ON UPDATE CASCADE);
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 4) n;
INSERT INTO carts SELECT n * 10, n, 'cart ' || n FROM generate_series(1, 4) n;
INSERT INTO lines SELECT n * 10, i FROM generate_series(1, 4) n, generate_series(1, 2) i;
INSERT INTO posts SELECT n * 100, n FROM generate_series(1, 4) n;
INSERT INTO tasks SELECT n, n FROM generate_series(1, 4) n;
ALTER SYSTEM SET pg_redis_cache.mappings =
    'user:{id} => SELECT name FROM users; '
    'cart:{id} => SELECT user_id, note FROM carts; '
    'line:{cart_id}:{n} => SELECT n FROM lines; '
    'post:{id} => SELECT id, author FROM posts; '
    'task:{id} => SELECT owner FROM tasks';
\! reload
UPDATE users SET name = name; UPDATE carts SET note = note; UPDATE lines SET n = n; UPDATE posts SET id = id;
UPDATE tasks SET id = id;

DELETE FROM users WHERE id = 2;
\! cached
UPDATE users SET id = 33 WHERE id = 3;
UPDATE carts SET id = 44 WHERE id = 40;
\! cached
BEGIN;
DELETE FROM users WHERE id = 4;
ROLLBACK;
WITH d AS (DELETE FROM users WHERE id = 4 RETURNING id) SELECT * FROM d;
\! cached
-- deferred to the commit
ALTER TABLE posts DROP CONSTRAINT posts_author_fkey,
    ADD FOREIGN KEY (author) REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
SELECT await_state('posts', 'active');
UPDATE posts SET author = 33 WHERE id > 100;
\! cached post:*
BEGIN;
DELETE FROM users WHERE id = 33;
SELECT count(*) FROM posts WHERE author = 33;
COMMIT;
\! cached
