//! Completeness: how many rows a transaction was seen to change, to be compared with what PostgreSQL counted.
//!
//! PostgreSQL counts, for each relation, the rows that a transaction inserts, updates and deletes, on every path
//! there is. What was captured is counted here, savepoint by savepoint, as there. If the two differ, something has
//! changed rows out of sight, and what it was is unknown: the mapping is purged.

use rustc_hash::FxHashMap;

/// The nest level of a transaction outside of all savepoints.
const TOP_LEVEL: u32 = 1;

/// What was seen of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Insert,
    /// It was replaced within its relation.
    Update,
    /// It is gone from its relation.
    Delete,
    /// A MERGE has updated or deleted it; which of the two was not seen.
    Either,
}

/// Rows of one relation that were seen to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    inserted: u64,
    updated: u64,
    deleted: u64,
    either: u64,
}

/// What PostgreSQL counted for one relation (`PgStat_TableXactStatus`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// `tuples_inserted`.
    pub inserted: u64,
    /// `tuples_updated`.
    pub updated: u64,
    /// `tuples_deleted`.
    pub deleted: u64,
    /// `truncdropped`: truncated or dropped, the other counts are those since.
    pub truncated: bool,
}

impl Tally {
    fn add(&mut self, change: Change) {
        *match change {
            Change::Insert => &mut self.inserted,
            Change::Update => &mut self.updated,
            Change::Delete => &mut self.deleted,
            Change::Either => &mut self.either,
        } += 1;
    }

    fn merge(&mut self, other: &Tally) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.either += other.either;
    }

    /// Whether every update and delete that was counted has been seen. `gave_up`: an INSERT with ON CONFLICT ran
    /// there; a speculative insertion that finds a conflict counts as one row inserted and one deleted
    /// (heapam.c, `heap_abort_speculative`).
    ///
    /// An insertion that was not seen (COPY, or a statement whose rows no mapping stores) leaves nothing stale.
    pub fn agrees_with(&self, counted: &Counted, gave_up: bool) -> bool {
        let seen = self.updated + self.deleted + self.either;
        let Some(unseen) = (counted.updated + counted.deleted).checked_sub(seen) else {
            return false;
        };
        !counted.truncated
            && (unseen == 0 || gave_up)
            && counted.updated >= self.updated
            && (counted.updated == self.updated || self.either > 0)
            && counted.inserted >= self.inserted + unseen
    }
}

/// The tallies of a transaction, by the relation's Oid.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Nest levels, ascending.
    levels: Vec<(u32, FxHashMap<u32, Tally>)>,
    /// A level has ended, and nobody said how.
    lost_track: bool,
}

impl Tallies {
    /// Counts a row at this nest level.
    pub fn count(&mut self, nest: u32, relation: u32, change: Change) {
        while self.levels.pop_if(|(level, _)| *level > nest).is_some() {
            self.lost_track = true;
        }
        if self.levels.last().is_none_or(|(level, _)| *level < nest) {
            self.levels.push((nest, FxHashMap::default()));
        }
        if let Some((_, tallies)) = self.levels.last_mut() {
            tallies.entry(relation).or_default().add(change);
        }
    }

    /// COMMIT_SUB at this nest level: its tallies are its parent's.
    pub fn commit_sub(&mut self, nest: u32) {
        let Some((_, ended)) = self.levels.pop_if(|(level, _)| *level == nest) else {
            return;
        };
        let parent = nest.saturating_sub(1).max(TOP_LEVEL);
        match self.levels.last_mut() {
            Some((level, tallies)) if *level == parent => {
                for (relation, tally) in &ended {
                    tallies.entry(*relation).or_default().merge(tally);
                }
            }
            _ => self.levels.push((parent, ended)),
        }
    }

    /// ABORT_SUB at this nest level: its tallies are gone, as PostgreSQL's are.
    pub fn abort_sub(&mut self, nest: u32) {
        while self.levels.pop_if(|(level, _)| *level >= nest).is_some() {}
    }

    /// The end of the transaction. Little memory is kept.
    pub fn clear(&mut self) {
        self.lost_track = false;
        self.levels.truncate(1);
        self.levels.shrink_to(4);
        if let Some((level, tallies)) = self.levels.first_mut() {
            *level = TOP_LEVEL;
            tallies.clear();
            tallies.shrink_to(64);
        }
    }

    /// What was seen of a relation, at the end of the transaction. `None`: it cannot be told.
    pub fn of(&self, relation: u32) -> Option<Tally> {
        match self.levels.as_slice() {
            _ if self.lost_track => None,
            [] => Some(Tally::default()),
            [(_, tallies)] => Some(tallies.get(&relation).copied().unwrap_or_default()),
            _ => None,
        }
    }

    /// The relations of which anything was seen.
    pub fn relations(&self) -> impl Iterator<Item = u32> {
        self.levels
            .iter()
            .flat_map(|(_, tallies)| tallies.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 16_400;

    fn tally(changes: &[Change]) -> Tally {
        let mut tallies = Tallies::default();
        changes.iter().for_each(|change| tallies.count(1, TABLE, *change));
        tallies.of(TABLE).expect("one level")
    }

    fn counted(inserted: u64, updated: u64, deleted: u64) -> Counted {
        Counted {
            inserted,
            updated,
            deleted,
            truncated: false,
        }
    }

    #[test]
    fn what_was_seen_agrees() {
        use Change::{Delete, Insert, Update};
        let seen = tally(&[Insert, Update, Update, Delete]);
        assert!(seen.agrees_with(&counted(1, 2, 1), false));
        assert!(tally(&[]).agrees_with(&counted(0, 0, 0), false));
    }

    #[test]
    fn an_unseen_update_or_delete_does_not_agree() {
        let seen = tally(&[Change::Update]);
        assert!(!seen.agrees_with(&counted(0, 2, 0), false));
        assert!(!seen.agrees_with(&counted(0, 1, 1), false));
        assert!(!seen.agrees_with(&counted(0, 0, 1), false), "one for the other");
        assert!(!tally(&[Change::Delete]).agrees_with(&counted(0, 1, 0), false));
    }

    #[test]
    fn more_seen_than_counted_does_not_agree() {
        assert!(!tally(&[Change::Update]).agrees_with(&counted(0, 0, 0), false));
        assert!(!tally(&[Change::Insert]).agrees_with(&counted(0, 0, 0), false));
    }

    #[test]
    fn unseen_insertions_are_harmless() {
        assert!(tally(&[]).agrees_with(&counted(5, 0, 0), false));
    }

    #[test]
    fn a_truncated_table_does_not_agree() {
        let truncated = Counted {
            truncated: true,
            ..Counted::default()
        };
        assert!(!tally(&[]).agrees_with(&truncated, false));
    }

    #[test]
    fn a_speculative_insertion_may_have_given_up_where_one_ran() {
        let seen = tally(&[Change::Insert, Change::Delete]);
        assert!(seen.agrees_with(&counted(3, 0, 3), true), "two gave up");
        assert!(!seen.agrees_with(&counted(3, 0, 3), false));
        assert!(
            !seen.agrees_with(&counted(2, 0, 3), true),
            "each that gave up was inserted first"
        );
        assert!(
            !seen.agrees_with(&counted(3, 1, 1), true),
            "none that gives up updates"
        );
    }

    #[test]
    fn a_merge_may_have_updated_or_deleted() {
        let seen = tally(&[Change::Either, Change::Either]);
        assert!(seen.agrees_with(&counted(0, 1, 1), false));
        assert!(seen.agrees_with(&counted(7, 2, 0), false));
        assert!(!seen.agrees_with(&counted(0, 2, 1), false));
        assert!(!seen.agrees_with(&counted(0, 1, 0), false));
    }

    #[test]
    fn savepoints_are_counted_as_they_end() {
        let mut tallies = Tallies::default();
        tallies.count(1, TABLE, Change::Update);
        tallies.count(3, TABLE, Change::Update);
        tallies.commit_sub(3);
        tallies.count(3, TABLE, Change::Delete);
        tallies.abort_sub(3);
        tallies.commit_sub(2);
        assert!(
            tallies
                .of(TABLE)
                .is_some_and(|seen| seen.agrees_with(&counted(0, 2, 0), false))
        );
        tallies.count(2, TABLE, Change::Update);
        tallies.abort_sub(2);
        assert!(
            tallies
                .of(TABLE)
                .is_some_and(|seen| seen.agrees_with(&counted(0, 2, 0), false))
        );
        tallies.clear();
        assert_eq!(tallies.of(TABLE), Some(Tally::default()));
        assert_eq!(tallies.relations().count(), 0);
    }

    #[test]
    fn a_level_that_ended_unseen_is_not_guessed_at() {
        let mut tallies = Tallies::default();
        tallies.count(2, TABLE, Change::Update);
        tallies.count(1, TABLE, Change::Update);
        assert_eq!(tallies.of(TABLE), None);
        tallies.clear();
        tallies.count(2, TABLE, Change::Update);
        assert_eq!(tallies.of(TABLE), None, "a level is still open");
    }
}
