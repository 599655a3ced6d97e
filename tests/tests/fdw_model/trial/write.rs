//! Statements that change the table, and changes by others.

use std::io::Write as _;

use crate::condition::{Condition, array_literal, operand};
use crate::model::{Model, Place, Row, STAR};
use crate::session::{Sql, parsed};
use crate::shape::{Cell, Kind, Role, Type};

use super::Trial;

/// What a column becomes.
#[derive(Clone, Debug)]
enum Set {
    To(Option<Cell>),
    Append,
    AddOne,
}

impl Trial {
    /// A row to insert.
    fn new_row(&mut self) -> Row {
        let mut row: Row = Vec::new();
        for place in self.all() {
            let role = self.shape.columns[place].0;
            let value = self.shape.value(place, &mut self.dice);
            row.push(match role {
                Role::Ttl | Role::Index if self.dice.below(2) == 0 => None,
                Role::Name if self.shape.kind == Kind::Stream => self.new_id(),
                Role::Second if self.dice.below(3) == 0 => None,
                _ => Some(value),
            });
        }
        row
    }

    fn new_id(&mut self) -> Option<Cell> {
        if self.shape.stars {
            return (self.dice.below(2) == 0).then(|| Cell::Bytes(STAR.to_vec()));
        }
        self.last_id = match self.dice.below(2) {
            0 => (self.last_id.0, self.last_id.1 + 1),
            _ => (self.last_id.0 + 1 + self.dice.below(40), self.dice.below(12)),
        };
        Some(Cell::Bytes(
            format!("{}-{}", self.last_id.0, self.last_id.1).into(),
        ))
    }

    /// Writes a row into the model; returns it as it is there, or none if it cannot be.
    fn model_insert(&mut self, row: &Row) -> Option<Row> {
        if !self.model.insert(row) {
            return None;
        }
        let mut row = row.clone();
        if let Some(place) = self.shape.place(Role::Index) {
            let key = self.key_of(&row);
            row[place].get_or_insert(Cell::Int(self.model.keys[&key].elements.len() as i64 - 1));
        }
        if let (Kind::Stream, Some(place)) = (self.shape.kind, self.shape.place(Role::Name)) {
            row[place].get_or_insert(Cell::Bytes(STAR.to_vec()));
        }
        Some(row)
    }

    fn key_of(&self, row: &Row) -> Vec<u8> {
        let key = self.shape.place(Role::Key).and_then(|place| row[place].as_ref());
        key.map_or_else(|| self.shape.one_key(), Cell::redis)
    }

    /// Rows for one statement, and what they are once they are there. An index behind a list's end is none.
    fn new_rows(&mut self, count: u64) -> (Vec<Row>, Vec<Row>) {
        let (mut rows, mut there) = (Vec::new(), Vec::new());
        while (rows.len() as u64) < count {
            let mut row = self.new_row();
            let place = self.shape.place(Role::Index);
            if let Some(place) = place
                && let Some(Cell::Int(index)) = row[place]
            {
                let key = self.key_of(&row);
                let length = self.model.keys.get(&key).map_or(0, |there| there.elements.len());
                row[place] = Some(Cell::Int(index.min(length as i64)));
            }
            there.extend(self.model_insert(&row));
            rows.push(row);
        }
        (rows, there)
    }

    fn insert_sql(&self, rows: &[Row]) -> Sql {
        // A column that is NULL in each row may as well be left out.
        let given: Vec<usize> = self
            .all()
            .into_iter()
            .filter(|place| rows.iter().any(|row| row[*place].is_some()))
            .collect();
        let names: Vec<&str> = given
            .iter()
            .map(|place| self.shape.columns[*place].0.column())
            .collect();
        let mut sql = Sql::new(&format!("INSERT INTO t ({}) VALUES ", names.join(", ")));
        for (number, row) in rows.iter().enumerate() {
            sql.text(if number > 0 { ", (" } else { "(" });
            for (number, place) in given.iter().enumerate() {
                let of = self.shape.columns[*place].1;
                sql.text(if number > 0 { ", " } else { "" });
                sql.parameter(of.sql(), row[*place].as_ref().map(|cell| cell.input(of)));
            }
            sql.text(")");
        }
        sql
    }

    pub(super) fn insert(&mut self) {
        let count = 1 + self.dice.below(4);
        let (rows, there) = self.new_rows(count);
        let mut sql = self.insert_sql(&rows);
        let made_up = matches!(self.shape.kind, Kind::Stream | Kind::List);
        let returns = self.dice.below(2) == 0 && !(self.shape.transactional && made_up);
        sql.text(if returns { " RETURNING *" } else { "" });
        let outcome = self.run_sql(&sql);
        self.expect_count(outcome.count, count);
        if returns {
            let mut found = parsed(&self.shape, &self.all(), &outcome.rows);
            if let (Kind::Stream, Some(place)) = (self.shape.kind, self.shape.place(Role::Name)) {
                for (row, expected) in found.iter_mut().zip(&there) {
                    if expected[place] == Some(Cell::Bytes(STAR.to_vec())) {
                        row[place] = expected[place].clone();
                    }
                }
            }
            self.same(there, found);
        }
    }

    /// INSERT of rows made of those that are there.
    pub(super) fn insert_select(&mut self) {
        let kind = self.shape.kind;
        let renamed = match kind {
            Kind::String => Role::Key,
            _ => Role::Name,
        };
        let can_be = match self.shape.place(renamed) {
            Some(place) => self.shape.columns[place].1 != Type::BigInt,
            None => kind == Kind::List,
        };
        if !can_be || (kind == Kind::Stream && !self.shape.stars) {
            return self.insert();
        }
        let condition = self.condition();
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (role, of) in &self.shape.columns {
            let value = match role {
                Role::Index | Role::Ttl => continue,
                Role::Name if kind == Kind::Stream => continue,
                role if *role == renamed => format!("t.{} || 'y'::{}", role.column(), of.sql()),
                role => format!("t.{}", role.column()),
            };
            names.push(role.column());
            values.push(value);
        }
        let (names, values) = (names.join(", "), values.join(", "));
        let mut sql = Sql::new(&format!("INSERT INTO t ({names}) SELECT {values} FROM t WHERE "));
        condition.write(&self.shape, &mut sql);
        if self.has(Role::Index) {
            // Elements asked for by index come as they were asked for.
            sql.text(" ORDER BY t.i");
        }
        let outcome = self.run_sql(&sql);
        let found = self.found(&condition);
        self.expect_count(outcome.count, found.len() as u64);
        for (_, mut row) in found {
            for place in self.all() {
                let role = self.shape.columns[place].0;
                match (&mut row[place], role) {
                    (cell, Role::Index | Role::Ttl) => *cell = None,
                    (cell, Role::Name) if kind == Kind::Stream => *cell = None,
                    (Some(Cell::Bytes(bytes)), role) if role == renamed => bytes.push(b'y'),
                    _ => {}
                }
            }
            self.model.insert(&row);
        }
    }

    /// Many rows at once.
    pub(super) fn copy(&mut self) {
        let count = [3, 90, 250, 700][self.dice.below(4) as usize];
        let (mut rows, mut text) = (Vec::new(), String::new());
        for number in 0..count {
            let mut row = self.new_row();
            // Mostly under names of their own.
            if let Some(place) = self.shape.place(Role::Name)
                && self.shape.kind != Kind::Stream
                && self.dice.below(8) > 0
            {
                row[place] = Some(match self.shape.columns[place].1 {
                    Type::BigInt => Cell::Int(1000 + number),
                    _ => Cell::Bytes(format!("bulk{number}").into()),
                });
            }
            if let Some(place) = self.shape.place(Role::Index) {
                row[place] = None;
            }
            self.model_insert(&row);
            let cells: Vec<String> = row
                .iter()
                .zip(&self.shape.columns)
                .map(|(cell, (_, of))| match cell {
                    None => "\\N".to_owned(),
                    Some(cell) => cell.input(*of).replace('\\', "\\\\").replace('\n', "\\n"),
                })
                .collect();
            text += &(cells.join("\t") + "\n");
            rows.push(row);
        }
        let shown: String = text.chars().take(400).collect();
        self.session
            .trail
            .push(format!("COPY t FROM STDIN -- {count} rows\n{shown}"));
        let mut copy = self.session.client.copy_in("COPY t FROM STDIN").expect("a table");
        copy.write_all(text.as_bytes()).expect("the server reads");
        match copy.finish() {
            Ok(written) => self.expect_count(written, count as u64),
            Err(error) => self.fail(&format!("{error:?}")),
        }
    }

    fn expect_count(&self, found: u64, expected: u64) {
        if found != expected {
            self.fail(&format!("{found} rows were changed instead of {expected}"));
        }
    }

    /// The rows that a condition finds.
    fn found(&self, condition: &Condition) -> Vec<(Place, Row)> {
        let mut rows = self.model.rows();
        rows.retain(|(_, row)| condition.holds(row));
        rows
    }

    pub(super) fn update(&mut self) {
        if self.shape.kind == Kind::Stream {
            return self.delete();
        }
        let condition = self.condition();
        let found = self.found(&condition);
        let sets = self.sets(&found);
        if sets.is_empty() {
            return self.delete();
        }
        let mut sql = Sql::new("UPDATE t SET ");
        for (number, (place, set)) in sets.iter().enumerate() {
            let (role, of) = self.shape.columns[*place];
            let name = role.column();
            sql.text(if number > 0 { ", " } else { "" });
            sql.text(&format!("{name} = "));
            match set {
                Set::To(value) => sql.parameter(of.sql(), value.as_ref().map(|value| value.input(of))),
                Set::Append => sql.text(&format!("t.{name} || 'x'")),
                Set::AddOne => sql.text(&format!("t.{name} + 1")),
            }
        }
        sql.text(" WHERE ");
        condition.write(&self.shape, &mut sql);
        let returns = self.dice.below(2) == 0;
        sql.text(if returns { " RETURNING *" } else { "" });
        let changed: Vec<(Place, Row)> = found
            .into_iter()
            .map(|(place, mut row)| {
                for (column, set) in &sets {
                    row[*column] = match (set, &row[*column]) {
                        (Set::To(value), _) => value.clone(),
                        (Set::Append, Some(Cell::Bytes(bytes))) => {
                            Some(Cell::Bytes([bytes, &b"x"[..]].concat()))
                        }
                        (Set::AddOne, Some(Cell::Float(score))) => Some(Cell::Float(score + 1.0)),
                        (_, same) => same.clone(),
                    };
                }
                (place, row)
            })
            .collect();
        let sets_ttl = sets
            .iter()
            .any(|(place, _)| self.shape.columns[*place].0 == Role::Ttl);
        self.model.update(&changed, sets_ttl);
        let outcome = self.run_sql(&sql);
        self.expect_count(outcome.count, changed.len() as u64);
        if returns {
            let rows = parsed(&self.shape, &self.all(), &outcome.rows);
            self.same(changed.into_iter().map(|(_, row)| row).collect(), rows);
        }
    }

    /// What to set, so that it does not matter in which order the rows are changed.
    fn sets(&mut self, found: &[(Place, Row)]) -> Vec<(usize, Set)> {
        let one_row = found.len() <= 1;
        let one_key = found.windows(2).all(|pair| pair[0].0.0 == pair[1].0.0);
        let mut sets = Vec::new();
        for place in self.all() {
            let (role, of) = self.shape.columns[place];
            if self.dice.below(2) == 0 {
                continue;
            }
            let to = Set::To(Some(self.shape.value(place, &mut self.dice)));
            let set = match role {
                Role::Value if of == Type::Text && self.dice.below(2) == 0 => Set::Append,
                Role::Value | Role::Second => to,
                Role::Score if self.dice.below(2) == 0 => Set::AddOne,
                Role::Score => to,
                Role::Ttl if self.dice.below(4) == 0 => Set::To(None),
                Role::Ttl => to,
                Role::Index => continue,
                Role::Key if self.shape.kind == Kind::List => continue,
                Role::Key | Role::Name if one_row && self.dice.below(2) == 0 => to,
                Role::Key if one_key && self.shape.kind != Kind::String && self.dice.below(2) == 0 => to,
                Role::Key | Role::Name if of == Type::Text => Set::Append,
                Role::Key | Role::Name => continue,
            };
            sets.push((place, set));
        }
        // Rows that come together under one name would be written in any order.
        let moves_key = sets
            .iter()
            .any(|(place, set)| self.shape.columns[*place].0 == Role::Key && matches!(set, Set::To(_)));
        if moves_key && !one_row {
            sets.retain(|(place, _)| self.shape.columns[*place].0 != Role::Name);
        }
        sets
    }

    pub(super) fn delete(&mut self) {
        let condition = match self.dice.below(8) {
            0 => Condition::True,
            _ => self.condition(),
        };
        let mut sql = Sql::new("DELETE FROM t");
        let joined = if self.dice.below(4) == 0 {
            self.joined_values()
        } else {
            None
        };
        let condition = match joined {
            Some((place, values)) => {
                self.toggle_plans();
                let (role, of) = self.shape.columns[place];
                let inputs: Vec<_> = values
                    .iter()
                    .map(|value| value.as_ref().map(|value| value.input(of)))
                    .collect();
                sql.text(" USING unnest(");
                sql.parameter(&format!("{}[]", of.sql()), Some(array_literal(&inputs)));
                sql.text(&format!(") AS x(c) WHERE t.{} = x.c AND ", role.column()));
                condition.write(&self.shape, &mut sql);
                let array = true;
                Condition::And(vec![Condition::Any { place, values, array }, condition])
            }
            None => {
                if !matches!(condition, Condition::True) {
                    sql.text(" WHERE ");
                    condition.write(&self.shape, &mut sql);
                }
                condition
            }
        };
        let found = self.found(&condition);
        let returns = self.dice.below(2) == 0;
        sql.text(if returns { " RETURNING t.*" } else { "" });
        let outcome = self.run_sql(&sql);
        self.expect_count(outcome.count, found.len() as u64);
        let (places, rows): (Vec<Place>, Vec<Row>) = found.into_iter().unzip();
        self.model.delete(&places);
        if returns {
            let found = parsed(&self.shape, &self.all(), &outcome.rows);
            self.same(rows, found);
        }
    }

    /// A column, and values of it to join by, each once.
    fn joined_values(&mut self) -> Option<(usize, Vec<Option<Cell>>)> {
        let place = self.dice.below(self.shape.columns.len() as u64) as usize;
        if self.shape.columns[place].0 == Role::Ttl {
            return None;
        }
        let rows: Vec<Row> = self.model.rows().into_iter().map(|(_, row)| row).collect();
        let mut values: Vec<Option<Cell>> = Vec::new();
        for _ in 0..self.dice.below(30) {
            let value = operand(&self.shape, place, &rows, &mut self.dice);
            if !values.contains(&value) {
                values.push(value);
            }
        }
        (!values.is_empty()).then_some((place, values))
    }

    pub(super) fn truncate(&mut self) {
        if let Err(error) = self.session.simple("TRUNCATE t") {
            self.fail(&error);
        }
        self.model.keys.clear();
    }

    /// Statements that must fail and change nothing.
    pub(super) fn refused(&mut self) {
        let mut row = self.new_row();
        let sql = match self.dice.below(3) {
            0 => {
                let mut sql = self.insert_sql(&[row]);
                sql.text(" ON CONFLICT DO NOTHING");
                sql
            }
            1 if self.shape.kind == Kind::Stream => Sql::new("UPDATE t SET v = NULL"),
            1 if self.has(Role::Index) && !self.shape.many => {
                let place = self.shape.place(Role::Index).expect("there is one");
                row[place] = Some(Cell::Int(1_000_000));
                let good = self.appended();
                self.insert_sql(&[good, row])
            }
            _ => {
                let needed: Vec<usize> = self
                    .all()
                    .into_iter()
                    .filter(|place| match self.shape.columns[*place].0 {
                        Role::Key | Role::Score => true,
                        Role::Name | Role::Value => self.shape.kind != Kind::Stream,
                        Role::Second | Role::Index | Role::Ttl => false,
                    })
                    .collect();
                if needed.is_empty() {
                    return;
                }
                row[needed[self.dice.below(needed.len() as u64) as usize]] = None;
                let good = self.new_row();
                self.insert_sql(&[good, row])
            }
        };
        if let Ok(outcome) = self.session.run(&sql, &mut self.dice) {
            self.fail(&format!("it did not fail: {outcome:?}"));
        }
    }

    /// A row for the end of a list.
    fn appended(&mut self) -> Row {
        let mut row = self.new_row();
        if let Some(place) = self.shape.place(Role::Index) {
            row[place] = None;
        }
        row
    }

    /// Another client writes a row, or deletes a key.
    pub(super) fn write_elsewhere(&mut self) {
        let key = self.shape.key(&mut self.dice);
        let mut command = redis::cmd("DEL");
        command.arg(&key);
        if self.dice.below(3) > 0 && self.shape.kind != Kind::Stream {
            let mut row = self.appended();
            if let Some(place) = self.shape.place(Role::Key) {
                row[place] = Some(Cell::Bytes(key.clone()));
            }
            let redis = |role| {
                let cell: Option<&Cell> = self.shape.place(role).and_then(|place| row[place].as_ref());
                cell.map(Cell::redis).unwrap_or_default()
            };
            let (name, value, score) = (redis(Role::Name), redis(Role::Value), redis(Role::Score));
            let words: Vec<&[u8]> = match self.shape.kind {
                Kind::String => vec![b"SET", &key, &value],
                Kind::Hash => vec![b"HSET", &key, &name, &value],
                Kind::List => vec![b"RPUSH", &key, &value],
                Kind::Set => vec![b"SADD", &key, &name],
                _ => vec![b"ZADD", &key, &score, &name],
            };
            command = redis::Cmd::new();
            for word in words {
                command.arg(word);
            }
        }
        self.session.trail.push(format!(
            "-- another client: {}",
            String::from_utf8_lossy(&command.get_packed_command()).replace("\r\n", " ")
        ));
        command.exec(&mut self.redis).unwrap();
        self.model = Model::of_redis(&self.shape, &mut self.redis);
    }
}
