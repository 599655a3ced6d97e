//! Whether two templates could produce the same key.
//!
//! Each template with its columns' kinds is a small automaton over bytes: literals are chains, a uuid is a
//! chain of classes, an integer a few states, text a loop over any byte. Two templates can meet in a key if
//! the product of the two reaches an end of both. It is exact but for the size of integers, which here may
//! have any number of digits, and for rows that are not cached because their key does not read back: in
//! those two cases it may say "could" where nothing can.

use std::collections::HashSet;

use super::key::KeyKind;
use crate::config::{KeyTemplate, RESERVED_PREFIX};

/// A step to another state on any byte from `low` to `high`.
#[derive(Clone, Copy)]
struct Edge {
    low: u8,
    high: u8,
    to: usize,
}

/// An automaton without empty steps: it starts in state 0 and accepts in its last one.
struct Automaton {
    /// The edges out of each state.
    states: Vec<Vec<Edge>>,
}

impl Automaton {
    fn new() -> Self {
        Automaton {
            states: vec![Vec::new()],
        }
    }

    fn of(template: &KeyTemplate, kinds: &[KeyKind]) -> Self {
        let mut automaton = Automaton::new();
        automaton.literal(template.prefix());
        for (place, part) in template.parts().iter().enumerate() {
            // A column of unknown kind could hold anything.
            automaton.column(kinds.get(place).copied().unwrap_or(KeyKind::Text));
            automaton.literal(part.literal());
        }
        automaton
    }

    fn end(&self) -> usize {
        self.states.len() - 1
    }

    fn new_state(&mut self) -> usize {
        self.states.push(Vec::new());
        self.end()
    }

    fn edge(&mut self, from: usize, low: u8, high: u8, to: usize) {
        self.states[from].push(Edge { low, high, to });
    }

    /// One more byte out of `classes`, which are ranges.
    fn byte(&mut self, classes: &[(u8, u8)]) {
        let from = self.end();
        let to = self.new_state();
        for &(low, high) in classes {
            self.edge(from, low, high, to);
        }
    }

    fn literal(&mut self, text: &str) {
        for byte in text.bytes() {
            self.byte(&[(byte, byte)]);
        }
    }

    fn column(&mut self, kind: KeyKind) {
        match kind {
            KeyKind::Bool => self.byte(&[(b't', b't'), (b'f', b'f')]),
            KeyKind::Uuid => {
                for group in [8, 4, 4, 4, 12] {
                    if group != 8 {
                        // four hyphens, before each group but the first
                        self.byte(&[(b'-', b'-')]);
                    }
                    for _ in 0..group {
                        self.byte(&[(b'0', b'9'), (b'a', b'f')]);
                    }
                }
            }
            KeyKind::Int => self.integer(),
            KeyKind::Text => {
                let here = self.end();
                self.edge(here, 0, u8::MAX, here);
            }
        }
    }

    /// `0`, or digits that begin with another one, with a minus sign or without.
    fn integer(&mut self) {
        let start = self.end();
        let signed = self.new_state();
        let digits = self.new_state();
        let end = self.new_state();
        self.edge(start, b'0', b'0', end);
        self.edge(start, b'-', b'-', signed);
        for from in [start, signed] {
            self.edge(from, b'1', b'9', digits);
            self.edge(from, b'1', b'9', end);
        }
        self.edge(digits, b'0', b'9', digits);
        self.edge(digits, b'0', b'9', end);
    }

    /// Whether some text is accepted by both.
    fn meets(&self, other: &Automaton) -> bool {
        let mut seen = HashSet::from([(0, 0)]);
        let mut open = vec![(0, 0)];
        while let Some((here, there)) = open.pop() {
            if here == self.end() && there == other.end() {
                return true;
            }
            for a in &self.states[here] {
                for b in &other.states[there] {
                    let common_byte = a.low.max(b.low) <= a.high.min(b.high);
                    if common_byte && seen.insert((a.to, b.to)) {
                        open.push((a.to, b.to));
                    }
                }
            }
        }
        false
    }
}

/// Whether a row of one mapping and a row of another could have the same key. False only if that cannot be.
/// The kinds are those of each template's columns, in their order.
pub fn may_collide(a: &KeyTemplate, a_kinds: &[KeyKind], b: &KeyTemplate, b_kinds: &[KeyKind]) -> bool {
    Automaton::of(a, a_kinds).meets(&Automaton::of(b, b_kinds))
}

/// Whether a row's key could begin with [`RESERVED_PREFIX`], as the extension's own keys do. False only if
/// that cannot be; `pg_{name}` over text can, though the template itself does not begin so.
pub fn may_be_reserved(template: &KeyTemplate, kinds: &[KeyKind]) -> bool {
    let mut reserved = Automaton::new();
    reserved.literal(RESERVED_PREFIX);
    reserved.column(KeyKind::Text);
    Automaton::of(template, kinds).meets(&reserved)
}

#[cfg(test)]
mod tests {
    use super::KeyKind::*;
    use super::*;

    fn collide(a: &str, a_kinds: &[KeyKind], b: &str, b_kinds: &[KeyKind]) -> bool {
        let (a, b): (KeyTemplate, KeyTemplate) = (a.parse().unwrap(), b.parse().unwrap());
        let forth = may_collide(&a, a_kinds, &b, b_kinds);
        assert_eq!(
            forth,
            may_collide(&b, b_kinds, &a, a_kinds),
            "the question has no direction"
        );
        forth
    }

    #[test]
    fn typed_columns_keep_nested_keys_apart() {
        assert!(!collide("user:{id}", &[Int], "user:{id}:cart", &[Int]));
        assert!(collide("user:{name}", &[Text], "user:{id}:cart", &[Int]));
        assert!(!collide("user:{id}", &[Uuid], "user:{id}:cart", &[Uuid]));
        assert!(!collide("user:{id}", &[Bool], "user:{id}", &[Int]));
        assert!(!collide("user:{id}", &[Uuid], "user:{id}", &[Int]));
    }

    #[test]
    fn the_same_shape_collides() {
        assert!(collide("user:{id}", &[Int], "user:{nr}", &[Int]));
        assert!(collide("a:{x}:{y}", &[Int, Text], "a:{x}", &[Text]));
        assert!(collide("a{x}", &[Int], "a-{y}", &[Int]), "a-5");
        assert!(collide("a{x}", &[Int], "a1{y}", &[Int]), "a15");
        assert!(!collide("a{x}", &[Int], "a0{y}", &[Int]), "no leading zeros");
    }

    #[test]
    fn empty_text_counts() {
        assert!(collide("a{x}", &[Text], "ab{y}c", &[Text]));
        assert!(collide("a{x}b", &[Text], "ab{y}", &[Text]));
        assert!(!collide("a{x}b", &[Text], "a{y}c", &[Text]));
    }

    #[test]
    fn keys_of_the_extension_are_recognized() {
        let reserved = |text: &str, kind| may_be_reserved(&text.parse().unwrap(), &[kind]);
        assert!(reserved("pg_{name}", Text));
        assert!(!reserved("pg_{id}", Int));
        assert!(!reserved("user:{name}", Text));
    }
}
