//! The asynchronous half of the worker: writes what the rules let through into Redis.
//!
//! An [`Engine`] is one thread with a tokio current-thread runtime on it. The worker's main thread
//! hands it [`Request`]s and gets [`Event`]s back; nothing here knows PostgreSQL, logs, or panics by
//! design. Inside, `pool_size` lanes each keep one connection (one to each master of a cluster) of a `deadpool-redis` pool checked out,
//! with one pipeline in flight while the next one gathers (rule 5), and a control connection watches
//! the server, answers pings and purges (rule 7).
//!
//! What holds:
//!
//! - The operations of a key go to Redis in the order in which they were sent to the engine, and a key
//!   never goes back, also when connections are lost in between (see `lane`).
//! - Chunks are acknowledged in the order in which they were sent, each after all its operations have
//!   been answered by Redis, or been declared lost by an earlier [`Event::Lost`].
//! - Another server behind the address is announced ([`Event::Connected`] with `changed`) before
//!   anything that it answered is acknowledged, and before anything is written there the marker that an
//!   earlier life may have left is gone (rule 8).
//! - No text that leaves this module contains a password, a key or a value.
//!
//! What does not: nothing here bounds the memory of what is queued; the sender does, by what has not
//! been acknowledged. Nothing here tests whether a fill is still valid (rules 3 and 4): that was
//! decided before it was sent. A server that is part of a cluster is refused unless the address is a cluster's (see
//! `cluster`); of a service that sentinels watch the engine writes to whoever these say is the master (see `sentinel`).
//!
//! Looking up a host name makes tokio start a short-lived thread. It inherits the signal mask of the
//! engine's thread, which inherits that of the caller of [`Engine::start`]: block all signals there.

mod address;
mod backlog;
mod backoff;
mod batch;
mod chart;
mod chunk;
mod client_name;
mod cluster;
mod control;
mod diagnosis;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod doorman;
mod engine;
mod episode;
mod event;
mod fault;
mod gauge;
mod lane;
mod ledger;
mod line;
mod master;
mod openings;
mod part;
mod pool;
mod purge;
mod queue;
mod reply;
mod routes;
mod sentinel;
mod shared;
pub mod slots;
mod sweep;
mod table;
mod timer;
mod tls;
mod tuning;

pub use address::{Address, AddressError, HostPort, Place, Secret, Service};
pub use chunk::{Chunk, Expiry, HashFields, Target, Ticket};
pub use client_name::client_name;
pub use engine::{
    Engine, EngineError, EngineHandle, Matcher, Note, PurgeJob, Request, Settings, Setup, new_instance,
};
pub use episode::Episode;
pub use event::{Counts, Event, LossReason, PoolState, Server, SlowPush, Waker};
pub use fault::{Cause, Fault, Kind, first_words};
pub use gauge::{ConnectionFigures, ConnectionState};
#[cfg(fuzzing)]
pub use line::read_answers;
pub use sentinel::{Inquiry, master_in, question, wants_credentials};
pub use tls::{Pem, Session, Tls, TlsError, TlsSettings, Verify, unanswered};
pub use tuning::Tuning;
