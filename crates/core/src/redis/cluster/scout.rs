//! Finding a cluster while there is a connection to none of its masters.
//!
//! The nodes that are known, and those of the address, are asked one after the other until one knows the cluster. Nothing
//! is concluded here from what it says.

use std::rc::Rc;

use super::super::address::{Address, Place};
use super::super::chart::View;
use super::super::control::not_connected;
use super::super::engine::Settings;
use super::super::fault::{Cause, Fault};
use super::super::gauge::Gauge;
use super::super::line::{Line, Topology};
use super::super::pool::pool;
use super::super::shared::Shared;
use super::ClusterControl;

impl ClusterControl<'_> {
    /// Asks the nodes that are known, one after the other, until one knows the cluster.
    pub(super) fn scout(&mut self) {
        if !self.scouting.is_empty() {
            return;
        }
        let (shared, wait) = (
            self.shared.clone(),
            self.scouts.next(self.shared.tuning().backoff_max),
        );
        self.scouting.spawn_local(async move {
            tokio::time::sleep(wait).await;
            let settings = shared.settings();
            let routes = shared.routes();
            let known = routes
                .masters
                .iter()
                .map(|master| master.settings.address.clone());
            let nodes: Vec<Address> = known
                .chain(settings.address.cluster().unwrap_or_default())
                .collect();
            let (mut last, mut place) = (not_connected(), settings.address.masked());
            for address in nodes {
                place = address.masked();
                let there = Settings {
                    address,
                    ..(*settings).clone()
                };
                match ask(&shared, &there).await {
                    Ok(view) if view.has_slots() => return Ok(view),
                    // It has left the cluster, so it does not know where that is.
                    Ok(_) => last = no_slots(),
                    Err(cause) => last = cause,
                }
            }
            shared.tell_trouble(Fault {
                cause: last.clone(),
                address: place,
            });
            Err(last)
        });
    }
}

/// What a node knows, over a connection for this one question.
async fn ask(shared: &Shared, there: &Settings) -> Result<View, Cause> {
    let pool = pool(there, there.address.place(), 1)?;
    let name = shared.client_name("control");
    let gauge = Rc::new(Gauge::new("control", there.address.masked()));
    let mut line = Line::open(&pool, there, &name, Topology::AnyNode, &gauge).await?;
    let host = match there.address.place() {
        Place::Tcp { host, .. } => host,
        _ => "",
    };
    let view = line.view(host).await;
    line.close();
    view
}

fn no_slots() -> Cause {
    Cause::Protocol {
        expected: "a node that knows of the cluster's slots",
    }
}
