-- A list as a table: its elements, with or without their index.
SELECT make_redis_server();
CREATE FOREIGN TABLE task_queue (element text) SERVER redis_server
    OPTIONS (database '0', table_type 'list', table_key_prefix 'tasks:pending');
CREATE FOREIGN TABLE tasks (index bigint, element text) SERVER redis_server
    OPTIONS (table_type 'list', table_key_prefix 'tasks:pending');
INSERT INTO task_queue VALUES ('Process invoice #123');
INSERT INTO task_queue SELECT 'task ' || i FROM generate_series(1, 9) i;
SELECT * FROM task_queue;
SELECT * FROM task_queue WHERE element LIKE '%3';
-- by index
SELECT * FROM tasks WHERE index = 2;
SELECT * FROM tasks WHERE index IN (0, 9, 10);
SELECT * FROM tasks WHERE index >= 8;
SELECT * FROM tasks WHERE index < 2 AND index > -5;
SELECT count(*) FROM tasks WHERE index = -1;
EXPLAIN (COSTS OFF) SELECT * FROM tasks WHERE index BETWEEN 2 AND 4;
EXPLAIN (COSTS OFF) SELECT * FROM task_queue WHERE element = 'task 1';
-- elements are changed where they are
UPDATE task_queue SET element = upper(element) WHERE element IN ('task 2', 'task 4');
UPDATE tasks SET element = 'first' WHERE index = 0 RETURNING *;
DELETE FROM task_queue WHERE element IN ('task 1', 'task 3', 'task 9') RETURNING element;
SELECT * FROM tasks;
-- equal elements are rows of their own
INSERT INTO task_queue VALUES ('same'), ('same'), ('same');
DELETE FROM tasks WHERE element = 'same' AND index = 8;
UPDATE tasks SET element = 'other' WHERE element = 'same' AND index = 7;
SELECT * FROM tasks WHERE index > 5;
-- INSERT by index sets, at the end or without one appends, beyond it fails
INSERT INTO tasks VALUES (0, 'FIRST'), (NULL, 'last'), (10, 'behind it') RETURNING *;
SELECT * FROM tasks WHERE index = 0 OR index > 7;
INSERT INTO tasks VALUES (0, 'not written'), (100, 'too far');
INSERT INTO tasks VALUES (-1, 'negative');
SELECT element FROM tasks WHERE index = 0;
UPDATE tasks SET index = index + 1;
UPDATE tasks SET index = index, element = 'unmoved' WHERE index = 0 RETURNING *;
INSERT INTO task_queue VALUES (NULL);
INSERT INTO task_queue SELECT element FROM task_queue WHERE element ~ '^task';
SELECT count(*) FROM task_queue;
DELETE FROM task_queue;
\! redis EXISTS tasks:pending
-- a list that another client changes meanwhile is not touched
INSERT INTO task_queue SELECT i::text FROM generate_series(1, 5) i;
CREATE FUNCTION pop(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM redis('LPOP', 'tasks:pending'); RETURN true; END $$;
DELETE FROM task_queue WHERE element = '3' AND pop(element);
\! redis LRANGE tasks:pending 0 -1
TRUNCATE task_queue;

-- in bulk, and duplicates
INSERT INTO task_queue SELECT (i % 10)::text FROM generate_series(0, 9999) i;
SELECT count(*), count(DISTINCT index), max(index) FROM tasks;
DELETE FROM tasks WHERE index % 10 = 3;
UPDATE tasks SET element = element || '!' WHERE element = '4';
SELECT element, count(*) FROM tasks GROUP BY 1 ORDER BY 1;
TRUNCATE tasks;

-- the keys of a pattern
CREATE FOREIGN TABLE queues (key text, index int, element int) SERVER redis_server OPTIONS (table_type 'list', table_key_prefix 'queue:*');
INSERT INTO queues (key, element) SELECT 'queue:' || i % 3, i FROM generate_series(0, 8) i;
SELECT * FROM queues ORDER BY key, index;
SELECT * FROM queues WHERE key = 'queue:1' AND index = 1;
DELETE FROM queues WHERE element = 4 OR index = 0;
UPDATE queues SET element = element * 10 WHERE key = 'queue:1';
UPDATE queues SET key = 'queue:7' WHERE key = 'queue:1';
SELECT * FROM queues ORDER BY key, index;
TRUNCATE queues;
\! redis KEYS '*'
