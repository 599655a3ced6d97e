//! Keeps Redis in step with PostgreSQL tables.
::pgrx::pg_module_magic!(name, version);
