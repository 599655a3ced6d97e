//! Hashes of which each is one row.
use super::*;

/// Mapped hashes, of which these fields are wanted.
fn fields_of(fields: &[&str], redis: impl Fn(&[&str]) -> Reply) -> All {
    let access = Access {
        keys: KeyAccess::Listed(vec![b"u:1".to_vec(), b"u:2".to_vec(), b"u:3".to_vec()]),
        within: Within::Record,
        exact: false,
    };
    let fields: Vec<Vec<u8>> = fields.iter().map(|field| field.as_bytes().to_vec()).collect();
    read(needs(Kind::Hash, false), access.with_fields(&fields), redis).unwrap()
}

fn record(fields: &[(&str, &str)]) -> Element {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    Element::Entry {
        id: vec![],
        fields: fields.map(|(name, value)| (name.into(), value.into())).collect(),
    }
}

#[test]
fn wanted_fields_alone_are_asked_for_and_a_hash_without_them_is_a_row_too() {
    let redis = |command: &[&str]| match command {
        ["HMGET", "u:1", ..] => Reply::Array(vec![Reply::Nil, bulk("x")]),
        ["HMGET", ..] => Reply::Array(vec![Reply::Nil, Reply::Nil]),
        ["HLEN", "u:3"] => Reply::Integer(0),
        ["HLEN", _] => Reply::Integer(4),
        // It was looked at between the two commands that made it.
        ["HGETALL", "u:2"] => array(&["a", "1", "c", "2"]),
        other => panic!("{other:?}"),
    };
    let (sent, rows) = fields_of(&["a", "b"], redis);
    assert_eq!(
        sent,
        [
            "HMGET u:1 a b",
            "HLEN u:1",
            "HMGET u:2 a b",
            "HLEN u:2",
            "HMGET u:3 a b",
            "HLEN u:3",
            "HGETALL u:2"
        ]
    );
    let elements: Vec<Element> = rows.into_iter().map(|(_, _, element)| element).collect();
    assert_eq!(
        elements,
        [record(&[("b", "x")]), record(&[("a", "1"), ("c", "2")])]
    );
}

#[test]
fn without_a_wanted_field_it_is_enough_that_the_hash_is_there() {
    let redis = |command: &[&str]| match command {
        ["HLEN", "u:1"] => Reply::Integer(2),
        ["HLEN", "u:2"] => Reply::Error("WRONGTYPE Operation".into()),
        ["HLEN", _] => Reply::Integer(0),
        other => panic!("{other:?}"),
    };
    let (sent, rows) = fields_of(&[], redis);
    assert_eq!(sent, ["HLEN u:1", "HLEN u:2", "HLEN u:3"]);
    assert_eq!(rows, [("u:1".to_string(), -2, record(&[]))]);
}
