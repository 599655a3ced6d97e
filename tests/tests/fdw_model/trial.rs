//! One run: a table, its model, and random statements on both.

mod read;
mod transaction;
mod write;

use pg_redis_cache_tests::{Dice, World};

use crate::model::{Model, Row};
use crate::session::{Outcome, Session, Sql, parsed};
use crate::shape::{Kind, Role, Shape};

/// See the module.
pub struct Trial {
    shape: Shape,
    model: Model,
    session: Session,
    redis: redis::Connection,
    dice: Dice,
    /// The last id of a stream that the trial has made up.
    last_id: (u64, u64),
}

impl Trial {
    /// An empty table of that kind.
    pub fn new(world: &World, kind: Kind, many: bool, prepared: bool, seed: u64) -> Trial {
        let mut dice = Dice::new(seed * 100 + kind as u64 * 10 + u64::from(many));
        for _ in 0..4 {
            dice.below(2);
        }
        let shape = Shape::random(kind, many, &mut dice);
        let mut redis = world.redis();
        redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
        let [other, outside] = shape.others();
        let of_another_type = if kind == Kind::Hash { "SADD" } else { "HSETNX" };
        let mut command = redis::cmd(of_another_type);
        command
            .arg(&other)
            .arg("left")
            .arg("alone")
            .exec(&mut redis)
            .unwrap();
        redis::cmd("SET")
            .arg(&outside)
            .arg("left alone")
            .exec(&mut redis)
            .unwrap();
        let mut session = Session::new(world.connect(), prepared);
        session
            .simple(&format!("DROP FOREIGN TABLE IF EXISTS t; {}", shape.create()))
            .unwrap();
        Trial {
            model: Model::new(&shape),
            last_id: ([5, 95, 998][dice.below(3) as usize], 0),
            shape,
            session,
            redis,
            dice,
        }
    }

    /// So many statements.
    pub fn run(&mut self, statements: u64) {
        for _ in 0..statements {
            match self.dice.below(20) {
                0..=3 => self.insert(),
                4 => self.insert_select(),
                5 => self.copy(),
                6..=8 => self.update(),
                9 | 10 => self.delete(),
                11 => self.refused(),
                12 if self.dice.below(4) == 0 => self.truncate(),
                12 => self.write_elsewhere(),
                13 | 14 => self.join(),
                15 => self.ordered(),
                16 => self.aggregate(),
                17 => self.by_cursor(),
                18 if self.shape.transactional => self.transaction(),
                _ => self.select(),
            }
            self.check();
        }
    }

    /// Table, model and Redis hold the same.
    fn check(&mut self) {
        let found = Model::of_redis(&self.shape, &mut self.redis);
        self.model.adopt_ids(&found);
        if let Some(difference) = difference(self.model.lines(), found.lines()) {
            self.fail(&format!("in Redis {difference}"));
        }
        self.check_others();
        let outcome = self.session.simple("SELECT * FROM t").unwrap_or_else(|error| {
            panic!("SELECT * FROM t: {error}");
        });
        let expected: Vec<Row> = self.model.rows().into_iter().map(|(_, row)| row).collect();
        let rows = parsed(&self.shape, &self.all(), &outcome.rows);
        let in_order = matches!(self.shape.kind, Kind::List | Kind::Stream) && !self.shape.many;
        if in_order && rows != expected {
            self.fail(&format!(
                "in order the model has\n{expected:?}\nand the table\n{rows:?}"
            ));
        }
        self.same(expected, rows);
        self.session.trail.pop();
    }

    fn check_others(&mut self) {
        let [other, outside] = self.shape.others();
        let others: (String, String) = redis::pipe()
            .cmd("TYPE")
            .arg(&other)
            .cmd("GET")
            .arg(&outside)
            .query(&mut self.redis)
            .unwrap();
        let of_another_type = if self.shape.kind == Kind::Hash {
            "set"
        } else {
            "hash"
        };
        if others != (of_another_type.to_owned(), "left alone".to_owned()) {
            self.fail(&format!("keys that are not the table's were changed: {others:?}"));
        }
    }

    /// The places of all columns.
    fn all(&self) -> Vec<usize> {
        (0..self.shape.columns.len()).collect()
    }

    /// Runs what has to succeed.
    fn run_sql(&mut self, sql: &Sql) -> Outcome {
        match self.session.run(sql, &mut self.dice) {
            Ok(outcome) => outcome,
            Err(error) => self.fail(&error),
        }
    }

    /// The same rows, in any order.
    fn same(&self, expected: Vec<Row>, found: Vec<Row>) {
        let lines = |rows: Vec<Row>| rows.iter().map(|row| format!("{row:?}")).collect();
        if let Some(difference) = difference(lines(expected), lines(found)) {
            self.fail(&difference);
        }
    }

    fn fail(&self, problem: &str) -> ! {
        let trail = &self.session.trail;
        let last = trail.len().saturating_sub(12);
        panic!(
            "{problem}\n{:?}\n{};\n{};",
            self.shape,
            self.shape.create(),
            trail[last..].join(";\n")
        );
    }

    /// Whether a column is there.
    fn has(&self, role: Role) -> bool {
        self.shape.place(role).is_some()
    }
}

/// What is in one and not in the other.
fn difference(mut expected: Vec<String>, mut found: Vec<String>) -> Option<String> {
    expected.sort();
    found.sort();
    if expected == found {
        return None;
    }
    let less = |of: &[String], other: &[String]| {
        let mut left: Vec<String> = Vec::new();
        let mut other = other.iter().peekable();
        for line in of {
            while other.next_if(|other| *other < line).is_some() {}
            if other.next_if(|other| *other == line).is_none() {
                left.push(line.clone());
            }
        }
        left.truncate(10);
        left.join("\n")
    };
    let (missing, added) = (less(&expected, &found), less(&found, &expected));
    Some(format!("there should be\n{missing}\nand should not be\n{added}"))
}
