//! What holds for every template, row and value, over alphabets small enough to collide often.

use proptest::prelude::*;

use super::collision::may_collide;
use super::json::JsonWriter;
use super::key::KeyKind;
use super::value::{HashWriter, Value, begin_text};
use crate::config::KeyTemplate;

/// Bytes that stand in literals and in texts alike, so that one is easily taken for the other.
const ALPHABET: &str = "[:1t-]";

fn literal(least: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("{ALPHABET}{{{least},2}}")).unwrap()
}

fn kind() -> impl Strategy<Value = KeyKind> {
    use KeyKind::*;
    prop_oneof![3 => Just(Int), 1 => Just(Uuid), 2 => Just(Bool), 3 => Just(Text)]
}

#[derive(Debug, Clone)]
struct Keyed {
    template: KeyTemplate,
    kinds: Vec<KeyKind>,
}

fn keyed() -> impl Strategy<Value = Keyed> {
    let kinds = proptest::collection::vec(kind(), 1..4);
    (kinds, proptest::collection::vec(literal(1), 4), literal(0)).prop_map(|(kinds, texts, last)| {
        let mut text = texts[0].clone();
        for column in 0..kinds.len() {
            let behind = if column + 1 < kinds.len() {
                &texts[column + 1]
            } else {
                &last
            };
            text.push_str(&format!("{{c{column}}}{behind}"));
        }
        Keyed {
            template: text.parse().unwrap(),
            kinds,
        }
    })
}

/// A column's text, from a number: the kinds of a row are not known when it is drawn.
fn value(kind: KeyKind, number: i64, text: &str) -> String {
    match kind {
        KeyKind::Int => number.to_string(),
        KeyKind::Uuid => format!("{:08x}-0000-0000-0000-000000000011", number as u32),
        KeyKind::Bool => if number % 2 == 0 { "t" } else { "f" }.to_owned(),
        KeyKind::Text => text.to_owned(),
    }
}

fn row() -> impl Strategy<Value = Vec<(i64, String)>> {
    let number = prop_oneof![4 => -12..12_i64, 1 => any::<i64>()];
    let text = proptest::string::string_regex(&format!("{ALPHABET}{{0,4}}")).unwrap();
    proptest::collection::vec((number, text), 3)
}

impl Keyed {
    fn values(&self, row: &[(i64, String)]) -> Vec<Vec<u8>> {
        let columns = self.kinds.iter().zip(row);
        columns
            .map(|(kind, (number, text))| value(*kind, *number, text).into_bytes())
            .collect()
    }

    fn key(&self, values: &[Vec<u8>]) -> Vec<u8> {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let mut key = Vec::new();
        self.template.render(&values, &mut key);
        key
    }

    fn round_trips(&self, key: &[u8], values: &[Vec<u8>]) -> bool {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        self.template.round_trips(key, &values, &self.kinds)
    }
}

/// All ways to read `key`, by trying every length for every column: slow, and free of the parser's reasoning.
/// Integers take all the digits there are, as the documented reading says.
fn readings(keyed: &Keyed, key: &[u8]) -> Vec<Vec<Vec<u8>>> {
    fn rest(keyed: &Keyed, column: usize, key: &[u8], found: &[Vec<u8>], all: &mut Vec<Vec<Vec<u8>>>) {
        let literal = match column {
            0 => keyed.template.prefix(),
            _ => keyed.template.parts()[column - 1].literal(),
        };
        let Some(key) = key.strip_prefix(literal.as_bytes()) else {
            return;
        };
        if column == keyed.kinds.len() {
            if key.is_empty() {
                all.push(found.to_vec());
            }
            return;
        }
        for length in 0..=key.len() {
            let (value, behind) = key.split_at(length);
            if fits(keyed.kinds[column], value, behind) {
                let found = [found, &[value.to_vec()]].concat();
                rest(keyed, column + 1, behind, &found, all);
            }
        }
    }
    let mut all = Vec::new();
    rest(keyed, 0, key, &[], &mut all);
    all
}

fn fits(kind: KeyKind, value: &[u8], behind: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    match kind {
        KeyKind::Int => {
            text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
                && !behind.first().is_some_and(u8::is_ascii_digit)
        }
        KeyKind::Uuid => {
            let groups: Vec<usize> = text.split('-').map(str::len).collect();
            let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
            groups == [8, 4, 4, 4, 12] && text.bytes().all(hexadecimal)
        }
        KeyKind::Bool => text == "t" || text == "f",
        KeyKind::Text => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_key_reads_back_where_no_check_is_needed(keyed in keyed(), row in row()) {
        let values = keyed.values(&row);
        let key = keyed.key(&values);
        if keyed.template.is_unambiguous(&keyed.kinds) {
            prop_assert!(keyed.round_trips(&key, &values), "{} {:?}", keyed.template, key);
        }
    }

    #[test]
    fn a_key_is_read_in_the_documented_way(keyed in keyed(), row in row()) {
        let key = keyed.key(&keyed.values(&row));
        let read = keyed.template.parse(&key, &keyed.kinds);
        let read = read.map(|values| values.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
        // Lengths are tried from the shortest, so the first reading has the shortest texts, leftmost first.
        prop_assert_eq!(read, readings(&keyed, &key).into_iter().next());
    }

    #[test]
    fn what_parses_renders_to_the_same_key(keyed in keyed(), key in "[:1t-]{0,8}") {
        if let Some(values) = keyed.template.parse(key.as_bytes(), &keyed.kinds) {
            let values: Vec<Vec<u8>> = values.into_iter().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(keyed.key(&values), key.as_bytes());
            prop_assert!(keyed.round_trips(key.as_bytes(), &values));
        }
    }

    #[test]
    fn templates_that_cannot_collide_never_do(a in keyed(), b in keyed(), rows in (row(), row())) {
        let (key_a, key_b) = (a.key(&a.values(&rows.0)), b.key(&b.values(&rows.1)));
        let parses = b.template.parse(&key_a, &b.kinds).is_some();
        if key_a == key_b || parses {
            prop_assert!(may_collide(&a.template, &a.kinds, &b.template, &b.kinds));
        }
    }

    #[test]
    fn every_glob_matches_the_keys_of_its_template(keyed in keyed(), row in row()) {
        let key = keyed.key(&keyed.values(&row));
        prop_assert!(glob_matches(&keyed.template.glob(), &key));
    }

    #[test]
    fn a_hash_decodes_to_its_fields(
        fields in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..8),
        complete in any::<bool>(),
    ) {
        let mut out = b"x".to_vec();
        let mut writer = HashWriter::begin(&mut out);
        for (name, value) in &fields {
            writer.field(name, value);
        }
        if !complete {
            writer.null();
        }
        prop_assert_eq!(writer.finish(), !fields.is_empty());
        if fields.is_empty() {
            prop_assert_eq!(out, b"x");
        } else {
            let Ok(Value::Hash(hash)) = Value::decode(&out[1..]) else { return Err(TestCaseError::fail("no hash")) };
            prop_assert_eq!((hash.field_count(), hash.complete()), (fields.len(), complete));
            let read: Vec<_> = hash.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(read, fields);
        }
    }

    #[test]
    fn a_text_decodes_to_its_bytes(text in any::<Vec<u8>>()) {
        let mut out = Vec::new();
        begin_text(&mut out);
        out.extend_from_slice(&text);
        prop_assert_eq!(Value::decode(&out), Ok(Value::Text(&text)));
    }

    #[test]
    fn no_bytes_make_decode_panic(tag in 0..4_u8, bytes in proptest::collection::vec(0..6_u8, 0..40)) {
        let bytes = [&[tag][..], &bytes].concat();
        if let Ok(Value::Hash(hash)) = Value::decode(&bytes) {
            prop_assert_eq!(hash.field_count(), hash.fields().count());
        }
    }

    #[test]
    fn an_object_is_json_with_the_same_strings(fields in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..5)) {
        let mut out = Vec::new();
        let mut writer = JsonWriter::begin(&mut out);
        for (name, text) in &fields {
            writer.text(name, text.as_bytes());
        }
        prop_assert!(writer.finish());
        let read: std::collections::BTreeMap<String, String> = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(read, fields);
    }
}

/// Redis's glob, as far as patterns of ours use it: `*` and escaped characters.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| glob_matches(rest, &text[skipped..])),
        ([b'\\', escaped, rest @ ..], [first, behind @ ..]) => escaped == first && glob_matches(rest, behind),
        ([plain, rest @ ..], [first, behind @ ..]) => plain == first && glob_matches(rest, behind),
        (_, []) => false,
    }
}
