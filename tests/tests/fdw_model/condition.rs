//! Conditions: as SQL, and what they say of a row.

use pg_redis_cache_tests::Dice;

use crate::model::Row;
use crate::session::Sql;
use crate::shape::{Cell, Kind, Role, Shape, Type};

/// A condition on a row.
#[derive(Clone, Debug)]
pub enum Condition {
    True,
    Compare {
        place: usize,
        operator: &'static str,
        value: Option<Cell>,
        turned: bool,
    },
    Any {
        place: usize,
        values: Vec<Option<Cell>>,
        array: bool,
    },
    Like {
        place: usize,
        pattern: String,
    },
    StartsWith {
        place: usize,
        prefix: String,
    },
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

const OPERATORS: [&str; 8] = ["=", "=", "=", "<>", "<", "<=", ">", ">="];

impl Condition {
    /// A condition on some columns. `present`: rows that are there, whose values it likes to ask for.
    pub fn random(shape: &Shape, present: &[Row], dice: &mut Dice) -> Condition {
        let many = |dice: &mut Dice| {
            (0..2 + dice.below(2))
                .map(|_| Condition::simple(shape, present, dice))
                .collect::<Vec<_>>()
        };
        match dice.below(12) {
            0 => Condition::True,
            1..=3 => Condition::And(many(dice)),
            4 => Condition::Or(many(dice)),
            5 => Condition::Not(Box::new(Condition::simple(shape, present, dice))),
            _ => Condition::simple(shape, present, dice),
        }
    }

    fn simple(shape: &Shape, present: &[Row], dice: &mut Dice) -> Condition {
        let place = dice.below(shape.columns.len() as u64) as usize;
        let (role, of) = shape.columns[place];
        if role == Role::Ttl {
            let bounds = [("=", -1), (">", 0), ("<", 15_000), (">=", 15_000)];
            let (operator, bound) = bounds[dice.below(4) as usize];
            return Condition::Compare {
                place,
                operator,
                value: Some(Cell::Int(bound)),
                turned: false,
            };
        }
        match dice.below(8) {
            0 | 1 => Condition::Any {
                place,
                values: (0..dice.below(5))
                    .map(|_| operand(shape, place, present, dice))
                    .collect(),
                array: dice.below(2) == 0,
            },
            2 if of == Type::Text => Condition::StartsWith {
                place,
                prefix: prefix(shape, place, present, dice),
            },
            3 | 4 if of == Type::Text => Condition::Like {
                place,
                pattern: pattern(shape, place, present, dice),
            },
            _ => Condition::Compare {
                place,
                operator: OPERATORS[dice.below(8) as usize],
                value: operand(shape, place, present, dice),
                turned: dice.below(4) == 0,
            },
        }
    }

    /// Appends it to a statement.
    pub fn write(&self, shape: &Shape, sql: &mut Sql) {
        match self {
            Condition::True => sql.text("true"),
            Condition::Compare {
                place,
                operator,
                value,
                turned,
            } => {
                let (role, of) = shape.columns[*place];
                let input = value.as_ref().map(|value| value.input(of));
                if *turned {
                    sql.parameter(of.sql(), input);
                    sql.text(&format!(" {} t.{}", turn(operator), role.column()));
                } else {
                    sql.text(&format!("t.{} {operator} ", role.column()));
                    sql.parameter(of.sql(), input);
                }
            }
            Condition::Any { place, values, array } => {
                let (role, of) = shape.columns[*place];
                let inputs: Vec<Option<String>> = values
                    .iter()
                    .map(|value| value.as_ref().map(|value| value.input(of)))
                    .collect();
                sql.text(&format!("t.{} ", role.column()));
                if *array || inputs.is_empty() {
                    sql.text("= ANY (");
                    sql.parameter(&format!("{}[]", of.sql()), Some(array_literal(&inputs)));
                } else {
                    sql.text("IN (");
                    for (number, input) in inputs.into_iter().enumerate() {
                        sql.text(if number > 0 { ", " } else { "" });
                        sql.parameter(of.sql(), input);
                    }
                }
                sql.text(")");
            }
            Condition::Like { place, pattern } => {
                sql.text(&format!("t.{} LIKE ", shape.columns[*place].0.column()));
                sql.parameter("text", Some(pattern.clone()));
            }
            Condition::StartsWith { place, prefix } => {
                sql.text(&format!("t.{} ^@ ", shape.columns[*place].0.column()));
                sql.parameter("text", Some(prefix.clone()));
            }
            Condition::And(all) => joined(all, " AND ", shape, sql),
            Condition::Or(all) => joined(all, " OR ", shape, sql),
            Condition::Not(one) => {
                sql.text("NOT (");
                one.write(shape, sql);
                sql.text(")");
            }
        }
    }

    /// Whether a row meets it.
    pub fn holds(&self, row: &Row) -> bool {
        self.value(row) == Some(true)
    }

    /// SQL's three values.
    fn value(&self, row: &Row) -> Option<bool> {
        match self {
            Condition::True => Some(true),
            Condition::Compare {
                place,
                operator,
                value,
                ..
            } => {
                let (left, right) = (row[*place].as_ref()?, value.as_ref()?);
                let order = left.partial_cmp(right).expect("values of one type, and no NaN");
                Some(match *operator {
                    "=" => order.is_eq(),
                    "<>" => order.is_ne(),
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            Condition::Any { place, values, .. } => {
                if values.is_empty() {
                    return Some(false);
                }
                let left = row[*place].as_ref()?;
                let equal = values.iter().flatten().any(|value| value == left);
                (equal || values.iter().all(Option::is_some)).then_some(equal)
            }
            Condition::Like { place, pattern } => {
                let text = String::from_utf8(row[*place].as_ref()?.redis()).expect("a text column");
                Some(like(
                    &text.chars().collect::<Vec<_>>(),
                    &pattern.chars().collect::<Vec<_>>(),
                ))
            }
            Condition::StartsWith { place, prefix } => {
                Some(row[*place].as_ref()?.redis().starts_with(prefix.as_bytes()))
            }
            Condition::And(all) => {
                let values: Vec<_> = all.iter().map(|one| one.value(row)).collect();
                if values.contains(&Some(false)) {
                    return Some(false);
                }
                (!values.contains(&None)).then_some(true)
            }
            Condition::Or(all) => {
                let values: Vec<_> = all.iter().map(|one| one.value(row)).collect();
                if values.contains(&Some(true)) {
                    return Some(true);
                }
                (!values.contains(&None)).then_some(false)
            }
            Condition::Not(one) => one.value(row).map(|value| !value),
        }
    }
}

fn turn(operator: &str) -> &str {
    match operator {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        same => same,
    }
}

fn joined(all: &[Condition], word: &str, shape: &Shape, sql: &mut Sql) {
    sql.text("(");
    for (number, one) in all.iter().enumerate() {
        sql.text(if number > 0 { word } else { "" });
        one.write(shape, sql);
    }
    sql.text(")");
}

/// PostgreSQL's text of an array.
pub fn array_literal(inputs: &[Option<String>]) -> String {
    let elements: Vec<String> = inputs
        .iter()
        .map(|input| match input {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        })
        .collect();
    format!("{{{}}}", elements.join(","))
}

/// What a column is compared with: mostly what is there, at times what is not, or NULL.
pub fn operand(shape: &Shape, place: usize, present: &[Row], dice: &mut Dice) -> Option<Cell> {
    let (role, of) = shape.columns[place];
    match dice.below(16) {
        0 => None,
        1 if role == Role::Key => {
            let other = shape.others()[dice.below(2) as usize].clone();
            Some(Cell::Bytes(other))
        }
        2 if role == Role::Index => Some(Cell::Int([-1, i64::MAX, i64::MIN][dice.below(3) as usize])),
        1..=3 if shape.kind == Kind::Stream && role == Role::Name && of == Type::Text => {
            let texts = [
                "5",
                "9-",
                "x",
                "0",
                "-",
                "+",
                "5-1-1",
                "99999999999999999999999",
                "10-",
            ];
            Some(Cell::Bytes(texts[dice.below(9) as usize].into()))
        }
        0..=8 if !present.is_empty() => {
            let row = &present[dice.below(present.len() as u64) as usize];
            row[place].clone().or_else(|| Some(shape.value(place, dice)))
        }
        _ => Some(shape.value(place, dice)),
    }
}

fn text_operand(shape: &Shape, place: usize, present: &[Row], dice: &mut Dice) -> String {
    let value = operand(shape, place, present, dice).unwrap_or_else(|| shape.value(place, dice));
    String::from_utf8(value.redis()).expect("a text column")
}

fn prefix(shape: &Shape, place: usize, present: &[Row], dice: &mut Dice) -> String {
    let text = text_operand(shape, place, present, dice);
    let length = dice.below(text.chars().count() as u64 + 1) as usize;
    text.chars().take(length).collect()
}

fn pattern(shape: &Shape, place: usize, present: &[Row], dice: &mut Dice) -> String {
    let escape = |text: String| -> String {
        text.chars()
            .flat_map(|c| {
                if "%_\\".contains(c) {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .collect()
    };
    match dice.below(6) {
        0 => {
            let mut text: Vec<char> = text_operand(shape, place, present, dice).chars().collect();
            if !text.is_empty() {
                let at = dice.below(text.len() as u64) as usize;
                text[at] = '_';
            }
            let text: String = text.into_iter().filter(|c| *c != '\\').collect();
            text
        }
        1 => format!("%{}", escape(prefix(shape, place, present, dice))),
        2 => escape(text_operand(shape, place, present, dice)),
        _ => escape(prefix(shape, place, present, dice)) + "%",
    }
}

/// LIKE, as SQL defines it.
fn like(text: &[char], pattern: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some(('%', behind)), rest) => {
            like(text, behind) || rest.is_some_and(|(_, rest)| like(rest, pattern))
        }
        (Some(_), None) => false,
        (Some(('_', behind)), Some((_, rest))) => like(rest, behind),
        (Some(('\\', behind)), Some((first, rest))) => behind
            .split_first()
            .is_some_and(|(literal, behind)| literal == first && like(rest, behind)),
        (Some((literal, behind)), Some((first, rest))) => literal == first && like(rest, behind),
    }
}
