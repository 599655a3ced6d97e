//! Starts throw-away PostgreSQL and Redis servers for the tests.
