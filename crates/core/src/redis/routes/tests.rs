use std::time::Duration;

use ::redis::Value;

use super::*;
use crate::redis::batch::{Batch, Outcome};
use crate::redis::chart::View;
use crate::redis::chunk::{Chunk, Expiry, Target};
use crate::redis::engine::{Setup, new_instance};
use crate::redis::event::EventReader;
use crate::redis::{Address, event};

/// What the node with that id answers to CLUSTER NODES in a cluster of these, in the order of their ids, all of this
/// epoch.
pub(in crate::redis) fn nodes_of(teller: &str, epoch: u64, nodes: &[(&str, u16, &str)]) -> String {
    let lines = nodes.iter().map(|(id, port, slots)| {
        let flags = if *id == teller { "myself,master" } else { "master" };
        format!("{id} 127.0.0.1:{port}@1 {flags} - 0 0 {epoch} connected {slots}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is read out of that.
pub(in crate::redis) fn view_of(teller: &str, nodes: &[(&str, u16, &str)]) -> View {
    let nodes = nodes_of(teller, 1, nodes);
    View::read(&Value::Array(vec![]), &nodes, "127.0.0.1").unwrap()
}

/// A cluster of these nodes, in the order of their ids; all slots are the first one's of whom `slots` says so.
pub(in crate::redis) fn chart(nodes: &[(&str, u16, &str)]) -> Chart {
    Chart::of(&[view_of(nodes[0].0, nodes)]).unwrap()
}

/// What an engine of one lane begins with that is to write to a cluster, and where its events are read.
pub(in crate::redis) fn shared() -> (Shared, EventReader) {
    shared_at("redis-cluster://127.0.0.1:1")
}

/// The same for any address.
pub(in crate::redis) fn shared_at(address: &str) -> (Shared, EventReader) {
    let setup = Setup {
        lanes: 1,
        name: "test/1".to_owned(),
        label: String::new(),
        owner: "me".to_owned(),
        instance: new_instance(),
        hash_fields: |_, _| None,
        marker: None,
    };
    let settings = Settings {
        address: Address::parse(address).unwrap(),
        password: None,
        tls: None,
        connect_timeout: Duration::from_secs(60),
        command_timeout: Duration::from_secs(60),
    };
    let (events, reader) = event::channel(Box::new(|| {}));
    (Shared::new(setup, settings, events).unwrap(), reader)
}

fn error(text: &str) -> Value {
    ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap()
}

/// Sends a key to the first of three masters, which answers that its slot is on its way to `asked`; before it does,
/// `joins` is done. Returns how many commands go to each master then.
fn sent_after_ask(joins: impl FnOnce(&Shared), asked: u16) -> Vec<usize> {
    let (shared, _reader) = shared();
    shared
        .apply(&chart(&[
            ("b", 1, "0-16383"),
            ("d", 2, "[1->-x]"),
            ("f", 3, "[2->-d]"),
        ]))
        .unwrap();
    let mut chunk = Chunk::with_capacity(0, 0, 0);
    let target = Target {
        mapping: 0,
        hash: 0,
        key: b"k",
    };
    chunk.store_text(target, b"1", Expiry::Never, false);
    let pending = shared.ledger.enter(chunk);
    let mut batch = Batch::new(|_, _| None);
    let routes = shared.routes();
    batch.route_by(routes.table.as_ref());
    batch.push(&pending, 0);
    joins(&shared);
    let answers = [
        Some(vec![error(&format!("ASK {} 127.0.0.1:{asked}", slot(b"k")))]),
        Some(Vec::new()),
        Some(Vec::new()),
    ];
    let mut redirect = |said: Redirected<'_>| shared.redirected(&routes.masters[said.by], &said);
    assert_eq!(
        batch.judge(&answers, usize::MAX, &mut redirect),
        Outcome::Redirected
    );
    batch.parts().map(|(commands, _)| commands.len()).collect()
}

#[test]
fn who_is_asked_by_number_is_asked_with_that_number() {
    assert_eq!(sent_after_ask(|_| {}, 2), [0, 2, 0]);
}

#[test]
fn a_number_of_another_list_is_none_of_this_one() {
    // What joins is the last of four, or comes between two of the others.
    for id in ["a", "c", "g"] {
        let joins = |shared: &Shared| {
            let mut nodes = [
                ("b", 1, "0-16383"),
                ("d", 2, "[1->-x]"),
                ("f", 3, "[2->-d]"),
                (id, 4, "[3->-b]"),
            ];
            nodes.sort_unstable();
            shared.apply(&chart(&nodes)).unwrap();
        };
        for asked in [2, 3, 4] {
            assert_eq!(sent_after_ask(joins, asked), [1, 0, 0], "{id}, {asked}");
        }
    }
}
