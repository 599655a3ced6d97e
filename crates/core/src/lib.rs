//! Everything in pg_redis_cache that needs no PostgreSQL: it is tested, fuzzed and modelled as plain Rust.
//!
//! The rooms, in the order in which a change passes through them:
//! [`config`] says which rows belong to which keys, [`encode`] turns a row into key and value,
//! [`ring`] carries committed operations to the worker, [`coherence`] decides what may still be
//! applied, and [`redis`] writes it through. [`fdw`] makes rows of what is in Redis.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod coherence;
pub mod config;
pub mod encode;
pub mod fdw;
pub mod redis;
pub mod ring;
