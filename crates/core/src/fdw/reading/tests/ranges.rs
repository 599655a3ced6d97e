//! Ranges of lists and streams, many at a time.
use super::*;

/// A list's or stream's conditions on points, and what was sent for them.
fn points(kind: Kind, texts: &[String], batch_size: usize, redis: impl Fn(&[&str]) -> Reply) -> All {
    let target = if kind == Kind::List {
        Target::Index
    } else {
        Target::Name
    };
    let shape = Shape {
        target,
        comparison: Comparison::Any,
    };
    let operand = Operand::Many(texts.iter().map(|text| text.clone().into_bytes()).collect());
    let mut needs = needs(kind, true);
    needs.batch_size = batch_size;
    read(needs, one_key(kind, vec![(shape, operand)]), redis).unwrap()
}

/// The same, with each batch of commands on its own.
fn batches(needs: Needs, access: Access, redis: impl Fn(&[&str]) -> Reply) -> Vec<usize> {
    let mut reading = Reading::new(needs, access);
    let mut counts = Vec::new();
    loop {
        let mut commands = Commands::default();
        reading.ask(&mut commands);
        if commands.count == 0 {
            return counts;
        }
        counts.push(commands.count);
        for command in commands.words() {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            reading.answer(redis(&command)).unwrap();
        }
        while reading.next_row().is_some() {}
    }
}

/// A list of 10,000 elements.
fn long_list(command: &[&str]) -> Reply {
    let (from, to): (usize, usize) = (command[2].parse().unwrap(), command[3].parse().unwrap());
    Reply::Array((from..=to.min(9_999)).map(|n| bulk(&n.to_string())).collect())
}

#[test]
fn points_of_a_list_are_asked_for_together_and_neighbours_by_one_command() {
    let texts = ["7", "1", "3", "2", "20000", "9"].map(str::to_string);
    let (sent, rows) = points(Kind::List, &texts, 5000, long_list);
    assert_eq!(
        sent,
        [
            "LRANGE k 1 3",
            "LRANGE k 7 7",
            "LRANGE k 9 9",
            "LRANGE k 20000 20000"
        ]
    );
    let indexes: Vec<i64> = rows
        .iter()
        .map(|(_, _, element)| match element {
            Element::Item { index, .. } => *index,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(indexes, [1, 2, 3, 7, 9]);
}

#[test]
fn as_many_points_as_a_window_has_are_one_batch() {
    let shape = Shape {
        target: Target::Index,
        comparison: Comparison::Any,
    };
    let every_third = (0..1000).map(|n| (3 * n).to_string().into_bytes());
    let condition = (shape, Operand::Many(every_third.collect()));
    let access = one_key(Kind::List, vec![condition]);
    assert_eq!(batches(needs(Kind::List, true), access, long_list), [200, 800]);
}

#[test]
fn a_range_that_is_longer_than_its_share_keeps_its_place() {
    // Two ranges of 150, of which a window of 100 has 50 each, and a point behind them.
    let texts: Vec<String> = (0..150)
        .chain(1000..1150)
        .chain([5000])
        .map(|n: i64| n.to_string())
        .collect();
    let (sent, rows) = points(Kind::List, &texts, 100, long_list);
    assert_eq!(
        sent,
        [
            "LRANGE k 0 32",
            "LRANGE k 1000 1032",
            "LRANGE k 5000 5000",
            "LRANGE k 33 132",
            "LRANGE k 133 149",
            "LRANGE k 1000 1049",
            "LRANGE k 5000 5000",
            "LRANGE k 1050 1149",
            "LRANGE k 5000 5000"
        ]
    );
    let values: Vec<String> = rows
        .into_iter()
        .map(|(_, _, element)| match element {
            Element::Item { element, .. } => String::from_utf8(element).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, texts);
}

#[test]
fn points_of_a_stream_are_asked_for_together_in_the_order_of_ids() {
    let redis = |command: &[&str]| {
        if command[2] == "9-9" {
            return Reply::Array(vec![]);
        }
        Reply::Array(vec![Reply::Array(vec![bulk(command[2]), array(&["f", "v"])])])
    };
    let texts = ["10-0", "9-10", "9-9", "5", "x", "10-0"].map(str::to_string);
    let (sent, rows) = points(Kind::Stream, &texts, 5000, redis);
    assert_eq!(
        sent,
        ["9-9", "9-10", "10-0"].map(|id| format!("XRANGE k {id} {id} COUNT 66"))
    );
    assert_eq!(rows.len(), 2);
}

#[test]
fn ranges_of_a_stream_are_asked_for_together_until_one_is_long() {
    let redis = |command: &[&str]| {
        let begin: usize = match command[2].strip_prefix('(') {
            Some(id) => id.split_once('-').unwrap().0.parse::<usize>().unwrap() + 1,
            None => command[2].parse().unwrap_or(0),
        };
        // 300 entries from 100 to 399.
        let last = command[3].parse::<usize>().unwrap_or(usize::MAX).min(399);
        let count: usize = command[5].parse().unwrap();
        let entry = |n: usize| Reply::Array(vec![bulk(&format!("{n}-0")), array(&["f", "v"])]);
        Reply::Array((begin.max(100)..=last).take(count).map(entry).collect())
    };
    let shape = Shape {
        target: Target::Name,
        comparison: Comparison::GreaterEqual,
    };
    let access = one_key(Kind::Stream, vec![(shape, Operand::One(b"2".to_vec()))]);
    let Within::Ids(ranges) = &access.within else {
        panic!("ranges")
    };
    assert!(ranges.len() > 10, "{ranges:?}");
    let in_go = ranges.len();
    // The third range has them: the first go finds some, the second the rest, the last one what is behind it.
    let counts = batches(needs(Kind::Stream, true), access.clone(), redis);
    assert_eq!(counts, [in_go, 1, in_go - 3]);
    let (_, rows) = read(needs(Kind::Stream, true), access, redis).unwrap();
    assert_eq!(rows.len(), 300 - 100);
}

#[test]
fn many_points_of_a_key_of_another_type_are_none_and_leave_the_others_alone() {
    let shape = Shape {
        target: Target::Index,
        comparison: Comparison::Any,
    };
    let operand = Operand::Many(vec![b"1".to_vec(), b"5".to_vec()]);
    let keys = Keys::Matching(b"k:*".to_vec());
    let access = Access::new(Kind::List, &keys, vec![(shape, operand)]);
    let redis = |command: &[&str]| match command {
        ["SCAN", ..] => page("0", &["k:1", "k:2"]),
        ["TTL", key] => Reply::Integer(if *key == "k:1" { 1 } else { 2 }),
        ["LRANGE", "k:1", "1", _] => array(&["a"]),
        ["LRANGE", "k:1", ..] => Reply::Error("WRONGTYPE Operation".into()),
        _ => array(&["b"]),
    };
    let mut needs = needs(Kind::List, false);
    needs.ttl = true;
    let (_, rows) = read(needs, access, redis).unwrap();
    let rows: Vec<(&str, i64)> = rows.iter().map(|(key, ttl, _)| (key.as_str(), *ttl)).collect();
    assert_eq!(rows, [("k:2", 2), ("k:2", 2)]);
}
