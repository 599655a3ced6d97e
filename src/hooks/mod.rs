//! The hooks: each one chains, calls one helper before and one after, and nothing else.
//!
//! A hook function is not guarded and holds no value with a `Drop` while the previous hook runs: an ERROR
//! raised there passes through it untouched (see [`crate::compat`]). There is therefore no "finally";
//! whatever must be undone after an ERROR is undone in the abort callbacks or by the query's memory context.
mod executor;
mod planner;
mod utility;

/// Puts every hook in place. Called once, while the postmaster preloads libraries.
pub fn init() {
    planner::init();
    executor::init();
    utility::init();
}
