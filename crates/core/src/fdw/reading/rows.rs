//! Rows that have been read and not yet been handed out. They stay in the form in which they came, a window of one
//! key's elements after the other, and each is made when it is asked for.
use std::{collections::VecDeque, vec};

use crate::fdw::{
    element::{Element, Row},
    step::Key,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Rows(VecDeque<Found>);

#[derive(Debug)]
enum Found {
    One(Row),
    Window {
        key: Key,
        ttl: i64,
        elements: vec::IntoIter<Element>,
    },
}

impl Rows {
    /// Appends a row.
    pub fn push(&mut self, row: Row) {
        self.0.push_back(Found::One(row));
    }

    /// Appends elements of one key.
    pub fn extend(&mut self, key: Key, ttl: i64, elements: Vec<Element>) {
        if !elements.is_empty() {
            let elements = elements.into_iter();
            self.0.push_back(Found::Window { key, ttl, elements });
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let count = |found: &Found| match found {
            Found::One(_) => 1,
            Found::Window { elements, .. } => elements.len(),
        };
        self.0.iter().map(count).sum()
    }

    /// Takes the first row.
    pub fn next(&mut self) -> Option<Row> {
        loop {
            if let Found::Window { key, ttl, elements } = self.0.front_mut()?
                && let Some(element) = elements.next()
            {
                return Some(Row {
                    key: key.clone(),
                    ttl: *ttl,
                    element,
                });
            }
            if let Some(Found::One(row)) = self.0.pop_front() {
                return Some(row);
            }
        }
    }
}
