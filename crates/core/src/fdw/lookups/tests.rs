use super::*;
use crate::fdw::{Comparison, Kind, Operand, Shape, Target, options::Keys, reading::tests::needs};

fn equal(target: Target, text: &str) -> (Shape, Operand) {
    let comparison = Comparison::Equal;
    (Shape { target, comparison }, Operand::One(text.into()))
}

/// Reads all look-ups, and returns the commands of each round trip. `redis` answers one command.
fn read(lookups: &mut Lookups, redis: impl Fn(&[String]) -> Reply) -> Vec<Vec<String>> {
    let mut trips = Vec::new();
    loop {
        let mut commands = Commands::default();
        lookups.ask(&mut commands);
        if commands.count == 0 {
            return trips;
        }
        let mut trip = Vec::new();
        for words in commands.words() {
            trip.push(words.join(" "));
            assert!(lookups.is_waiting());
            lookups.answer(redis(&words)).unwrap();
        }
        assert!(!lookups.is_waiting());
        trip.sort();
        trips.push(trip);
    }
}

/// Answers HMGET and MGET: each name's value is `=` and the name; names that begin with `no` are not there.
fn values(words: &[String]) -> Reply {
    let first = if words[0] == "HMGET" { 2 } else { 1 };
    let value = |name: &String| match name.starts_with("no") {
        true => Reply::Nil,
        false => Reply::Bulk(format!("={name}").into()),
    };
    Reply::Array(words[first..].iter().map(value).collect())
}

fn found(lookups: &Lookups, lookup: usize) -> Option<Vec<String>> {
    let rows = lookups.rows(lookup)?;
    let text = |row: &Rc<Row>| match &row.element {
        Element::Pair { value, .. } | Element::Value(value) => {
            format!(
                "{} {}",
                String::from_utf8_lossy(&row.key),
                String::from_utf8_lossy(value)
            )
        }
        Element::Item { index, .. } => format!("{} {index}", String::from_utf8_lossy(&row.key)),
        element => format!("{element:?}"),
    };
    Some(rows.iter().map(text).collect())
}

#[test]
fn fields_of_one_hash_are_one_command() {
    let keys = Keys::One(b"h".to_vec());
    let fields = ["a", "b", "a", "none", "c"];
    let accesses = fields.map(|field| Access::new(Kind::Hash, &keys, vec![equal(Target::Name, field)]));
    let mut lookups = Lookups::new(needs(Kind::Hash, true), accesses.to_vec(), 1000);
    assert_eq!(read(&mut lookups, values), [["HMGET h a b none c"]]);
    assert_eq!(found(&lookups, 0).unwrap(), ["h =a"]);
    assert_eq!(found(&lookups, 2).unwrap(), ["h =a"]);
    assert_eq!(found(&lookups, 3).unwrap(), [""; 0]);
    assert_eq!(found(&lookups, 4).unwrap(), ["h =c"]);
    assert_eq!(found(&lookups, 5), None);
}

#[test]
fn a_small_window_makes_more_commands() {
    let keys = Keys::One(b"h".to_vec());
    let fields =
        (0..25).map(|field| Access::new(Kind::Hash, &keys, vec![equal(Target::Name, &field.to_string())]));
    let mut lookups = Lookups::new(needs(Kind::Hash, true), fields.collect(), 10);
    assert_eq!(read(&mut lookups, values).len(), 2);
    for field in 0..25 {
        assert_eq!(found(&lookups, field).unwrap(), [format!("h ={field}")]);
    }
    assert!(lookups.window().unwrap() > 10);
}

#[test]
fn fields_of_many_hashes_are_one_round_trip() {
    let keys = Keys::Matching(b"k:*".to_vec());
    let pairs = [("k:1", "a"), ("k:2", "a"), ("k:1", "b"), ("other", "a")];
    let accesses = pairs.map(|(key, field)| {
        Access::new(
            Kind::Hash,
            &keys,
            vec![equal(Target::Key, key), equal(Target::Name, field)],
        )
    });
    let mut lookups = Lookups::new(needs(Kind::Hash, false), accesses.to_vec(), 1000);
    assert_eq!(read(&mut lookups, values), [["HMGET k:1 a b", "HMGET k:2 a"]]);
    assert_eq!(found(&lookups, 0).unwrap(), ["k:1 =a"]);
    assert_eq!(found(&lookups, 1).unwrap(), ["k:2 =a"]);
    assert_eq!(found(&lookups, 2).unwrap(), ["k:1 =b"]);
    // The pattern does not match the key.
    assert_eq!(found(&lookups, 3).unwrap(), [""; 0]);
}

#[test]
fn strings_are_read_together() {
    let keys = Keys::Matching(b"*".to_vec());
    let texts = ["k1", "nothing", "k2", "k1"];
    let accesses = texts.map(|key| Access::new(Kind::String, &keys, vec![equal(Target::Key, key)]));
    let mut lookups = Lookups::new(needs(Kind::String, false), accesses.to_vec(), 1000);
    let trips = read(&mut lookups, values);
    assert_eq!((trips.len(), trips[0].len()), (1, 1));
    assert_eq!(trips[0][0].split(' ').count(), 4);
    assert_eq!(found(&lookups, 0).unwrap(), ["k1 =k1"]);
    assert_eq!(found(&lookups, 1).unwrap(), [""; 0]);
    assert_eq!(found(&lookups, 3).unwrap(), ["k1 =k1"]);
}

#[test]
fn a_null_finds_nothing_and_asks_for_nothing() {
    let keys = Keys::One(b"h".to_vec());
    let null = (equal(Target::Name, "").0, Operand::Null);
    let accesses = vec![Access::new(Kind::Hash, &keys, vec![null])];
    let mut lookups = Lookups::new(needs(Kind::Hash, true), accesses, 1000);
    assert_eq!(read(&mut lookups, values), [[""; 0]; 0]);
    assert_eq!(found(&lookups, 0).unwrap(), [""; 0]);
}

#[test]
fn what_differs_in_more_than_names_is_read_by_itself() {
    let keys = Keys::Matching(b"k:*".to_vec());
    let like = |pattern: &str| {
        let shape = Shape {
            target: Target::Name,
            comparison: Comparison::Like,
        };
        (shape, Operand::One(pattern.into()))
    };
    let access = |pattern| Access::new(Kind::Hash, &keys, vec![equal(Target::Key, "k:1"), like(pattern)]);
    let all = Access::new(Kind::Hash, &keys, vec![]);
    let accesses = vec![access("a%"), access("b%"), access("a%"), all];
    let mut lookups = Lookups::new(needs(Kind::Hash, false), accesses, 1000);
    let scanned = |_: &[String]| {
        let pair = ["a1", "=a1"].map(|text| Reply::Bulk(text.into())).to_vec();
        Reply::Array(vec![Reply::Bulk(b"0".to_vec()), Reply::Array(pair)])
    };
    assert_eq!(read(&mut lookups, scanned), [["HSCAN k:1 0 MATCH a* COUNT 1000"]]);
    assert_eq!(found(&lookups, 0).unwrap(), ["k:1 =a1"]);
    assert_eq!(found(&lookups, 1), None);
    assert_eq!(found(&lookups, 2).unwrap(), ["k:1 =a1"]);
    assert_eq!(found(&lookups, 3), None);
}

#[test]
fn elements_of_a_list_are_found_by_their_index() {
    let keys = Keys::One(b"l".to_vec());
    let accesses =
        ["3", "5", "x"].map(|index| Access::new(Kind::List, &keys, vec![equal(Target::Index, index)]));
    let mut lookups = Lookups::new(needs(Kind::List, true), accesses.to_vec(), 1000);
    read(&mut lookups, |words| {
        Reply::Array(vec![Reply::Bulk(words[2].clone().into())])
    });
    assert_eq!(found(&lookups, 0).unwrap(), ["l 3"]);
    assert_eq!(found(&lookups, 1).unwrap(), ["l 5"]);
    assert_eq!(found(&lookups, 2).unwrap(), [""; 0]);
}

#[test]
fn bytes_are_counted() {
    let keys = Keys::One(b"h".to_vec());
    let accesses = vec![Access::new(Kind::Hash, &keys, vec![equal(Target::Name, "a")])];
    let mut lookups = Lookups::new(needs(Kind::Hash, true), accesses, 1000);
    assert_eq!(lookups.bytes(), 0);
    let long = vec![b'x'; 5000];
    read(&mut lookups, |_| Reply::Array(vec![Reply::Bulk(long.clone())]));
    assert!(lookups.bytes() > 5000);
}
