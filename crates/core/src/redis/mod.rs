//! The asynchronous half of the worker: writes what the rules let through into Redis.
//!
//! An [`Engine`] is one thread with a tokio current-thread runtime on it. The worker's main thread
//! hands it [`Request`]s and gets [`Event`]s back; nothing here knows PostgreSQL, logs, or panics by
//! design. Inside, `pool_size` lanes each keep one connection of a `deadpool` pool checked out,
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
//! decided before it was sent. Sentinel and Cluster are refused when met.
//!
//! Looking up a host name makes tokio start a short-lived thread. It inherits the signal mask of the
//! engine's thread, which inherits that of the caller of [`Engine::start`]: block all signals there.

mod address;
mod backoff;
mod batch;
mod chunk;
mod client_name;
mod control;
mod dial;
mod engine;
mod episode;
mod event;
mod fault;
mod lane;
mod ledger;
mod line;
mod noting;
mod purge;
mod reply;
mod shared;
mod tls;

pub use address::{Address, AddressError, Place, Secret};
pub use chunk::{Chunk, Expiry, HashFields, Target, Ticket};
pub use client_name::client_name;
pub use engine::{Engine, EngineError, EngineHandle, Matcher, Note, PurgeJob, Request, Settings, Setup};
pub use episode::Episode;
pub use event::{Counts, Event, LossReason, PoolState, Server, Waker};
pub use fault::{Cause, Fault, Kind, first_words};
#[cfg(fuzzing)]
pub use line::read_answers;
pub use tls::{Pem, Session, Tls, TlsError, TlsSettings, Verify, unanswered};
