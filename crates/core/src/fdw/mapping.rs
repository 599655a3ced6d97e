//! The keys of a mapping as rows: each key is one, and the texts in it are its key columns.
use super::{
    Access, KeyAccess, Kind, Within,
    filter::{Operand, Shape, Target, common},
    glob,
};
use crate::{config::KeyTemplate, encode::key::KeyKind};

/// More keys than this are looked for by a SCAN.
const MOST_KEYS: usize = 10_000;

/// A mapping's template with the kinds of its columns.
#[derive(Clone, Debug)]
pub struct MappedKeys {
    template: KeyTemplate,
    kinds: Vec<KeyKind>,
}

impl MappedKeys {
    /// `kinds` are those of the template's columns, in their order.
    pub fn new(template: KeyTemplate, kinds: Vec<KeyKind>) -> Self {
        Self { template, kinds }
    }

    /// A pattern that all keys match, and others too.
    pub fn glob(&self) -> Vec<u8> {
        self.template.glob()
    }

    /// The texts of the key columns, if the key is one of the mapping's.
    pub fn parts<'k>(&self, key: &'k [u8]) -> Option<Vec<&'k [u8]>> {
        self.template.parse(key, &self.kinds)
    }

    /// The key for those texts; none if no row with such a key is ever stored.
    pub fn key(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        self.template.render(parts, &mut key);
        self.template.round_trips(&key, parts, &self.kinds).then_some(key)
    }

    /// The way to the rows that may meet the conditions: by name if every key column is compared by equality, else by a
    /// SCAN for the columns that are.
    pub fn access(&self, kind: Kind, conditions: Vec<(Shape, Operand)>) -> Access {
        let mut candidates: Vec<Option<Vec<Vec<u8>>>> = vec![None; self.kinds.len()];
        for (shape, operand) in conditions {
            let Target::Part(part) = shape.target else {
                continue;
            };
            if let (true, Some(known)) = (shape.narrows(kind), candidates.get_mut(part)) {
                *known = Some(common(known.take(), operand.into_many()));
            }
        }
        let count = candidates.iter().try_fold(1usize, |count, candidates| {
            count.checked_mul(candidates.as_ref()?.len())
        });
        let none = candidates.iter().flatten().any(Vec::is_empty);
        let keys = match count {
            _ if none => KeyAccess::Listed(Vec::new()),
            Some(count) if count <= MOST_KEYS => KeyAccess::Listed(self.keys(&candidates)),
            _ => {
                let pattern = self.pattern(&candidates);
                KeyAccess::Scanned {
                    scanned: pattern.clone(),
                    patterns: vec![pattern],
                }
            }
        };
        Access {
            // A pattern's `*` takes what is none of the candidates.
            exact: matches!(keys, KeyAccess::Listed(_)) || candidates.iter().all(Option::is_none),
            keys,
            within: if kind == Kind::Hash {
                Within::Record
            } else {
                Within::All
            },
        }
    }

    /// Every key that has one of the candidates for each of its columns.
    fn keys(&self, candidates: &[Option<Vec<Vec<u8>>>]) -> Vec<Vec<u8>> {
        let mut rows: Vec<Vec<&[u8]>> = vec![Vec::new()];
        for candidates in candidates {
            let candidates = candidates.iter().flatten();
            rows = candidates
                .flat_map(|text| {
                    rows.iter().map(|row| {
                        let mut row = row.clone();
                        row.push(text);
                        row
                    })
                })
                .collect();
        }
        rows.iter().filter_map(|row| self.key(row)).collect()
    }

    /// A pattern with the columns of which there is one candidate.
    fn pattern(&self, candidates: &[Option<Vec<Vec<u8>>>]) -> Vec<u8> {
        let mut pattern = glob::escape(self.template.prefix().as_bytes());
        for (part, candidates) in self.template.parts().iter().zip(candidates) {
            match candidates.as_deref() {
                Some([text]) => pattern.extend(glob::escape(text)),
                _ => pattern.push(b'*'),
            }
            pattern.extend(glob::escape(part.literal().as_bytes()));
        }
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fdw::Comparison;

    fn keys(template: &str, kinds: &[KeyKind]) -> MappedKeys {
        MappedKeys::new(template.parse().unwrap(), kinds.to_vec())
    }

    fn access(keys: &MappedKeys, conditions: &[(usize, Operand)]) -> KeyAccess {
        let conditions = conditions.iter().map(|(part, operand)| {
            let comparison = match operand {
                Operand::Many(_) => Comparison::Any,
                _ => Comparison::Equal,
            };
            let shape = Shape {
                target: Target::Part(*part),
                comparison,
            };
            (shape, operand.clone())
        });
        keys.access(Kind::Hash, conditions.collect()).keys
    }

    fn one(text: &str) -> Operand {
        Operand::One(text.into())
    }

    fn many(texts: &[&str]) -> Operand {
        Operand::Many(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
    }

    fn listed(texts: &[&str]) -> KeyAccess {
        KeyAccess::Listed(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
    }

    #[test]
    fn equality_on_every_column_is_a_list_of_keys() {
        let users = keys("user:{id}", &[KeyKind::Int]);
        assert_eq!(access(&users, &[(0, one("42"))]), listed(&["user:42"]));
        assert_eq!(
            access(&users, &[(0, many(&["1", "2", "1", "x", "007"]))]),
            listed(&["user:1", "user:2"])
        );
        assert_eq!(access(&users, &[(0, Operand::Null)]), listed(&[]));
        let places = keys("p:{country}:{zip}", &[KeyKind::Text, KeyKind::Int]);
        assert_eq!(
            access(&places, &[(0, many(&["de", "ch"])), (1, many(&["1", "2"]))]),
            listed(&["p:de:1", "p:ch:1", "p:de:2", "p:ch:2"])
        );
        // Two texts that could not be told apart are never stored.
        let texts = keys("t:{a}:{b}", &[KeyKind::Text, KeyKind::Text]);
        assert_eq!(access(&texts, &[(0, one("a:b")), (1, one("c"))]), listed(&[]));
    }

    #[test]
    fn anything_else_is_a_scan_for_what_is_known() {
        let pattern = |access| match access {
            KeyAccess::Scanned { scanned, .. } => String::from_utf8(scanned).unwrap(),
            KeyAccess::Listed(keys) => panic!("{keys:?}"),
        };
        let places = keys("p:{country}:{zip}", &[KeyKind::Text, KeyKind::Int]);
        assert_eq!(pattern(access(&places, &[])), "p:*:*");
        assert_eq!(pattern(access(&places, &[(0, one("d*"))])), r"p:d\*:*");
        let numbers: Vec<String> = (0..=MOST_KEYS).map(|n| n.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        assert_eq!(
            pattern(access(&places, &[(0, one("de")), (1, many(&numbers))])),
            "p:de:*"
        );
    }

    #[test]
    fn keys_are_read_back() {
        let places = keys("p:{country}:{zip}", &[KeyKind::Text, KeyKind::Int]);
        assert_eq!(places.parts(b"p:de:10115"), Some(vec![&b"de"[..], b"10115"]));
        assert_eq!(places.parts(b"p:de:x"), None);
    }
}
