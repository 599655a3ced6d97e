//! What the engines tell of their connections: shown in the view `connections`, and in the log what took long.
use std::fmt::Write;

use pg_redis_cache_core::redis::{ConnectionFigures, SlowPush};

use super::{Worker, on_its_way::timestamp};

impl Worker {
    /// Shows the connections of a destination beside those of the others.
    pub(super) fn show_connections(&mut self, at: usize, connections: Vec<ConnectionFigures>) {
        self.destinations[at].connections = connections;
        self.show_all_connections();
    }

    pub(super) fn show_all_connections(&mut self) {
        let named = self.destinations.iter().flat_map(|destination| {
            let name = destination.name.as_str();
            destination.connections.iter().map(move |figures| (name, figures))
        });
        let left_out = self.shared.set_connections(named, timestamp);
        if left_out > 0 && !std::mem::replace(&mut self.connections_left_out, true) {
            pgrx::log!("pg_redis_cache: the view connections has no room for {left_out} connections");
        }
    }

    /// Logs a batch that took long, as log_min_duration_statement does a statement.
    pub(super) fn log_slow_push(&self, push: &SlowPush) {
        let operations: usize = push.mappings.iter().map(|(_, count)| count).sum();
        let mut line = format!(
            "pg_redis_cache: duration: {:.3} ms  push: operations {operations}, bytes {}, {} of {}:",
            push.took.as_secs_f64() * 1e3,
            push.bytes,
            push.role,
            push.address
        );
        for (number, (mapping, count)) in push.mappings.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let name = self
                .written
                .get(mapping)
                .map(|written| written.definition.name.as_str());
            // Writing to a string does not fail.
            let _ = write!(line, "{comma} {} {count}", name.unwrap_or("(left the list)"));
        }
        pgrx::log!("{line}");
    }
}
