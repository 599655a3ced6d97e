use super::*;

const A: &str = "aaaa";
const B: &str = "bbbb";
const C: &str = "cccc";

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// CLUSTER SLOTS as far as names go: each id with its host and port.
fn slots(nodes: &[(&str, Option<&str>, i64)]) -> Value {
    let rows = nodes.iter().map(|(id, host, port)| {
        let host = host.map_or(Value::Nil, bulk);
        let node = Value::Array(vec![host, Value::Int(*port), bulk(id), Value::Array(vec![])]);
        Value::Array(vec![Value::Int(0), Value::Int(1), node])
    });
    Value::Array(rows.collect())
}

fn view(nodes: &[String]) -> View {
    View::read(&slots(&[]), &nodes.join("\n"), "asked").unwrap()
}

fn line(id: &str, flags: &str, epoch: u64, slots: &str) -> String {
    let port = 7000 + u16::from(id.as_bytes()[0]);
    format!("{id} 10.0.0.1:{port}@17000,host {flags} - 0 0 {epoch} connected {slots}")
}

/// Three masters that share the slots, of which the first has those up to this one and says so.
pub(in crate::redis) fn three(last_of_a: u16, epoch_of_b: u64, moving: &str) -> Chart {
    Chart::of(&[view_of_three(last_of_a, epoch_of_b, moving)]).unwrap()
}

/// Of these, what the first and another one say.
pub(in crate::redis) fn contested(one: u16, other: u16, epoch_of_b: u64) -> Chart {
    Chart::of(&[one, other].map(|last| view_of_three(last, epoch_of_b, ""))).unwrap()
}

fn view_of_three(last_of_a: u16, epoch_of_b: u64, moving: &str) -> View {
    view(&[
        line(A, "myself,master", 1, &format!("0-{last_of_a} {moving}")),
        line(B, "master", epoch_of_b, &format!("{}-9999", last_of_a + 1)),
        line(C, "master", 3, "10000-16383"),
    ])
}

#[test]
fn masters_have_the_names_that_they_want_and_the_slots_that_they_have() {
    let nodes = [
        line(A, "myself,master", 1, "0-99 5000"),
        line(B, "slave", 1, ""),
        line(C, "master,fail", 7, "100-4999"),
        line("dddd", "master", 0, ""),
        "eeee :0@0 master,noaddr - 0 0 9 disconnected".to_owned(),
    ];
    let names = slots(&[(A, None, 1), (C, Some("c.example"), 2)]);
    let view = View::read(&names, &nodes.join("\n"), "asked").unwrap();
    let chart = Chart::of(&[view]).unwrap();
    let places: Vec<(&str, u16)> = chart
        .masters
        .iter()
        .map(|m| (m.node.host.as_str(), m.node.port))
        .collect();
    assert_eq!(places, [("asked", 1), ("c.example", 2)]);
    let table = chart.table(0);
    assert_eq!(
        (table.owner(0), table.owner(99), table.owner(5000)),
        (Some(0), Some(0), Some(0))
    );
    assert_eq!((table.owner(100), table.owner(4999)), (Some(1), Some(1)));
    assert_eq!((table.owner(5001), table.owner(16383)), (None, None));
}

#[test]
fn without_a_name_a_node_has_its_address() {
    let nodes = format!("{A} ::1:7000@17000 myself,master - 0 0 1 connected 0-1\n");
    let chart = Chart::of(&[View::read(&slots(&[]), &nodes, "asked").unwrap()]).unwrap();
    assert_eq!(
        chart.masters[0].node,
        Node {
            host: "::1".into(),
            port: 7000
        }
    );
    let nodes = format!("{A} :7000@17000 myself,master - 0 0 1 connected 0-1\n");
    let chart = Chart::of(&[View::read(&slots(&[]), &nodes, "asked").unwrap()]).unwrap();
    assert_eq!(
        chart.masters[0].node,
        Node {
            host: "asked".into(),
            port: 7000
        }
    );
}

#[test]
fn what_is_no_answer_is_none() {
    for nodes in [
        "x",
        "a b c d e f g",
        "a h:1@2 master - 0 0 x connected",
        "a h:1@2 master - 0 0 1 connected 3-1",
    ] {
        assert!(View::read(&slots(&[]), nodes, "asked").is_none(), "{nodes}");
    }
    assert!(View::read(&Value::Int(1), "", "asked").is_none());
    assert!(Chart::of(&[]).is_none());
}

#[test]
fn who_was_cut_off_is_not_believed() {
    let old = || view(&[line(A, "myself,master", 5, "0-16383"), line(B, "slave", 5, "")]);
    let new = || {
        view(&[
            line(A, "master,fail", 5, ""),
            line(B, "myself,master", 6, "0-16383"),
        ])
    };
    for views in [[old(), new()], [new(), old()]] {
        let chart = Chart::of(&views).unwrap();
        assert_eq!(chart.masters.len(), 1);
        assert_eq!(chart.masters[0].id, B);
        assert_eq!(chart.epoch(), 6);
    }
}

#[test]
fn who_knows_of_no_slots_knows_nothing() {
    let left = || view(&[line(A, "myself,master", 9, "")]);
    assert!(Chart::of(&[left()]).is_none());
    let chart = Chart::of(&[left(), view(&[line(B, "myself,master", 1, "0-16383")])]).unwrap();
    assert_eq!((chart.masters.len(), chart.epoch()), (1, 1));
}

#[test]
fn a_forgotten_node_takes_its_epoch_with_it() {
    let chart = |lines: &[String]| Chart::of(&[view(lines)]).unwrap();
    let with = chart(&[line(A, "master", 1, "0-16383"), line(B, "master", 9, "")]);
    let without = chart(&[line(A, "master", 1, "0-16383")]);
    assert!(!without.is_older_than(&with) && !with.is_older_than(&without));
    // A master that was cut off knows the one that has taken over, as its replica.
    let before = chart(&[line(A, "master", 1, "0-16383"), line(B, "slave", 1, "")]);
    let after = chart(&[line(A, "master,fail", 1, ""), line(B, "master", 9, "0-16383")]);
    assert!(before.is_older_than(&after) && !after.is_older_than(&before));
    let elsewhere = |epoch| chart(&[line(C, "master", epoch, "0-16383")]);
    assert!(elsewhere(8).is_older_than(&after) && !elsewhere(9).is_older_than(&after));
}

#[test]
fn a_node_without_slots_counts_once_some_are_on_their_way_to_it() {
    let nodes = |moving: &str| {
        [
            line(A, "myself,master", 1, &format!("0-16383 {moving}")),
            line(B, "master", 0, ""),
        ]
    };
    assert_eq!(Chart::of(&[view(&nodes(""))]).unwrap().masters.len(), 1);
    assert_eq!(Chart::of(&[view(&nodes("[7->-bbbb]"))]).unwrap().masters.len(), 2);
}

#[test]
fn one_pass_is_enough_where_nothing_moves() {
    assert!(three(99, 2, "").is_still(&three(99, 2, "")));
    assert!(!three(99, 2, "").is_still(&three(98, 2, "")), "a slot has moved");
    assert!(
        !three(99, 2, "").is_still(&three(99, 4, "")),
        "one may have moved and come back"
    );
    assert!(
        !three(99, 2, "[7->-bbbb]").is_still(&three(99, 2, "[7->-bbbb]")),
        "one is on its way"
    );
    assert!(
        !contested(99, 98, 9).is_still(&contested(99, 98, 9)),
        "one may have arrived, and not all know"
    );
    assert!(contested(99, 99, 9).is_still(&three(99, 9, "")), "they agree");
}

#[test]
fn two_passes_are_enough_where_everything_goes_one_way() {
    let one_way = |charts: [Chart; 3]| Chart::go_one_way(&charts.iter().collect::<Vec<_>>());
    let moving = "[99->-bbbb]";
    assert!(one_way([
        three(99, 9, ""),
        three(99, 9, moving),
        three(98, 9, "")
    ]));
    assert!(one_way([
        three(99, 9, moving),
        three(99, 9, moving),
        three(99, 9, moving)
    ]));
    assert!(one_way([three(99, 9, ""), three(98, 9, ""), three(97, 9, "")]));
    assert!(
        !one_way([three(99, 9, ""), three(99, 9, moving), three(99, 9, "")]),
        "given up"
    );
    assert!(
        !one_way([three(99, 9, ""), three(98, 9, ""), three(99, 9, "")]),
        "there and back"
    );
    assert!(
        !one_way([three(99, 8, ""), three(98, 9, ""), three(98, 9, "")]),
        "another epoch"
    );
    let elsewhere = "[99->-cccc]";
    assert!(!one_way([
        three(99, 9, moving),
        three(99, 9, elsewhere),
        three(99, 9, elsewhere)
    ]));
}

#[test]
fn who_has_won_slots_of_others_is_told() {
    let (before, after) = (three(99, 2, ""), three(98, 2, ""));
    assert!(after.gives_more_to(B, &before) && !after.gives_more_to(A, &before));
    assert!(before.gives_more_to(A, &after) && !before.gives_more_to(B, &after));
    assert!(!before.gives_more_to(A, &before));
}
