-- The library is preloaded, the extension is created, and the topic has a Redis of its own.
SHOW shared_preload_libraries;
SELECT extname, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname ~ 'redis';
\! redis SET greeting 'a "quoted" word'
SELECT 'between two looks at Redis' AS "order of output";
\! redis GET greeting
SELECT * FROM redis('GET', 'greeting');
\! redis DEL greeting
