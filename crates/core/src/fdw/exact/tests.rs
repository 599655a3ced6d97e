use proptest::prelude::*;

use super::*;
use crate::fdw::{Access, KeyAccess, Within};

#[test]
fn a_score_is_exact_if_its_text_is_a_double_s() {
    for text in [
        "0",
        "-0",
        "10",
        "2.50",
        "1e+300",
        "1e-05",
        "0.00001",
        "0.1",
        "9007199254740992",
        "Infinity",
        "-inf",
    ] {
        assert!(is_score(text.as_bytes()), "{text}");
    }
    for text in [
        "9007199254740993",
        "0.10000000000000001",
        "1e400",
        "NaN1",
        "x",
        "",
    ] {
        assert!(!is_score(text.as_bytes()), "{text}");
    }
}

/// A row of a table over keys `k:…`: what conditions can be about.
#[derive(Clone, Debug)]
struct Row {
    key: String,
    name: String,
    score: f64,
    index: i64,
}

fn rows() -> Vec<Row> {
    let names = ["", "a", "ab", "b_", "ba", "5-0", "5-10", "5-9", "10-0"];
    let scores = [f64::NEG_INFINITY, -1.5, 0.0, 0.1, 2.0, 3.0, f64::INFINITY];
    let mut rows = Vec::new();
    for key in ["k:a", "k:ab", "k:b"] {
        for (place, name) in names.iter().enumerate() {
            rows.push(Row {
                key: key.to_string(),
                name: name.to_string(),
                score: scores[place % scores.len()],
                index: place as i64,
            });
        }
    }
    rows
}

/// SQL's LIKE with its escape character.
fn is_like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|from| is_like(&text[from..], rest)),
        ['_', rest @ ..] => !text.is_empty() && is_like(&text[1..], rest),
        ['\\', literal, rest @ ..] => text.first() == Some(literal) && is_like(&text[1..], rest),
        ['\\'] => false,
        [literal, rest @ ..] => text.first() == Some(literal) && is_like(&text[1..], rest),
    }
}

fn meets(row: &Row, (shape, operand): &(Shape, Operand)) -> bool {
    use std::cmp::Ordering;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let order = |operand: &[u8]| match shape.target {
        Target::Score => {
            let operand: f64 = text(operand).parse().unwrap();
            // To PostgreSQL NaN is above all.
            row.score.partial_cmp(&operand).unwrap_or(Ordering::Less)
        }
        Target::Index => row.index.cmp(&text(operand).parse().unwrap()),
        Target::Key => row.key.cmp(&text(operand)),
        Target::Name | Target::Part(_) => row.name.cmp(&text(operand)),
    };
    let own = if shape.target == Target::Key {
        &row.key
    } else {
        &row.name
    };
    match (shape.comparison, operand) {
        (_, Operand::Null) => false,
        (Comparison::Any, Operand::Many(all)) => all.iter().any(|one| order(one) == Ordering::Equal),
        (Comparison::Equal, Operand::One(one)) => order(one) == Ordering::Equal,
        (Comparison::Less, Operand::One(one)) => order(one) == Ordering::Less,
        (Comparison::LessEqual, Operand::One(one)) => order(one) != Ordering::Greater,
        (Comparison::Greater, Operand::One(one)) => order(one) == Ordering::Greater,
        (Comparison::GreaterEqual, Operand::One(one)) => order(one) != Ordering::Less,
        (Comparison::Prefix, Operand::One(one)) => own.as_bytes().starts_with(one),
        (Comparison::Like, Operand::One(one)) => {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            is_like(&chars(own), &chars(&text(one)))
        }
        _ => false,
    }
}

/// Whether a row is read.
fn reads(access: &Access, row: &Row) -> bool {
    let key = match &access.keys {
        KeyAccess::Listed(keys) => keys.iter().any(|key| key == row.key.as_bytes()),
        KeyAccess::Scanned { patterns, .. } => patterns
            .iter()
            .all(|pattern| glob::matches(pattern, row.key.as_bytes())),
    };
    key && match &access.within {
        Within::All | Within::Record => true,
        Within::Names(names) => names.iter().any(|name| name == row.name.as_bytes()),
        Within::Matching(pattern) => glob::matches(pattern, row.name.as_bytes()),
        Within::Scores(scores) => {
            let (low, high) = (scores.low, scores.high);
            (row.score > low.score || low.inclusive && row.score == low.score)
                && (row.score < high.score || high.inclusive && row.score == high.score)
        }
        Within::Indexes(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&row.index)),
        Within::IdsDown(_) => unreachable!("no order is asked for"),
        Within::Fields(_) => unreachable!("no fields are named"),
        Within::Ids(ranges) => ranges.iter().any(|(from, to)| {
            let id = |text: &[u8], missing: u64| {
                let text = std::str::from_utf8(text).unwrap();
                let (milliseconds, sequence) = text.split_once('-').unwrap_or((text, ""));
                Some((
                    milliseconds.parse::<u64>().ok()?,
                    sequence.parse().unwrap_or(missing),
                ))
            };
            let own = id(row.name.as_bytes(), 0);
            own >= id(from, 0) && own <= id(to, u64::MAX)
        }),
    }
}

fn condition() -> impl Strategy<Value = (Shape, Operand)> {
    let target = prop::sample::select(vec![Target::Key, Target::Name, Target::Score, Target::Index]);
    let comparison = prop::sample::select(Comparison::ALL.to_vec());
    (target, comparison).prop_flat_map(|(target, comparison)| {
        let texts: Vec<&str> = match (target, comparison) {
            (Target::Score, _) => vec![
                "-1.5",
                "0",
                "0.1",
                "2",
                "3.00",
                "2.0000000000000000001",
                "NaN",
                "inf",
            ],
            (Target::Index, _) => vec!["-1", "0", "3", "5", "9223372036854775807"],
            (_, Comparison::Like) => vec!["%", "k:a%", "a%", "b\\_", "_a", "%-_", "5-%", "\\"],
            (Target::Key, _) => vec!["k:a", "k:", "k:b", "x"],
            _ => vec!["", "a", "ab", "5", "5-0", "05-0", "5-9", "10-0"],
        };
        let one = prop::sample::select(texts).prop_map(|text| text.as_bytes().to_vec());
        let operand = match comparison {
            Comparison::Any => prop::collection::vec(one, 0..4).prop_map(Operand::Many).boxed(),
            _ => prop_oneof![9 => one.prop_map(Operand::One), 1 => Just(Operand::Null)].boxed(),
        };
        operand.prop_map(move |operand| (Shape { target, comparison }, operand))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_meets_the_conditions_is_read_and_where_it_is_exact_nothing_else(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        conditions in prop::collection::vec(condition(), 0..4),
    ) {
        let conditions: Vec<_> = conditions.into_iter().filter(|(shape, _)| shape.narrows(kind)).collect();
        let access = Access::new(kind, &Keys::Matching(b"k:*".to_vec()), conditions.clone());
        let is_id = |text: &str| text.contains('-');
        for row in rows() {
            if kind == Kind::Stream && !is_id(&row.name) {
                continue;
            }
            let wanted = conditions.iter().all(|condition| meets(&row, condition));
            let read = reads(&access, &row);
            prop_assert!(read || !wanted, "{:?} is not read by {:?}", row, access);
            prop_assert!(!access.exact || read == wanted, "{:?} is read by {:?}", row, access);
        }
    }
}

#[test]
fn one_condition_by_itself_is_exact_and_two_of_which_one_is_left_out_are_not() {
    let exact = |kind, conditions: &[(Target, Comparison, &str)]| {
        let conditions = conditions.iter().map(|(target, comparison, text)| {
            let shape = Shape {
                target: *target,
                comparison: *comparison,
            };
            (shape, Operand::One(text.as_bytes().to_vec()))
        });
        Access::new(kind, &Keys::One(b"k".to_vec()), conditions.collect()).exact
    };
    use Comparison::*;
    use Target::*;
    assert!(exact(Kind::Hash, &[(Name, Equal, "a")]));
    assert!(exact(Kind::Hash, &[(Name, Equal, "a"), (Name, Equal, "b")]));
    assert!(exact(Kind::Set, &[(Name, Like, "a%")]));
    assert!(exact(Kind::Zset, &[(Score, Greater, "1"), (Score, Less, "2")]));
    assert!(exact(Kind::List, &[(Index, Greater, "1"), (Index, Equal, "2")]));
    assert!(exact(Kind::Stream, &[(Name, Equal, "5-0")]));
    assert!(!exact(Kind::Hash, &[(Name, Equal, "a"), (Name, Like, "a%")]));
    assert!(!exact(Kind::Set, &[(Name, Like, "a_")]));
    assert!(!exact(Kind::Set, &[(Name, Like, "a%"), (Name, Like, "%b")]));
    assert!(!exact(Kind::Zset, &[(Score, Less, "2"), (Name, Like, "a%")]));
    assert!(!exact(Kind::Zset, &[(Score, Less, "2"), (Name, Equal, "a")]));
    assert!(!exact(Kind::Zset, &[(Score, Less, "0.10000000000000001")]));
    assert!(!exact(Kind::Stream, &[(Name, Less, "5-0")]));
}
