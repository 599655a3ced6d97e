//! What a Redis that faults are done to has to offer, be it one server, one that sentinels watch, or a cluster.
//!
//! **When the version oracle is asked.** What one server shows as a master goes back at no time, and nothing that was
//! rolled back is ever shown: that is asked in every round, also while others die. Nor does anything go back from one
//! server to the next, as slots move or at any other time, but for one: replication acknowledges nothing, so a replica
//! that takes over may have less than its master has acknowledged, and a master that was cut off or frozen may be asked
//! until it knows that it is one no more. So with a fault that
//! [makes another server take over](Fault::fails_over) the comparison of *different* servers rests, from its beginning
//! until the worker has purged everything and all servers agree on who the masters are. From then on what any of them
//! has ever shown counts, also what the lost master showed. It rests likewise with one that
//! [gives slots away](Kind::Outdated) of a master that hangs, for that one shows what it has there until it is told.
//!
//! Servers that are started again are empty here. One that loads an old file serves it until it is purged, which nothing
//! can help (docs/ARCHITECTURE.md, "Not guaranteed").

use pg_redis_cache_tests::{Dice, Load, Redis, Shape, Trial, World};

/// What the oracles have to know of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same servers are there, with what they had.
    Same,
    /// The same servers are there; one of them may show what it had in slots that are another's.
    Outdated,
    /// Another server takes the place of one, and all is purged (rule 8).
    FailsOver,
}

/// What is done to the servers; when it returns, it is over.
pub struct Fault<D> {
    pub name: &'static str,
    pub inflict: fn(&mut D, &mut Dice),
    pub kind: Kind,
}

// A derived one would ask it of D.
impl<D> Clone for Fault<D> {
    fn clone(&self) -> Self {
        Fault { ..*self }
    }
}

/// A fault after which the same servers are there.
pub fn fault<D>(name: &'static str, inflict: fn(&mut D, &mut Dice)) -> Fault<D> {
    Fault {
        name,
        inflict,
        kind: Kind::Same,
    }
}

/// A fault after which the same servers are there, and one of them has to be told what it has lost.
pub fn outdating<D>(name: &'static str, inflict: fn(&mut D, &mut Dice)) -> Fault<D> {
    Fault {
        kind: Kind::Outdated,
        ..fault(name, inflict)
    }
}

/// A fault that makes another server take over.
pub fn failover<D>(name: &'static str, inflict: fn(&mut D, &mut Dice)) -> Fault<D> {
    Fault {
        kind: Kind::FailsOver,
        ..fault(name, inflict)
    }
}

/// PostgreSQL and its Redis.
pub trait Deployment {
    /// What can be done to it: first those faults that a short run should begin with, then the others.
    fn faults() -> [Vec<Fault<Self>>; 2]
    where
        Self: Sized;

    fn world(&self) -> &World;

    fn world_mut(&mut self) -> &mut World;

    /// What the load is like.
    fn shape(&self) -> Shape {
        Trial::shape()
    }

    /// Every server that there is, replicas as well.
    fn servers(&self) -> Vec<&Redis> {
        self.masters()
    }

    /// The servers that are masters. All have to answer.
    fn masters(&self) -> Vec<&Redis>;

    /// Has all servers run and everybody agree on who is what, whatever the last fault has left.
    fn restore(&mut self) {}

    /// Compares all keys with their rows. The load is over.
    fn assert_rows(&self) {
        Load::assert_all_rows(self.world());
    }
}
