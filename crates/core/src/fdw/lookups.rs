//! Many look-ups in one go: what the next rows of a join's other side will ask for.
//!
//! Each look-up is an [`Access`] of its own; those of one key become one command with many names, those of one sort
//! one reading of many keys. What a look-up gets is exactly what its own reading would have found by name, so a
//! condition that need not be checked again there need not be here.
//!
//! Does not: bound what it keeps. The caller looks at [`Lookups::bytes`] and gives up what grows too large.
use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    Access, Commands, Element, KeyAccess, ReadProblem, Reading, Reply, Row, Within,
    reading::Needs,
    step::{self, Key},
};

/// See the module.
#[derive(Debug)]
pub struct Lookups {
    /// First those that read by name, then those that read keys whole.
    readings: Vec<Reading>,
    by_name: usize,
    /// The reading to which the next answer belongs, unless that has all of its own.
    turn: usize,
    /// By look-up; none if it must be read by itself.
    wanted: Vec<Option<Wanted>>,
    named: HashMap<Key, HashMap<Vec<u8>, Rc<Row>>>,
    whole: HashMap<Key, Vec<Rc<Row>>>,
    bytes: usize,
}

/// Where a look-up's rows are found: under these keys, and of these names if it has names.
#[derive(Debug)]
struct Wanted {
    keys: Vec<Vec<u8>>,
    names: Option<Vec<Vec<u8>>>,
}

impl Lookups {
    /// Gathers look-ups; nothing is asked yet. `window` is how many elements are asked for before their size is known.
    pub fn new(needs: Needs, accesses: Vec<Access>, window: usize) -> Self {
        let mut gathered = Gathered::default();
        let wanted = accesses.into_iter().map(|access| gathered.add(access)).collect();
        let by_name = gathered.named.len();
        let reading = |access| Reading::new(needs, access).with_window(window);
        Self {
            readings: gathered.into_accesses().map(reading).collect(),
            by_name,
            turn: 0,
            wanted,
            named: HashMap::new(),
            whole: HashMap::new(),
            bytes: 0,
        }
    }

    /// Appends the next commands, once all that were asked before are answered. None: all has been read.
    pub fn ask(&mut self, commands: &mut Commands) {
        self.turn = 0;
        self.readings.iter_mut().for_each(|reading| reading.ask(commands));
    }

    /// Whether answers are still to come.
    pub fn is_waiting(&self) -> bool {
        self.readings[self.turn..].iter().any(Reading::is_waiting)
    }

    /// Takes the next answer.
    ///
    /// # Errors
    /// As [`Reading::answer`].
    pub fn answer(&mut self, reply: Reply) -> Result<(), ReadProblem> {
        let waiting = self.readings[self.turn..].iter().position(Reading::is_waiting);
        self.turn += waiting.ok_or(ReadProblem::Unexpected)?;
        let reading = &mut self.readings[self.turn];
        reading.answer(reply)?;
        while let Some(row) = reading.next_row() {
            self.bytes += row.key.len() + row.element.size() + size_of::<Row>();
            let row = Rc::new(row);
            let key = Rc::clone(&row.key);
            if self.turn < self.by_name {
                self.named
                    .entry(key)
                    .or_default()
                    .insert(name_of(&row.element), row);
            } else {
                self.whole.entry(key).or_default().push(row);
            }
        }
        Ok(())
    }

    /// About how many bytes the rows have that were found so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many elements a window came to have, as a first guess for the next look-ups.
    pub fn window(&self) -> Option<usize> {
        self.readings.iter().map(Reading::window).min()
    }

    /// How many look-ups were gathered.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The rows of a look-up, by its place among those that were gathered; none if it must be read by itself.
    pub fn rows(&self, lookup: usize) -> Option<Vec<Rc<Row>>> {
        let Wanted { keys, names } = self.wanted.get(lookup)?.as_ref()?;
        let Some(names) = names else {
            let rows = keys.iter().filter_map(|key| self.whole.get(&key[..]));
            return Some(rows.flatten().cloned().collect());
        };
        let rows = keys.iter().filter_map(|key| self.named.get(&key[..]));
        let rows = rows.flat_map(|rows| names.iter().filter_map(|name| rows.get(name)));
        Some(rows.cloned().collect())
    }
}

/// The accesses that are left of many.
#[derive(Default)]
struct Gathered {
    /// By name: which names of which keys.
    named: HashMap<Vec<Vec<u8>>, Names>,
    /// The keys of which all is read that the first look-up reads.
    whole: Option<(HashSet<Vec<u8>>, Within)>,
}

/// Names that were asked for, each once, in their order.
struct Names {
    within: Within,
    seen: HashSet<Vec<u8>>,
}

impl Gathered {
    fn add(&mut self, access: Access) -> Option<Wanted> {
        let KeyAccess::Listed(keys) = access.keys else {
            return None;
        };
        let Some(names) = names_of(&access.within) else {
            return self.add_whole(keys, access.within);
        };
        let all = self.named.entry(keys.clone()).or_insert_with(|| Names {
            within: emptied(&access.within),
            seen: HashSet::new(),
        });
        all.add(access.within);
        let names = Some(names);
        Some(Wanted { keys, names })
    }

    fn add_whole(&mut self, keys: Vec<Vec<u8>>, within: Within) -> Option<Wanted> {
        let (all, known) = self.whole.get_or_insert_with(|| (HashSet::new(), within.clone()));
        // What another look-up finds under the same key must not be taken for this one's.
        (*known == within).then(|| {
            all.extend(keys.iter().cloned());
            Wanted { keys, names: None }
        })
    }

    fn into_accesses(self) -> impl Iterator<Item = Access> {
        let named = self.named.into_iter().map(|(keys, names)| Access {
            keys: KeyAccess::Listed(keys),
            within: names.within,
            // Of what is read for many, each look-up takes its own.
            exact: false,
        });
        let whole = self.whole.map(|(keys, within)| Access {
            keys: KeyAccess::Listed(keys.into_iter().collect()),
            within,
            exact: false,
        });
        named.chain(whole)
    }
}

impl Names {
    fn add(&mut self, within: Within) {
        match (&mut self.within, within) {
            (Within::Names(all), Within::Names(names)) => {
                all.extend(names.into_iter().filter(|name| self.seen.insert(name.clone())));
            }
            (Within::Indexes(all), Within::Indexes(points)) => {
                let new = |point: &(i64, i64)| self.seen.insert(point.0.to_string().into_bytes());
                all.extend(points.into_iter().filter(new));
            }
            (Within::Ids(all), Within::Ids(points)) => {
                all.extend(
                    points
                        .into_iter()
                        .filter(|point| self.seen.insert(point.0.clone())),
                );
            }
            // The look-ups of one join differ in their operands alone.
            _ => {}
        }
    }
}

/// The names of what is read by name, or by a point that names one element.
fn names_of(within: &Within) -> Option<Vec<Vec<u8>>> {
    match within {
        Within::Names(names) => Some(names.clone()),
        Within::Indexes(points) if points.iter().all(|(from, to)| from == to) => Some(
            points
                .iter()
                .map(|(from, _)| from.to_string().into_bytes())
                .collect(),
        ),
        Within::Ids(points) if points.iter().all(|(from, to)| from == to) => {
            Some(points.iter().map(|(from, _)| from.clone()).collect())
        }
        _ => None,
    }
}

fn emptied(within: &Within) -> Within {
    match within {
        Within::Indexes(_) => Within::Indexes(Vec::new()),
        Within::Ids(_) => Within::Ids(Vec::new()),
        _ => Within::Names(Vec::new()),
    }
}

/// The name by which [`names_of`] has asked for an element.
fn name_of(element: &Element) -> Vec<u8> {
    match element {
        Element::Item { index, .. } => index.to_string().into_bytes(),
        Element::Entry { id, .. } => id.clone(),
        element => step::identity(element).unwrap_or_default().to_vec(),
    }
}

#[cfg(test)]
mod tests;
