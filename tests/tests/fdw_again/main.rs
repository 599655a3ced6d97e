//! The topics about foreign tables once more, their data statements prepared with generic plans, within plpgsql, and
//! by cursors: with the same rows in the same order, the same counts, errors and notices, and the same in Redis.
//!
//! Each topic is run plainly and in each [`Way`], each time in a world of its own. Literals become parameters where
//! that is possible. What cannot be run so (utility statements, commands of the shell) is run plainly in each, and
//! compared as well, except what `EXPLAIN` shows. The counts are printed; too few fail.

mod answer;
mod parameters;
mod script;
mod session;
mod way;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use pg_redis_cache_tests::{repository, topics};

use answer::Answer;
use parameters::parameters;
use script::{Piece, Statement, cut};
use session::{Notice, Session};
use way::{Data, Form, Way};

/// The least that is run again in each form, of all topics together.
const FLOOR: [(Form, usize); 3] = [(Form::Execute, 900), (Form::Loop, 900), (Form::Cursor, 250)];

/// How often something was run again, in the order of [`FLOOR`].
static AGAIN: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
/// How many statements have parameters.
static WITH_PARAMETERS: AtomicUsize = AtomicUsize::new(0);
/// How many pieces there are that can only be run plainly.
static PLAINLY: AtomicUsize = AtomicUsize::new(0);

/// A piece, and what came of it when it was run plainly.
struct Plain {
    piece: Piece,
    answer: Answer,
    notices: Vec<Notice>,
    /// If it can be run in another way.
    data: Option<Data>,
}

fn main() {
    let arguments = Arguments::from_args();
    let topics = topics("sql", "sql")
        .into_iter()
        .filter(|topic| topic.starts_with("fdw_"));
    let trials =
        topics.map(|topic| Trial::test(topic.clone(), move || try_again(&topic).map_err(Failed::from)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let counts: Vec<_> = FLOOR
        .iter()
        .zip(&AGAIN)
        .map(|((form, floor), count)| (form, count.load(Ordering::Relaxed), floor))
        .collect();
    for (form, count, _) in &counts {
        println!("run again as {form:?}: {count}");
    }
    println!(
        "statements with parameters: {}; what can only be run plainly: {}",
        WITH_PARAMETERS.load(Ordering::Relaxed),
        PLAINLY.load(Ordering::Relaxed)
    );
    let is_all = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
    if is_all && counts.iter().any(|(_, count, floor)| count < *floor) {
        println!("too few: at least {FLOOR:?} are expected");
        std::process::exit(1);
    }
    conclusion.exit();
}

fn try_again(topic: &str) -> Result<(), String> {
    let path = repository().join("regress/sql").join(format!("{topic}.sql"));
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let plain = run_plainly(topic, cut(&text));
    let mut differences = Vec::new();
    for way in [Way::Prepared, Way::Plpgsql] {
        differences.extend(run_again(topic, &plain, way));
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences.join("\n\n"))
    }
}

/// What Redis holds at the end of a topic.
const LOOK: &str = "cached";

fn run_plainly(topic: &str, pieces: Vec<Piece>) -> Vec<Plain> {
    let mut session = Session::new(topic, "");
    let mut plain = Vec::new();
    for piece in pieces.into_iter().chain([Piece::Shell(LOOK.to_owned())]) {
        let statement = match &piece {
            Piece::Sql(statement) if way::is_data(statement) => Some(statement),
            _ => None,
        };
        // Before it is run: what it is may be gone then.
        let is_repeatable = statement.is_some_and(|statement| session.is_repeatable(statement));
        let with_parameters = statement.and_then(|statement| with_parameters(&mut session, statement));
        let answer = session.run(&piece);
        assert!(!answer.is_syntax_error(), "{topic} was cut wrong: {piece:?}");
        let notices = session.take_notices();
        let data = statement.map(|statement| Data {
            returns_rows: match answer {
                Answer::Refused { .. } => way::returns_rows(statement),
                _ => matches!(answer, Answer::Rows(..)),
            },
            is_repeatable: is_repeatable && way::only_reads(statement) && notices.is_empty(),
            parameters: with_parameters.filter(|_| !answer.is_refused()),
        });
        PLAINLY.fetch_add(usize::from(data.is_none()), Ordering::Relaxed);
        plain.push(Plain {
            piece,
            answer,
            notices,
            data,
        });
    }
    plain
}

fn with_parameters(
    session: &mut Session,
    statement: &Statement,
) -> Option<(parameters::Parameters, Vec<String>)> {
    let parameters = parameters(statement)?;
    let types = session.parameter_types(&way::numbered(&parameters))?;
    Some((parameters, types))
}

/// What came otherwise than plainly.
fn run_again(topic: &str, plain: &[Plain], way: Way) -> Vec<String> {
    let mut session = Session::new(topic, "-c plan_cache_mode=force_generic_plan");
    let mut differences = Vec::new();
    for (number, plain) in plain.iter().enumerate() {
        let Plain {
            piece,
            answer,
            notices,
            data,
        } = plain;
        let differs = match (piece, data) {
            (Piece::Sql(statement), Some(data)) => {
                let answers = way::carry_out(way, &mut session, number, statement, data);
                count(&answers, data);
                let differing = answers.iter().find(|(_, again)| !again.agrees_with(answer));
                differing.map(|(form, again)| format!("{form:?}: {again:?}"))
            }
            _ => Some(session.run(piece))
                .filter(|again| again != answer)
                .map(|again| format!("{again:?}")),
        };
        let told = session.take_notices();
        if (differs.is_some() || told != *notices) && !shows_plan(piece) {
            differences.push(format!(
                "{way:?}: {piece:?}\n  plainly: {answer:?} {notices:?}\n  with {data:?}:\n  {differs:?} {told:?}"
            ));
        }
    }
    differences
}

fn count(answers: &[(Form, Answer)], data: &Data) {
    for ((form, _), count) in FLOOR.iter().zip(&AGAIN) {
        count.fetch_add(
            answers.iter().filter(|(of, _)| of == form).count(),
            Ordering::Relaxed,
        );
    }
    let has_parameters =
        answers.first().is_some_and(|(form, _)| *form == Form::Execute) && data.parameters.is_some();
    WITH_PARAMETERS.fetch_add(usize::from(has_parameters), Ordering::Relaxed);
}

/// A plan may be another.
fn shows_plan(piece: &Piece) -> bool {
    matches!(piece, Piece::Sql(statement) if statement.words().next().is_some_and(|word| word == "EXPLAIN"))
}
