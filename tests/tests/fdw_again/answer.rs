//! What came of one piece of a topic, so that two runs of it can be compared.

use postgres::SimpleQueryMessage;
use postgres::error::Error;

/// A row as its columns' texts.
pub type Row = Vec<Option<String>>;

/// What came of one piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Rows, with the names of their columns.
    Rows(Vec<String>, Vec<Row>),
    /// Rows, each as the text of a record.
    Records(Vec<String>),
    /// The count in the command's tag.
    Done(u64),
    /// SQLSTATE, message, DETAIL and HINT.
    Refused {
        state: String,
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    },
    /// What COPY or a command of the shell has written.
    Printed(String),
}

impl Answer {
    /// What came of one statement by the simple protocol.
    pub fn of(result: Result<Vec<SimpleQueryMessage>, Error>) -> Answer {
        let messages = match result {
            Ok(messages) => messages,
            Err(error) => return Answer::refused(&error),
        };
        let (mut columns, mut rows, mut count) = (None, Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(described) => {
                    columns = Some(described.iter().map(|column| column.name().to_owned()).collect());
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
                }
                SimpleQueryMessage::CommandComplete(number) => count = number,
                other => panic!("the simple protocol has no {other:?}"),
            }
        }
        columns.map_or(Answer::Done(count), |columns| Answer::Rows(columns, rows))
    }

    /// # Panics
    /// If it is no error of the server's.
    pub fn refused(error: &Error) -> Answer {
        let error = error
            .as_db_error()
            .unwrap_or_else(|| panic!("the session ended: {error:?}"));
        Answer::Refused {
            state: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Answer::Refused { .. })
    }

    /// No topic has one, so it tells that a statement did not arrive as it is written.
    pub fn is_syntax_error(&self) -> bool {
        matches!(self, Answer::Refused { state, .. } if state == "42601")
    }

    /// Whether this came of a statement that was answered so when it was sent plainly.
    pub fn agrees_with(&self, plain: &Answer) -> bool {
        match (self, plain) {
            (Answer::Records(records), Answer::Rows(_, rows)) => {
                records
                    .iter()
                    .eq(rows.iter().map(record).collect::<Vec<_>>().iter())
            }
            _ => self == plain,
        }
    }
}

/// A row as the text of a record (src/backend/utils/adt/rowtypes.c, record_out).
fn record(row: &Row) -> String {
    let column = |value: &Option<String>| {
        let Some(value) = value else { return String::new() };
        let is_plain = |c: char| !matches!(c, '"' | '\\' | '(' | ')' | ',') && !is_space(c);
        if !value.is_empty() && value.chars().all(is_plain) {
            return value.clone();
        }
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\"\""))
    };
    format!("({})", row.iter().map(column).collect::<Vec<_>>().join(","))
}

/// isspace() in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
