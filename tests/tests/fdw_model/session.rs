//! Statements, and a session that runs them: with literals, or prepared and with a generic plan.

use std::collections::HashMap;

use pg_redis_cache_tests::{Dice, literal};
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::model::Row;
use crate::shape::{Cell, Role, Shape, TTL_STEP};

/// A statement with parameters.
#[derive(Clone, Debug, Default)]
pub struct Sql {
    /// Text, and between each two pieces a parameter.
    pieces: Vec<String>,
    parameters: Vec<(String, Option<String>)>,
}

impl Sql {
    pub fn new(text: &str) -> Sql {
        Sql {
            pieces: vec![text.to_owned()],
            parameters: Vec::new(),
        }
    }

    pub fn text(&mut self, text: &str) {
        self.pieces
            .last_mut()
            .expect("there is a first piece")
            .push_str(text);
    }

    /// A value of a type, by what its input function takes.
    pub fn parameter(&mut self, of: &str, input: Option<String>) {
        self.parameters.push((of.to_owned(), input));
        self.pieces.push(String::new());
    }

    fn written(&self, mut parameter: impl FnMut(usize) -> String) -> String {
        let mut text = self.pieces[0].clone();
        for (number, piece) in self.pieces[1..].iter().enumerate() {
            text += &parameter(number);
            text += piece;
        }
        text
    }

    fn literal(&self, number: usize) -> String {
        let (of, input) = &self.parameters[number];
        let value = input.as_ref().map_or("NULL".to_owned(), |input| literal(input));
        format!("{value}::{of}")
    }

    /// With its values: constants, values of a subquery, values of a function that is only stable.
    pub fn plain(&self, dice: &mut Dice) -> String {
        self.written(|number| {
            let value = self.literal(number);
            match dice.below(6) {
                0 => format!("(SELECT {value})::{}", self.parameters[number].0),
                1 => format!("stable({value})"),
                _ => value,
            }
        })
    }
}

/// What a statement gave.
#[derive(Debug)]
pub struct Outcome {
    pub rows: Vec<Vec<Option<String>>>,
    /// As the command's tag says.
    pub count: u64,
}

/// How statements are run.
pub struct Session {
    pub client: Client,
    /// By their texts: their names.
    prepared: Option<HashMap<String, String>>,
    /// What was run, for a failure's report.
    pub trail: Vec<String>,
}

impl Session {
    pub fn new(mut client: Client, prepared: bool) -> Session {
        if prepared {
            client
                .batch_execute("SET plan_cache_mode = force_generic_plan")
                .expect("a setting");
        }
        Session {
            client,
            prepared: prepared.then(HashMap::new),
            trail: Vec::new(),
        }
    }

    /// Runs a statement; an error is returned as its text.
    pub fn run(&mut self, sql: &Sql, dice: &mut Dice) -> Result<Outcome, String> {
        let text = match &mut self.prepared {
            None => sql.plain(dice),
            Some(prepared) => {
                let types: Vec<&str> = sql.parameters.iter().map(|(of, _)| of.as_str()).collect();
                let template = sql.written(|number| format!("${}", number + 1));
                let known = format!("({}) AS {template}", types.join(", "));
                let types = if types.is_empty() {
                    String::new()
                } else {
                    format!("({})", types.join(", "))
                };
                let name = match prepared.get(&known) {
                    Some(name) => name.clone(),
                    None => {
                        let name = format!("model_{}", prepared.len());
                        let prepare = format!("PREPARE {name} {types} AS {template}");
                        self.trail.push(prepare.clone());
                        self.client
                            .batch_execute(&prepare)
                            .map_err(|error| describe(&error))?;
                        prepared.insert(known, name.clone());
                        name
                    }
                };
                let values: Vec<String> = (0..sql.parameters.len()).map(|n| sql.literal(n)).collect();
                let values = if values.is_empty() {
                    String::new()
                } else {
                    format!("({})", values.join(", "))
                };
                format!("EXECUTE {name}{values}")
            }
        };
        self.simple(&text)
    }

    /// Runs statements as they are.
    pub fn simple(&mut self, text: &str) -> Result<Outcome, String> {
        self.trail.push(text.to_owned());
        let messages = self.client.simple_query(text).map_err(|error| describe(&error))?;
        let mut outcome = Outcome {
            rows: Vec::new(),
            count: 0,
        };
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => outcome.rows.push(cells(&row)),
                SimpleQueryMessage::CommandComplete(count) => outcome.count = count,
                _ => {}
            }
        }
        Ok(outcome)
    }
}

fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => format!("{error:?}"),
    }
}

fn cells(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len())
        .map(|place| row.get(place).map(str::to_owned))
        .collect()
}

/// Rows of some of a table's columns. A time to live is what it was when it was set.
pub fn parsed(shape: &Shape, places: &[usize], rows: &[Vec<Option<String>>]) -> Vec<Row> {
    let cell = |place: usize, text: &Option<String>| {
        let (role, of) = shape.columns[place];
        let cell = Cell::of_output(of, text.as_ref()?);
        match (role, cell) {
            (Role::Ttl, Cell::Int(seconds)) if seconds > 0 => {
                Some(Cell::Int((seconds + TTL_STEP - 1) / TTL_STEP * TTL_STEP))
            }
            (_, cell) => Some(cell),
        }
    };
    rows.iter()
        .map(|row| {
            places
                .iter()
                .zip(row)
                .map(|(place, text)| cell(*place, text))
                .collect()
        })
        .collect()
}
