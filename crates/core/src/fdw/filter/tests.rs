use super::*;

fn one(text: &str) -> Operand {
    Operand::One(text.into())
}

fn many(texts: &[&str]) -> Operand {
    Operand::Many(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

fn shape(target: Target, comparison: Comparison) -> Shape {
    Shape { target, comparison }
}

fn within_of(kind: Kind, conditions: Vec<(Target, Comparison, Operand)>) -> Within {
    let conditions = conditions
        .into_iter()
        .map(|(t, c, operand)| (shape(t, c), operand));
    Access::new(kind, &Keys::One(b"k".to_vec()), conditions.collect()).within
}

fn keys_of(conditions: Vec<(Comparison, Operand)>) -> KeyAccess {
    let conditions = conditions
        .into_iter()
        .map(|(c, operand)| (shape(Target::Key, c), operand));
    Access::new(
        Kind::String,
        &Keys::Matching(b"user:*".to_vec()),
        conditions.collect(),
    )
    .keys
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn comparisons_keep_their_numbers() {
    for comparison in Comparison::ALL {
        assert_eq!(Comparison::numbered(comparison.number()), Some(comparison));
    }
    assert_eq!(Comparison::numbered(99), None);
}

#[test]
fn keys_are_listed_as_far_as_they_are_the_table_s() {
    use Comparison::*;
    assert_eq!(
        keys_of(vec![(Any, many(&["user:1", "x", "user:2", "user:1"]))]),
        KeyAccess::Listed(bytes(&["user:1", "user:2"]))
    );
    assert_eq!(
        keys_of(vec![(Any, many(&["user:1", "user:2"])), (Equal, one("user:2"))]),
        KeyAccess::Listed(bytes(&["user:2"]))
    );
    assert_eq!(keys_of(vec![(Equal, Operand::Null)]), KeyAccess::Listed(vec![]));
    assert_eq!(keys_of(vec![(Any, many(&[]))]), KeyAccess::Listed(vec![]));
}

#[test]
fn the_longer_pattern_is_scanned_and_both_must_match() {
    use Comparison::*;
    assert_eq!(
        keys_of(vec![(Like, one("user:10%"))]),
        KeyAccess::Scanned {
            scanned: b"user:10*".to_vec(),
            patterns: bytes(&["user:*", "user:10*"]),
        }
    );
    let KeyAccess::Scanned { scanned, .. } = keys_of(vec![(Like, one("%9"))]) else {
        panic!("a pattern is scanned");
    };
    assert_eq!(scanned, b"user:*");
}

#[test]
fn names_come_before_patterns() {
    use Comparison::*;
    let conditions = || vec![(Target::Name, Like, one("a%")), (Target::Name, Equal, one("ab"))];
    assert_eq!(within_of(Kind::Hash, conditions()), Within::Names(bytes(&["ab"])));
    let like = vec![(Target::Name, Like, one("555%"))];
    assert_eq!(within_of(Kind::Set, like), Within::Matching(b"555*".to_vec()));
    let prefix = vec![(Target::Name, Prefix, one("a*"))];
    assert_eq!(within_of(Kind::Set, prefix), Within::Matching(br"a\**".to_vec()));
    assert_eq!(within_of(Kind::List, conditions()), Within::All);
}

#[test]
fn scores_are_ranges() {
    use Comparison::*;
    let texts = |conditions| match within_of(Kind::Zset, conditions) {
        Within::Scores(scores) => (scores.low.to_text(), scores.high.to_text()),
        other => panic!("{other:?}"),
    };
    let s = Target::Score;
    assert_eq!(
        texts(vec![(s, GreaterEqual, one("25")), (s, Less, one("45"))]),
        (b"25".to_vec(), b"(45".to_vec())
    );
    assert_eq!(
        texts(vec![(s, Equal, one("0.1"))]),
        (b"0.1".to_vec(), b"0.1".to_vec())
    );
    let (low, high) = texts(vec![(s, Equal, one("0.1000000000000000001"))]);
    assert!(parse_score(&low) < Some(0.1) && parse_score(&high) > Some(0.1));
    assert_eq!(
        texts(vec![(s, Less, one("NaN"))]),
        (b"-inf".to_vec(), b"inf".to_vec())
    );
    assert_eq!(
        texts(vec![(s, Less, one("Infinity"))]),
        (b"-inf".to_vec(), b"(inf".to_vec())
    );
}

#[test]
fn indexes_are_ranges() {
    use Comparison::*;
    let of = |conditions| within_of(Kind::List, conditions);
    let i = Target::Index;
    assert_eq!(of(vec![(i, Less, one("10"))]), Within::Indexes(vec![(0, 9)]));
    assert_eq!(
        of(vec![(i, Any, many(&["1", "7", "1"])), (i, Greater, one("1"))]),
        Within::Indexes(vec![(7, 7)])
    );
    assert_eq!(of(vec![(i, Less, one("0"))]), Within::Indexes(vec![]));
    assert_eq!(of(vec![(i, Equal, one("-1"))]), Within::Indexes(vec![]));
}

#[test]
fn ids_are_ranges_of_what_can_be_an_id() {
    use Comparison::*;
    let of = |conditions| within_of(Kind::Stream, conditions);
    let n = Target::Name;
    assert_eq!(
        of(vec![(n, Any, many(&["5-1", "x", "5-1-1"]))]),
        Within::Ids(vec![(b"5-1".to_vec(), b"5-1".to_vec())])
    );
    let Within::Ids(ranges) = of(vec![(n, GreaterEqual, one("1640995200000-0"))]) else {
        panic!("a range");
    };
    assert!(ranges.contains(&(b"1640995200000".to_vec(), b"9999999999999".to_vec())));
    assert_eq!(of(vec![(n, GreaterEqual, one("x"))]), Within::All);
}

#[test]
fn the_latest_entries_come_first_from_the_end_of_the_last_range() {
    use Comparison::*;
    let down = |conditions: Vec<(Comparison, Operand)>| {
        let conditions = conditions
            .into_iter()
            .map(|(c, operand)| (shape(Target::Name, c), operand));
        let access = Access::new(Kind::Stream, &Keys::One(b"k".to_vec()), conditions.collect());
        match access.latest_first().within {
            Within::IdsDown(ranges) => ranges,
            within => panic!("{within:?}"),
        }
    };
    assert_eq!(down(vec![]), [(b"+".to_vec(), b"-".to_vec())]);
    let ranges = down(vec![(GreaterEqual, one("5-0")), (LessEqual, one("7-0"))]);
    assert_eq!(ranges.last().unwrap(), &(b"7".to_vec(), b"5".to_vec()));
    let ends = ranges.iter().map(|(from, to)| {
        let number = |text: &[u8]| String::from_utf8_lossy(text).parse::<u64>().unwrap();
        (number(from), number(to))
    });
    let ends: Vec<_> = ends.collect();
    assert!(ends.iter().all(|(from, to)| from >= to));
    assert!(ends.windows(2).all(|pair| pair[0].1 > pair[1].0));
}
