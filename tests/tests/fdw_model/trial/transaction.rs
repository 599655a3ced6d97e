//! Transactions on a table with the option `transactional`.

use crate::model::Model;

use super::{Trial, difference};

impl Trial {
    /// Rows are inserted between savepoints, and nothing of it is in Redis before the COMMIT.
    pub(super) fn transaction(&mut self) {
        let before = self.model.clone();
        self.must("BEGIN");
        // What was there at each savepoint, and whether anything had been changed.
        let mut savepoints: Vec<(Model, bool)> = Vec::new();
        let mut changed = false;
        for _ in 0..3 + self.dice.below(8) {
            let depth = savepoints.len();
            match self.dice.below(7) {
                0 | 1 => {
                    self.must(&format!("SAVEPOINT s{depth}"));
                    savepoints.push((self.model.clone(), changed));
                }
                2 if depth > 0 => {
                    let to = self.dice.below(depth as u64) as usize;
                    self.must(&format!("ROLLBACK TO s{to}"));
                    savepoints.truncate(to + 1);
                    (self.model, changed) = savepoints[to].clone();
                }
                3 if depth > 0 => {
                    let to = self.dice.below(depth as u64) as usize;
                    self.must(&format!("RELEASE s{to}"));
                    savepoints.truncate(to);
                }
                4 => self.read_within(changed),
                _ => {
                    self.insert();
                    changed = true;
                }
            }
            let found = Model::of_redis(&self.shape, &mut self.redis);
            if let Some(difference) = difference(before.lines(), found.lines()) {
                self.fail(&format!("before COMMIT, in Redis {difference}"));
            }
        }
        if self.dice.below(3) == 0 {
            self.must("ROLLBACK");
            self.model = before;
        } else {
            self.must("COMMIT");
        }
    }

    /// What the transaction has changed cannot be read by it, all else can.
    fn read_within(&mut self, changed: bool) {
        self.must("SAVEPOINT reading");
        let outcome = self.session.simple("SELECT * FROM t");
        if outcome.is_ok() == changed {
            self.fail(&format!("changed: {changed}, and yet {outcome:?}"));
        }
        self.must("ROLLBACK TO reading; RELEASE reading");
    }

    fn must(&mut self, statement: &str) {
        if let Err(error) = self.session.simple(statement) {
            self.fail(&error);
        }
    }
}
