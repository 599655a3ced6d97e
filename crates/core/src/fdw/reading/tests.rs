//! Against a Redis in a few lines: each test says what it answers to each command.
use super::*;
use crate::fdw::{
    Element,
    filter::{Comparison, Operand, Shape, Target},
    options::Keys,
};

mod foreseeing;
mod patterns;
mod ranges;
mod records;
mod scores;

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.into())
}

fn array(texts: &[&str]) -> Reply {
    Reply::Array(texts.iter().map(|text| bulk(text)).collect())
}

fn page(cursor: &str, found: &[&str]) -> Reply {
    Reply::Array(vec![bulk(cursor), array(found)])
}

pub(in crate::fdw) fn needs(kind: Kind, one_key: bool) -> Needs {
    Needs {
        kind,
        ttl: false,
        batch_size: 5000,
        one_key,
    }
}

/// The commands that were sent, and the rows as key, time to live and element.
type All = (Vec<String>, Vec<(String, i64, Element)>);

/// Reads all, and returns the commands and the rows, each as key and element.
fn read(needs: Needs, access: Access, redis: impl Fn(&[&str]) -> Reply) -> Result<All, ReadProblem> {
    let mut reading = Reading::new(needs, access);
    let (mut sent, mut rows) = (Vec::new(), Vec::new());
    loop {
        let mut commands = Commands::default();
        reading.ask(&mut commands);
        if commands.count == 0 {
            return Ok((sent, rows));
        }
        for command in commands.words() {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            sent.push(command.join(" "));
            reading.answer(redis(&command))?;
        }
        assert!(!reading.is_waiting());
        while let Some(row) = reading.next_row() {
            rows.push((String::from_utf8(row.key.to_vec()).unwrap(), row.ttl, row.element));
        }
    }
}

fn one_key(kind: Kind, conditions: Vec<(Shape, Operand)>) -> Access {
    Access::new(kind, &Keys::One(b"k".to_vec()), conditions)
}

fn many_keys(kind: Kind) -> Access {
    Access::new(kind, &Keys::Matching(b"k:*".to_vec()), vec![])
}

fn pair(field: &str, value: &str) -> Element {
    Element::Pair {
        field: field.into(),
        value: value.into(),
    }
}

#[test]
fn a_hash_is_read_cursor_by_cursor_and_nothing_twice() {
    let redis = |command: &[&str]| match command[2] {
        "0" => page("7", &["a", "1", "b", "2"]),
        "7" => page("3", &["b", "2", "c", "3"]),
        _ => page("0", &["a", "1", "d", "4"]),
    };
    let (sent, rows) = read(needs(Kind::Hash, true), one_key(Kind::Hash, vec![]), redis).unwrap();
    assert_eq!(
        sent,
        [
            "HSCAN k 0 COUNT 200",
            "HSCAN k 7 COUNT 5000",
            "HSCAN k 3 COUNT 5000"
        ]
    );
    let elements: Vec<Element> = rows.into_iter().map(|(_, _, element)| element).collect();
    assert_eq!(
        elements,
        [pair("a", "1"), pair("b", "2"), pair("c", "3"), pair("d", "4")]
    );
}

#[test]
fn named_fields_are_one_command() {
    let shape = Shape {
        target: Target::Name,
        comparison: Comparison::Any,
    };
    let operand = Operand::Many(vec![b"a".to_vec(), b"b".to_vec(), b"a".to_vec()]);
    let access = one_key(Kind::Hash, vec![(shape, operand)]);
    let redis = |_: &[&str]| Reply::Array(vec![bulk("1"), Reply::Nil]);
    let (sent, rows) = read(needs(Kind::Hash, true), access, redis).unwrap();
    assert_eq!(sent, ["HMGET k a b"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].2, pair("a", "1"));
}

#[test]
fn strings_of_many_keys_come_by_mget_with_their_ttl() {
    let redis = |command: &[&str]| match command {
        ["SCAN", "0", ..] => page("5", &["k:1", "x", "k:2"]),
        ["SCAN", ..] => page("0", &["k:2", "k:3"]),
        ["TTL", "k:3"] => Reply::Integer(60),
        ["TTL", _] => Reply::Integer(-1),
        ["MGET", keys @ ..] => {
            let values = keys
                .iter()
                .map(|key| if *key == "k:1" { Reply::Nil } else { bulk(key) });
            Reply::Array(values.collect())
        }
        other => panic!("{other:?}"),
    };
    let mut needs = needs(Kind::String, false);
    needs.ttl = true;
    let (sent, rows) = read(needs, many_keys(Kind::String), redis).unwrap();
    assert_eq!(sent[0], "SCAN 0 MATCH k:* COUNT 200 TYPE string");
    let rows: Vec<(&str, i64)> = rows.iter().map(|(key, ttl, _)| (key.as_str(), *ttl)).collect();
    assert_eq!(rows, [("k:2", -1), ("k:3", 60)]);
}

#[test]
fn a_key_of_another_type_is_an_error_for_one_key_and_none_of_many() {
    let wrong = |_: &[&str]| Reply::Error("WRONGTYPE Operation".into());
    let problem = read(needs(Kind::Set, true), one_key(Kind::Set, vec![]), wrong).unwrap_err();
    assert_eq!(problem, ReadProblem::OtherType);

    let redis = |command: &[&str]| match command {
        ["SCAN", ..] => page("0", &["k:1", "k:2"]),
        ["TTL", _] => Reply::Integer(9),
        ["SSCAN", "k:1", ..] => Reply::Error("WRONGTYPE Operation".into()),
        _ => page("0", &["m"]),
    };
    let mut needs = needs(Kind::Set, false);
    needs.ttl = true;
    let (_, rows) = read(needs, many_keys(Kind::Set), redis).unwrap();
    assert_eq!(rows, [("k:2".to_string(), 9, Element::Member(b"m".to_vec()))]);

    let refused = read(needs, many_keys(Kind::Set), |_| Reply::Error("NOPERM no".into()));
    assert_eq!(refused.unwrap_err(), ReadProblem::Refused("NOPERM no".into()));
}

#[test]
fn lists_and_streams_go_on_where_they_stopped() {
    let redis = |command: &[&str]| {
        let (from, to): (usize, usize) = (command[2].parse().unwrap(), command[3].parse().unwrap());
        Reply::Array((from..=to.min(249)).map(|n| bulk(&n.to_string())).collect())
    };
    let mut few = needs(Kind::List, true);
    few.batch_size = 100;
    let (sent, rows) = read(few, one_key(Kind::List, vec![]), redis).unwrap();
    assert_eq!(sent, ["LRANGE k 0 99", "LRANGE k 100 199", "LRANGE k 200 299"]);
    assert_eq!(rows.len(), 250);

    let redis = |command: &[&str]| {
        let from: usize = command[2].trim_start_matches("(").parse().unwrap_or(0);
        let entry = |n: usize| Reply::Array(vec![bulk(&n.to_string()), array(&["f", "v"])]);
        Reply::Array((from + 1..=150.min(from + 100)).map(entry).collect())
    };
    few.kind = Kind::Stream;
    let (sent, rows) = read(few, one_key(Kind::Stream, vec![]), redis).unwrap();
    assert_eq!(sent, ["XRANGE k - + COUNT 100", "XRANGE k (100 + COUNT 100"]);
    assert_eq!(rows.len(), 150);
}

#[test]
fn many_keys_share_the_window_and_each_is_read_to_its_end() {
    let redis = |command: &[&str]| match command {
        ["SCAN", ..] => page("0", &["k:1", "k:2"]),
        ["HSCAN", _, "0", ..] => page("4", &["a", "1"]),
        _ => page("0", &["b", "2"]),
    };
    let (sent, rows) = read(needs(Kind::Hash, false), many_keys(Kind::Hash), redis).unwrap();
    assert_eq!(sent[1], "HSCAN k:1 0 COUNT 100");
    assert_eq!(rows.len(), 4);
}

#[test]
fn large_elements_make_small_windows() {
    let large = "x".repeat(300_000);
    let redis = |command: &[&str]| {
        if command[2] == "0" {
            page("1", &[&large, &large])
        } else {
            page("0", &[])
        }
    };
    let (sent, _) = read(needs(Kind::Hash, true), one_key(Kind::Hash, vec![]), redis).unwrap();
    assert_eq!(sent[1], "HSCAN k 1 COUNT 10");
}

#[test]
fn an_answer_of_another_command_is_a_problem() {
    let odd = |_: &[&str]| Reply::Integer(1);
    for kind in Kind::ALL {
        let problem = read(needs(kind, true), one_key(kind, vec![]), odd).unwrap_err();
        assert_eq!(problem, ReadProblem::Unexpected, "{kind}");
    }
}
