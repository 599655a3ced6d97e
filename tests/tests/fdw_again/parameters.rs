//! A statement with parameters in place of the literals that it compares with.

use crate::script::{Kind, Statement};

/// A statement's literals, and the text between them.
#[derive(Debug)]
pub struct Parameters {
    /// One more than there are values.
    between: Vec<String>,
    pub values: Vec<String>,
}

impl Parameters {
    /// The statement with a name in each literal's place, made from its number, from 1 on.
    pub fn named(&self, name: impl Fn(usize) -> String) -> String {
        let names = (1..self.between.len()).map(name).chain([String::new()]);
        self.between
            .iter()
            .zip(names)
            .map(|(text, name)| text.clone() + &name)
            .collect()
    }
}

/// Before a literal that can as well be a parameter: its type follows from what it is compared with.
const BEFORE: [&str; 15] = [
    "=", "<>", "<", ">", "<=", ">=", "^@", "~", "LIKE", "BETWEEN", "AND", "LIMIT", "OFFSET", "!~", "!=",
];

/// None where the statement has no such literal. Numbers with a fraction stay: as an integer's parameter they would be
/// rounded.
pub fn parameters(statement: &Statement) -> Option<Parameters> {
    let tokens: Vec<_> = statement.tokens().collect();
    let (mut between, mut values, mut copied) = (Vec::new(), Vec::new(), 0);
    // For each parenthesis that is open, whether it is that of an IN or ANY.
    let mut lists = Vec::new();
    for (at, (kind, token, place)) in tokens.iter().enumerate() {
        let before = at
            .checked_sub(1)
            .map_or("", |before| tokens[before].1)
            .to_ascii_uppercase();
        match *token {
            "(" => lists.push(matches!(before.as_str(), "IN" | "ANY" | "ALL")),
            ")" => drop(lists.pop()),
            _ => {}
        }
        let is_value = match kind {
            Kind::Literal => true,
            Kind::Number => token.bytes().all(|byte| byte.is_ascii_digit()),
            _ => false,
        };
        let is_listed = || lists.last() == Some(&true) && matches!(before.as_str(), "(" | ",");
        if is_value && (BEFORE.contains(&before.as_str()) || is_listed()) {
            values.push((*token).to_owned());
            between.push(statement.text[copied..place.start].to_owned());
            copied = place.end;
        }
    }
    between.push(statement.text[copied..].to_owned());
    (!values.is_empty()).then_some(Parameters { between, values })
}
