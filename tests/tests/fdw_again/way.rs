//! The ways in which a data statement is carried out again.

use crate::answer::Answer;
use crate::parameters::Parameters;
use crate::script::Statement;
use crate::session::Session;

/// What a world's data statements are carried out as. Either has generic plans.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// `PREPARE q AS …`, then `EXECUTE q`; what can be repeated, twice and then by a cursor.
    Prepared,
    /// As a static statement of plpgsql's, in a loop over its rows; what can be repeated, twice with one plan.
    Plpgsql,
}

/// How an answer was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Execute,
    Loop,
    Cursor,
}

/// A data statement, and what the plain run has found out of it.
#[derive(Debug)]
pub struct Data {
    pub returns_rows: bool,
    /// Whether it can be run once more without another result for it.
    pub is_repeatable: bool,
    /// With parameters, and their types.
    pub parameters: Option<(Parameters, Vec<String>)>,
}

/// What a word like `SELECT` begins.
pub fn is_data(statement: &Statement) -> bool {
    let first = statement.words().next().unwrap_or_default();
    match first.as_str() {
        "SELECT" | "WITH" => !statement.has("INTO") || statement.has("INSERT") || statement.has("MERGE"),
        "VALUES" | "TABLE" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" => true,
        _ => false,
    }
}

/// Whether it has no keyword of a statement that writes.
pub fn only_reads(statement: &Statement) -> bool {
    !["INSERT", "DELETE", "UPDATE", "MERGE"]
        .iter()
        .any(|word| statement.has(word))
}

/// Whether a data statement returns rows, as far as its words tell.
pub fn returns_rows(statement: &Statement) -> bool {
    let first = statement.words().next().unwrap_or_default();
    statement.has("RETURNING") || matches!(first.as_str(), "SELECT" | "WITH" | "VALUES" | "TABLE")
}

/// All that came of it. The number of a statement in its topic is part of the name that it is prepared under.
pub fn carry_out(
    way: Way,
    session: &mut Session,
    number: usize,
    statement: &Statement,
    data: &Data,
) -> Vec<(Form, Answer)> {
    match way {
        Way::Prepared => {
            let mut answers = prepared(session, number, statement, data);
            if data.is_repeatable && !session.is_in_failed_transaction() {
                answers.push((Form::Cursor, cursor(session, statement)));
            }
            answers
        }
        Way::Plpgsql => {
            let answers = plpgsql(session, statement, data);
            answers.into_iter().map(|answer| (Form::Loop, answer)).collect()
        }
    }
}

fn prepared(session: &mut Session, number: usize, statement: &Statement, data: &Data) -> Vec<(Form, Answer)> {
    let (text, values) = match &data.parameters {
        Some((parameters, _)) => (
            numbered(parameters),
            format!(" ({})", parameters.values.join(", ")),
        ),
        None => (statement.text.clone(), String::new()),
    };
    let prepared = session.query(&format!("PREPARE again_{number} AS {text}"));
    if prepared.is_refused() {
        return vec![(Form::Execute, prepared)];
    }
    let execute = format!("EXECUTE again_{number}{values}");
    let mut answers = vec![(Form::Execute, session.query(&execute))];
    if data.is_repeatable && !session.is_in_failed_transaction() {
        answers.push((Form::Execute, session.query(&execute)));
    }
    answers
}

/// With `$1` and so on.
pub fn numbered(parameters: &Parameters) -> String {
    parameters.named(|number| format!("${number}"))
}

/// A DO block: it needs no privilege to make anything, and within it a statement's second run has the plan of the first.
/// Its rows come as messages of the severity INFO, which are always sent.
fn plpgsql(session: &mut Session, statement: &Statement, data: &Data) -> Vec<Answer> {
    let (text, variables) = match &data.parameters {
        Some((parameters, types)) => {
            let typed = types.iter().zip(&parameters.values).zip(1..);
            let variable = |((kind, value), number)| format!("again_{number} {kind} := {value};\n");
            (
                parameters.named(|number| format!("again_{number}")),
                typed.map(variable).collect(),
            )
        }
        None => (statement.text.clone(), String::new()),
    };
    let runs = if data.is_repeatable { 2 } else { 1 };
    let once = if data.returns_rows {
        format!("FOR again IN {text}\n LOOP RAISE INFO '%', again::pg_catalog.text; END LOOP")
    } else {
        format!("{text}\n; GET DIAGNOSTICS again_count = ROW_COUNT; RAISE INFO '%', again_count")
    };
    let block = format!(
        "DO $again$ DECLARE again record; again_count bigint; {variables} BEGIN \
            FOR again_run IN 1 .. {runs} LOOP {once}; RAISE INFO 'end of a run'; END LOOP; END $again$"
    );
    let answer = session.query(&block);
    let lines = session.take_info();
    if answer.is_refused() {
        return vec![answer];
    }
    let mut answers: Vec<Answer> = lines
        .split(|line| line == "end of a run")
        .map(|lines| match (data.returns_rows, lines) {
            (false, [count]) => Answer::Done(count.parse().expect("a count")),
            _ => Answer::Records(lines.to_vec()),
        })
        .collect();
    // What follows the last end.
    answers.pop();
    assert_eq!(answers.len(), runs, "{block}: {lines:?}");
    answers
}

const STEPS: [&str; 4] = ["1", "2", "FORWARD 7", "ALL"];

fn cursor(session: &mut Session, statement: &Statement) -> Answer {
    let is_inner = session.is_in_transaction();
    if !is_inner {
        session.query("BEGIN");
    }
    let answer = fetched(session, statement);
    if is_inner {
        return answer;
    }
    let end = session.query(if answer.is_refused() { "ROLLBACK" } else { "COMMIT" });
    if end.is_refused() { end } else { answer }
}

fn fetched(session: &mut Session, statement: &Statement) -> Answer {
    let declared = session.query(&format!("DECLARE again CURSOR FOR {}", statement.text));
    if declared.is_refused() {
        return declared;
    }
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for step in STEPS {
        match session.query(&format!("FETCH {step} FROM again")) {
            Answer::Rows(names, more) => {
                columns = names;
                rows.extend(more);
            }
            refused => return refused,
        }
    }
    session.query("CLOSE again");
    Answer::Rows(columns, rows)
}
