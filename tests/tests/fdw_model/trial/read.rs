//! Statements that only read.

use crate::condition::{Condition, array_literal, operand};
use crate::model::Row;
use crate::session::{Sql, parsed};
use crate::shape::{Cell, Role};

use super::Trial;

impl Trial {
    pub(super) fn condition(&mut self) -> Condition {
        let rows: Vec<Row> = self.model.rows().into_iter().map(|(_, row)| row).collect();
        Condition::random(&self.shape, &rows, &mut self.dice)
    }

    fn matching(&self, condition: &Condition) -> Vec<Row> {
        let rows = self.model.rows().into_iter().map(|(_, row)| row);
        rows.filter(|row| condition.holds(row)).collect()
    }

    /// Some of the columns, in some order; not none.
    fn some_columns(&mut self) -> Vec<usize> {
        let mut places = self.all();
        for last in (1..places.len()).rev() {
            places.swap(last, self.dice.below(last as u64 + 1) as usize);
        }
        places.truncate(1 + self.dice.below(places.len() as u64) as usize);
        places
    }

    fn names(&self, table: &str, places: &[usize]) -> String {
        let names = places
            .iter()
            .map(|place| format!("{table}.{}", self.shape.columns[*place].0.column()));
        names.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn select(&mut self) {
        let (condition, places) = (self.condition(), self.some_columns());
        let mut sql = Sql::new(&format!("SELECT {} FROM t WHERE ", self.names("t", &places)));
        condition.write(&self.shape, &mut sql);
        let limit = (self.dice.below(4) == 0).then(|| self.dice.below(5) as usize);
        if let Some(limit) = limit {
            sql.text(&format!(" LIMIT {limit}"));
        }
        let outcome = self.run_sql(&sql);
        let found = parsed(&self.shape, &places, &outcome.rows);
        let expected = projected(&self.matching(&condition), &places);
        match limit {
            Some(limit) => self.some_of(expected, found, limit),
            None => self.same(expected, found),
        }
    }

    /// As many rows as there are, up to a limit; each of them one of the expected.
    fn some_of(&self, mut expected: Vec<Row>, found: Vec<Row>, limit: usize) {
        if found.len() != limit.min(expected.len()) {
            self.fail(&format!(
                "{} rows of {} with LIMIT {limit}",
                found.len(),
                expected.len()
            ));
        }
        for row in found {
            match expected.iter().position(|other| *other == row) {
                Some(place) => drop(expected.swap_remove(place)),
                None => self.fail(&format!("{row:?} was not expected")),
            }
        }
    }

    pub(super) fn ordered(&mut self) {
        let orders: Vec<usize> = self
            .all()
            .into_iter()
            .filter(|place| {
                let role = self.shape.columns[*place].0;
                matches!(role, Role::Key | Role::Name | Role::Score | Role::Index)
            })
            .collect();
        if orders.is_empty() {
            return self.select();
        }
        let by = orders[self.dice.below(orders.len() as u64) as usize];
        let down = self.dice.below(2) == 0;
        let condition = self.condition();
        let (limit, offset) = (self.dice.below(6) as usize, self.dice.below(3) as usize);
        let mut sql = Sql::new("SELECT * FROM t WHERE ");
        condition.write(&self.shape, &mut sql);
        let way = if down { " DESC" } else { "" };
        let name = self.shape.columns[by].0.column();
        sql.text(&format!(" ORDER BY t.{name}{way} LIMIT {limit} OFFSET {offset}"));
        let outcome = self.run_sql(&sql);
        let found = parsed(&self.shape, &self.all(), &outcome.rows);
        let expected = self.matching(&condition);
        let mut keys: Vec<Option<Cell>> = expected.iter().map(|row| row[by].clone()).collect();
        keys.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
        if down {
            keys.reverse();
        }
        let keys: Vec<_> = keys.into_iter().skip(offset).take(limit).collect();
        let got: Vec<_> = found.iter().map(|row| row[by].clone()).collect();
        if keys != got {
            self.fail(&format!("in order, expected {keys:?} and got {got:?}"));
        }
        let rest = expected.len().saturating_sub(offset);
        self.some_of(expected, found, limit.min(rest));
    }

    pub(super) fn aggregate(&mut self) {
        let condition = match self.dice.below(3) {
            0 => Condition::True,
            _ => self.condition(),
        };
        let mut sql = Sql::new("SELECT count(*) FROM t");
        if !matches!(condition, Condition::True) || self.dice.below(2) == 0 {
            sql.text(" WHERE ");
            condition.write(&self.shape, &mut sql);
        }
        let outcome = self.run_sql(&sql);
        let expected = self.matching(&condition).len().to_string();
        if outcome.rows != [[Some(expected.clone())]] {
            self.fail(&format!("expected {expected} and got {:?}", outcome.rows));
        }
    }

    pub(super) fn by_cursor(&mut self) {
        let condition = self.condition();
        let mut sql = Sql::new("DECLARE c CURSOR FOR SELECT * FROM t WHERE ");
        condition.write(&self.shape, &mut sql);
        let text = sql.plain(&mut self.dice);
        let first = self.dice.below(4);
        let mut rows = Vec::new();
        let statements = [
            "BEGIN",
            &text,
            &format!("FETCH {first} FROM c"),
            "SELECT * FROM t",
            "FETCH ALL FROM c",
            "COMMIT",
        ];
        for (number, statement) in statements.into_iter().enumerate() {
            match self.session.simple(statement) {
                Ok(outcome) if number == 2 || number == 4 => rows.extend(outcome.rows),
                Ok(_) => {}
                Err(error) => self.fail(&error),
            }
        }
        let found = parsed(&self.shape, &self.all(), &rows);
        self.same(self.matching(&condition), found);
    }

    /// Joins to rows of VALUES by a column, and of the table to itself.
    pub(super) fn join(&mut self) {
        if self.dice.below(6) == 0 {
            return self.join_to_itself();
        }
        let rows: Vec<Row> = self.model.rows().into_iter().map(|(_, row)| row).collect();
        let place = self.dice.below(self.shape.columns.len() as u64) as usize;
        let (role, of) = self.shape.columns[place];
        if role == Role::Ttl {
            return self.select();
        }
        let most = [3, 12, 300][self.dice.below(3) as usize];
        let count = 1 + self.dice.below(most);
        let values: Vec<Option<Cell>> = (0..count)
            .map(|_| operand(&self.shape, place, &rows, &mut self.dice))
            .collect();
        let condition = match self.dice.below(2) {
            0 => Condition::True,
            _ => Condition::random(&self.shape, &rows, &mut self.dice),
        };
        self.toggle_plans();
        let inputs: Vec<_> = values
            .iter()
            .map(|value| value.as_ref().map(|value| value.input(of)))
            .collect();
        if self.dice.below(3) == 0 {
            return self.correlated(place, &values, &condition);
        }
        let left = self.dice.below(3) == 0;
        let kind = if left { "LEFT JOIN" } else { "JOIN" };
        let mut sql = Sql::new("SELECT x.c, t.* FROM unnest(");
        sql.parameter(&format!("{}[]", of.sql()), Some(array_literal(&inputs)));
        sql.text(&format!(") AS x(c) {kind} t ON t.{} = x.c AND ", role.column()));
        condition.write(&self.shape, &mut sql);
        let outcome = self.run_sql(&sql);
        let mut places = vec![place];
        places.extend(self.all());
        let found = parsed(&self.shape, &places, &outcome.rows);
        let mut expected = Vec::new();
        for value in values {
            let before = expected.len();
            for row in &rows {
                if value.is_some() && row[place] == value && condition.holds(row) {
                    let mut joined = vec![value.clone()];
                    joined.extend(row.iter().cloned());
                    expected.push(joined);
                }
            }
            if left && expected.len() == before {
                let mut alone = vec![None; places.len()];
                alone[0] = value;
                expected.push(alone);
            }
        }
        self.same(expected, found);
    }

    /// A subquery that is run again for each value.
    fn correlated(&mut self, place: usize, values: &[Option<Cell>], condition: &Condition) {
        let (role, of) = self.shape.columns[place];
        let inputs: Vec<_> = values
            .iter()
            .map(|value| value.as_ref().map(|value| value.input(of)))
            .collect();
        let counted = if self.dice.below(2) == 0 {
            "count(*)"
        } else {
            "count(t)"
        };
        let mut sql = Sql::new(&format!(
            "SELECT (SELECT {counted} FROM t WHERE t.{} = x.c AND ",
            role.column()
        ));
        condition.write(&self.shape, &mut sql);
        sql.text(") FROM unnest(");
        sql.parameter(&format!("{}[]", of.sql()), Some(array_literal(&inputs)));
        sql.text(") AS x(c)");
        let outcome = self.run_sql(&sql);
        let rows = self.matching(condition);
        let expected: Vec<Vec<Option<String>>> = values
            .iter()
            .map(|value| {
                let equal = rows.iter().filter(|row| value.is_some() && row[place] == *value);
                vec![Some(equal.count().to_string())]
            })
            .collect();
        if outcome.rows != expected {
            self.fail(&format!("expected {expected:?} and got {:?}", outcome.rows));
        }
    }

    fn join_to_itself(&mut self) {
        let place = self.dice.below(self.shape.columns.len() as u64) as usize;
        let (role, _) = self.shape.columns[place];
        if role == Role::Ttl {
            // It passes between the two scans.
            return self.select();
        }
        let column = role.column();
        self.toggle_plans();
        let sql = Sql::new(&format!(
            "SELECT count(*) FROM t a JOIN t b ON a.{column} = b.{column}"
        ));
        let outcome = self.run_sql(&sql);
        let rows = self.model.rows();
        let of = |row: &Row| row[place].clone();
        let pairs: usize = rows
            .iter()
            .map(|(_, a)| {
                rows.iter()
                    .filter(|(_, b)| of(a).is_some() && of(a) == of(b))
                    .count()
            })
            .sum();
        if outcome.rows != [[Some(pairs.to_string())]] {
            self.fail(&format!("expected {pairs} pairs and got {:?}", outcome.rows));
        }
    }

    /// Has the planner join in another way.
    pub(super) fn toggle_plans(&mut self) {
        for setting in [
            "enable_hashjoin",
            "enable_mergejoin",
            "enable_material",
            "enable_memoize",
        ] {
            let value = if self.dice.below(3) == 0 { "on" } else { "off" };
            self.session
                .simple(&format!("SET {setting} = {value}"))
                .expect("a setting");
        }
    }
}

/// Some columns of rows.
pub(super) fn projected(rows: &[Row], places: &[usize]) -> Vec<Row> {
    rows.iter()
        .map(|row| places.iter().map(|place| row[*place].clone()).collect())
        .collect()
}
