//! Keys: rendering by a [`KeyTemplate`], and the one way in which a key is read back.
//!
//! **One key belongs to one row.** [`KeyTemplate::parse`] reads a key in one fixed way, or not at all. A row is
//! cached only if its key reads back as its own column values ([`KeyTemplate::round_trips`]); as one key has
//! one reading, two rows can then never share one. Where [`KeyTemplate::is_unambiguous`] holds that is known
//! beforehand and needs no look at the row.
//!
//! The reading, from left to right:
//! - literal text must stand there as it is;
//! - [`KeyKind::Int`] takes a minus sign if one stands there and then every digit up to the next other byte;
//!   it must be what PostgreSQL prints for some int8, so no leading zeros and no `-0`;
//! - [`KeyKind::Uuid`] takes 36 bytes, [`KeyKind::Bool`] one;
//! - [`KeyKind::Text`] takes as few bytes as let all of the rest be read; none is possible.
//!
//! It takes one pass without going back over a choice: between two text columns everything reads in only
//! one way from a given start, and a later start never ends earlier, so the leftmost start leaves the most
//! for what follows. The time is the key's length times the length of the literals and typed columns
//! between two text columns, at worst.

use std::hash::Hasher;
use std::ops::Range;

use crate::config::{KeyPart, KeyTemplate, MAX_KEY_COLUMNS};

/// What texts a key column can have: those of PostgreSQL's output functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// int2, int4, int8: canonical decimal.
    Int,
    /// uuid: lower-case hexadecimal, 8-4-4-4-12.
    Uuid,
    /// bool: `t` or `f`.
    Bool,
    /// Any other type: any bytes, none at all too.
    Text,
}

/// A 64-bit hash of a key, whose every bit depends on every byte: it picks lane, slot and tag. The same in
/// every process of one build; not kept anywhere that outlives one, and not made to withstand keys chosen
/// to collide (two keys in one slot are safe, only slower).
pub fn key_hash(key: &[u8]) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(key);
    // FxHasher leaves mixing of the low bits to its table; this is MurmurHash3's final step.
    let mut hash = hasher.finish();
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

impl KeyKind {
    /// The length of this kind's text at the start of `bytes`; none if no such text begins there, or for
    /// [`KeyKind::Text`], whose length is not its own to tell.
    fn length(self, bytes: &[u8]) -> Option<usize> {
        match self {
            KeyKind::Int => int_length(bytes),
            KeyKind::Uuid => bytes
                .get(..UUID_BYTES)
                .filter(|text| is_uuid(text))
                .map(<[u8]>::len),
            KeyKind::Bool => matches!(bytes.first(), Some(b't' | b'f')).then_some(1),
            KeyKind::Text => None,
        }
    }
}

/// The length of a uuid's text.
const UUID_BYTES: usize = 36;

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    })
}

fn int_length(bytes: &[u8]) -> Option<usize> {
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, bytes),
    };
    // One digit too many is enough to know: an endless number must not cost endless time at every start.
    let most = INT8_MAX.len() + 1;
    let count = digits
        .iter()
        .take(most)
        .take_while(|b| b.is_ascii_digit())
        .count();
    let digits = &digits[..count];
    let canonical = match digits {
        [] => false,
        [b'0'] => !negative,
        [b'0', ..] => false,
        _ => {
            count < INT8_MAX.len()
                || (count == INT8_MAX.len() && digits <= if negative { INT8_MIN } else { INT8_MAX })
        }
    };
    canonical.then_some(count + usize::from(negative))
}

/// The digits of the largest and of the smallest int8.
const INT8_MAX: &[u8] = b"9223372036854775807";
const INT8_MIN: &[u8] = b"9223372036854775808";

/// Where the columns' values stand in a key; entries beyond the template's columns are unused.
type Places = [Range<usize>; MAX_KEY_COLUMNS];

const NOWHERE: Range<usize> = 0..0;

impl KeyTemplate {
    /// The key columns in their order in the template; each stands there once.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parts().iter().map(KeyPart::column)
    }

    /// Appends the key for `values`, the columns' texts in the order of [`KeyTemplate::columns`]. A value
    /// that is missing counts as empty, one too many as not there.
    pub fn render(&self, values: &[&[u8]], out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix().as_bytes());
        for (place, part) in self.parts().iter().enumerate() {
            out.extend_from_slice(values.get(place).copied().unwrap_or_default());
            out.extend_from_slice(part.literal().as_bytes());
        }
    }

    /// The columns' values in `key` by the one reading above, or none if it is no key of this template.
    /// `kinds` are those of [`KeyTemplate::columns`], in that order; none comes back for a wrong number.
    pub fn parse<'k>(&self, key: &'k [u8], kinds: &[KeyKind]) -> Option<Vec<&'k [u8]>> {
        let places = self.locate(key, kinds)?;
        places
            .into_iter()
            .take(kinds.len())
            .map(|place| key.get(place))
            .collect()
    }

    /// Whether `key` is one of this template: whether [`KeyTemplate::parse`] reads it. Allocates nothing.
    pub fn is_key(&self, key: &[u8], kinds: &[KeyKind]) -> bool {
        self.locate(key, kinds).is_some()
    }

    /// Whether `key`, rendered from `values`, reads back as those values: only then may the row be cached.
    /// Allocates nothing.
    pub fn round_trips(&self, key: &[u8], values: &[&[u8]], kinds: &[KeyKind]) -> bool {
        let Some(places) = self.locate(key, kinds) else {
            return false;
        };
        values.len() == kinds.len()
            && values
                .iter()
                .zip(places)
                .all(|(value, place)| key.get(place) == Some(*value))
    }

    /// Whether the key of every possible row reads back as that row's values. It may say no where that is
    /// so, never yes where it is not.
    ///
    /// Two text columns can always trade bytes. An integer goes on as long as digits follow. Behind the text
    /// column the key is read from its end: there an integer must not run into the literal before it.
    pub fn is_unambiguous(&self, kinds: &[KeyKind]) -> bool {
        let texts = kinds.iter().filter(|kind| **kind == KeyKind::Text).count();
        if texts > 1 || kinds.len() != self.parts().len() {
            return false;
        }
        let mut before = self.prefix();
        let mut behind_text = false;
        for (part, kind) in self.parts().iter().zip(kinds) {
            let digit_follows = part.literal().starts_with(|c: char| c.is_ascii_digit());
            let number_before = before.ends_with(|c: char| c.is_ascii_digit() || c == '-');
            if *kind == KeyKind::Int && (digit_follows || (behind_text && number_before)) {
                return false;
            }
            behind_text |= *kind == KeyKind::Text;
            before = part.literal();
        }
        true
    }

    /// A pattern for SCAN MATCH that all keys of this template match, and others too: what it finds is to be
    /// parsed. Special characters of Redis's glob patterns are escaped.
    pub fn glob(&self) -> Vec<u8> {
        let mut pattern = Vec::new();
        let literal = |text: &str, pattern: &mut Vec<u8>| {
            for byte in text.bytes() {
                if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
                    pattern.push(b'\\');
                }
                pattern.push(byte);
            }
        };
        literal(self.prefix(), &mut pattern);
        for part in self.parts() {
            pattern.push(b'*');
            literal(part.literal(), &mut pattern);
        }
        pattern
    }

    /// Finds the columns' values in `key`.
    fn locate(&self, key: &[u8], kinds: &[KeyKind]) -> Option<Places> {
        let parts = self.parts();
        if kinds.len() != parts.len() {
            return None;
        }
        let mut places = [NOWHERE; MAX_KEY_COLUMNS];
        let mut run = Run {
            literal: self.prefix(),
            parts,
            kinds,
            first: 0,
        };
        let mut at = run.read(key, 0, &mut places)?;
        while let Some(text) = run.text_behind() {
            // The run behind a text column begins at the leftmost place where it can be read.
            let next = run.behind(text);
            let last = next.text_behind().is_none();
            let starts = at..=key.len();
            let (start, end) = starts.into_iter().find_map(|start| {
                let end = next.read(key, start, &mut places)?;
                (!last || end == key.len()).then_some((start, end))
            })?;
            places[text] = at..start;
            at = end;
            run = next;
        }
        (at == key.len()).then_some(places)
    }
}

/// A literal and the typed columns with literals that follow it, up to the next text column: a piece of a
/// key that can be read in only one way from a given start.
#[derive(Clone, Copy)]
struct Run<'t> {
    literal: &'t str,
    parts: &'t [KeyPart],
    kinds: &'t [KeyKind],
    /// The first column of the run.
    first: usize,
}

impl<'t> Run<'t> {
    /// Reads the run from `start` and notes its columns' places; the end, or none if it does not stand there.
    fn read(&self, key: &[u8], start: usize, places: &mut Places) -> Option<usize> {
        let mut at = skip(key, start, self.literal)?;
        for column in self.columns() {
            let length = self.kinds[column].length(&key[at..])?;
            places[column] = at..at + length;
            at = skip(key, at + length, self.parts[column].literal())?;
        }
        Some(at)
    }

    /// The run's columns.
    fn columns(&self) -> Range<usize> {
        self.first..self.text_behind().unwrap_or(self.kinds.len())
    }

    /// The text column that ends the run; none if the template ends with it.
    fn text_behind(&self) -> Option<usize> {
        (self.first..self.kinds.len()).find(|column| self.kinds[*column] == KeyKind::Text)
    }

    /// The run that begins behind the text column `text`.
    fn behind(&self, text: usize) -> Run<'t> {
        Run {
            literal: self.parts[text].literal(),
            first: text + 1,
            ..*self
        }
    }
}

/// The place behind `literal` if it stands at `at`, which is within the key.
fn skip(key: &[u8], at: usize, literal: &str) -> Option<usize> {
    key[at..]
        .starts_with(literal.as_bytes())
        .then_some(at + literal.len())
}

#[cfg(test)]
mod tests {
    use super::KeyKind::*;
    use super::*;

    fn template(text: &str) -> KeyTemplate {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The values read from `key`, as text.
    fn read(text: &str, kinds: &[KeyKind], key: &str) -> Option<Vec<String>> {
        let values = template(text).parse(key.as_bytes(), kinds)?.into_iter();
        Some(
            values
                .map(|value| String::from_utf8_lossy(value).into_owned())
                .collect(),
        )
    }

    fn values(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn a_key_is_the_literals_with_the_values_between() {
        let template = template("{{u}}:{a}:{b}!");
        let mut out = b"before ".to_vec();
        template.render(&[b"1", b"x\0\xff"], &mut out);
        assert_eq!(out, b"before {u}:1:x\0\xff!");
    }

    #[test]
    fn integers_are_read_to_their_last_digit_and_must_be_canonical() {
        for number in [
            "0",
            "7",
            "-7",
            "10",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert_eq!(read("u:{id}", &[Int], &format!("u:{number}")), values(&[number]));
        }
        for other in [
            "",
            "-",
            "-0",
            "00",
            "07",
            "-07",
            "+7",
            "7 ",
            "7:cart",
            "a",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            assert_eq!(read("u:{id}", &[Int], &format!("u:{other}")), None, "{other}");
        }
        assert_eq!(read("u:{a}-{b}", &[Int, Int], "u:5--3"), values(&["5", "-3"]));
        assert_eq!(
            read("u:{a}1{b}", &[Int, Int], "u:211"),
            None,
            "the digits are all of the first"
        );
    }

    #[test]
    fn uuids_and_booleans_have_their_form() {
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        assert_eq!(
            read("u:{id}:{ok}", &[Uuid, Bool], &format!("u:{uuid}:t")),
            values(&[uuid, "t"])
        );
        assert_eq!(read("u:{id}{{", &[Bool], "u:f{"), values(&["f"]));
        for other in [
            uuid.to_uppercase(),
            uuid.replace('-', "_"),
            uuid[..35].to_owned(),
            format!("{uuid}0"),
        ] {
            assert_eq!(read("u:{id}", &[Uuid], &format!("u:{other}")), None, "{other}");
        }
        assert_eq!(read("u:{ok}", &[Bool], "u:true"), None);
    }

    #[test]
    fn text_takes_as_little_as_lets_the_rest_be_read() {
        let two = |key| read("u:{a}:{b}", &[Text, Text], key);
        assert_eq!(two("u:x:y"), values(&["x", "y"]));
        assert_eq!(two("u:x:y:z"), values(&["x", "y:z"]));
        assert_eq!(two("u::"), values(&["", ""]));
        assert_eq!(two("u:x"), None);
        assert_eq!(read("u:{a}:", &[Text], "u:x:y:"), values(&["x:y"]));
        assert_eq!(read("u:{a}:{n}", &[Text, Int], "u:1:2:3"), values(&["1:2", "3"]));
        assert_eq!(
            read("u:{a}:{n}:{b}", &[Text, Int, Text], "u::x:5:6:7"),
            values(&[":x", "5", "6:7"])
        );
        assert_eq!(read("u:{a}", &[Text], "u:"), values(&[""]));
        assert_eq!(read("u:{a}", &[Text], "v:"), None);
        assert!(template("u:{a}:").is_key(b"u:x:", &[Text]));
        assert!(!template("u:{a}:").is_key(b"u:x", &[Text]));
    }

    #[test]
    fn a_long_key_costs_time_in_proportion_to_its_length() {
        // Quadratic time would be 10^12 steps here.
        let digits = format!("u:{}", "1".repeat(1_000_000));
        assert_eq!(
            read("u:{a}1{n}", &[Text, Int], &digits).map(|values| values[1].len()),
            Some(19)
        );
        assert_eq!(read("u:{a}1{n}x{b}", &[Text, Int, Text], &digits), None);
    }

    #[test]
    fn a_wrong_number_of_kinds_or_values_matches_nothing() {
        assert_eq!(read("u:{id}", &[], "u:1"), None);
        assert_eq!(read("u:{id}", &[Int, Int], "u:1"), None);
        assert!(!template("u:{id}").round_trips(b"u:1", &[], &[Int]));
    }

    #[test]
    fn only_one_of_two_rows_with_one_key_reads_back() {
        let template = template("u:{a}:{b}");
        let kinds = [Text, Text];
        let round_trips = |row: &[&[u8]]| {
            let mut key = Vec::new();
            template.render(row, &mut key);
            assert_eq!(key, b"u:x:y:z");
            template.round_trips(&key, row, &kinds)
        };
        assert!(round_trips(&[b"x", b"y:z"]));
        assert!(!round_trips(&[b"x:y", b"z"]));
    }

    #[test]
    fn templates_that_need_no_check_are_known() {
        for (text, kinds) in [
            ("u:{a}", &[Int][..]),
            ("u:{a}", &[Text]),
            ("u:{a}:{b}", &[Int, Text]),
            ("u:{a}:{b}", &[Text, Int]),
            ("u:{a}-{b}", &[Int, Int]),
            ("u{a}1", &[Text]),
            ("u{a}1{b}2{c}", &[Uuid, Bool, Text]),
            ("u1{a}", &[Int]),
        ] {
            assert!(template(text).is_unambiguous(kinds), "{text} {kinds:?}");
        }
        for (text, kinds) in [
            ("u:{a}:{b}", &[Text, Text][..]),
            ("u:{a}:{b}:{c}", &[Text, Int, Text]),
            ("u:{a}1", &[Int]),
            ("u:{a}-{b}", &[Text, Int]),
            ("u:{a}1{b}", &[Text, Int]),
            ("u:{a}", &[]),
        ] {
            assert!(!template(text).is_unambiguous(kinds), "{text} {kinds:?}");
        }
    }

    #[test]
    fn a_glob_takes_literal_text_literally() {
        assert_eq!(
            template("a*[b]?\\^-{x}:{y}{{").glob(),
            b"a\\*\\[b\\]\\?\\\\^-*:*{"
        );
    }

    #[test]
    fn hashes_of_similar_keys_spread_over_slots_and_lanes() {
        const SLOTS: usize = 1024;
        let mut low = vec![0_u32; SLOTS];
        let mut high = vec![0_u32; SLOTS];
        for id in 0..64 * SLOTS {
            let hash = key_hash(format!("user:{id}").as_bytes());
            low[hash as usize % SLOTS] += 1;
            high[(hash >> 54) as usize] += 1;
        }
        // 64 are expected, with a standard deviation of 8.
        for count in low.iter().chain(&high) {
            assert!((16..=128).contains(count), "{count} keys in one of {SLOTS} slots");
        }
    }
}
