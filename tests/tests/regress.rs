//! The topics of `regress/`, each in a world of its own, run by PostgreSQL's own pg_regress and
//! pg_isolation_regress. How to write one: `regress/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use pg_redis_cache_tests::{
    Folder, Postgres, installation, repository, topic_environment, topic_world, topics,
};

/// Which of PostgreSQL's two runners a topic is for.
#[derive(Clone, Copy)]
enum Runner {
    Sql,
    Isolation,
}

impl Runner {
    fn topics(self) -> Vec<String> {
        match self {
            Runner::Sql => topics("sql", "sql"),
            Runner::Isolation => topics("specs", "spec"),
        }
    }

    fn program(self) -> PathBuf {
        let tests = installation().pkglibdir.join("pgxs/src/test");
        tests.join(match self {
            Runner::Sql => "regress/pg_regress",
            Runner::Isolation => "isolation/pg_isolation_regress",
        })
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (runner, kind) in [(Runner::Sql, "sql"), (Runner::Isolation, "isolation")] {
        for topic in runner.topics() {
            let name = format!("{kind}::{topic}");
            trials.push(Trial::test(name, move || {
                run(runner, &topic).map_err(Failed::from)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(runner: Runner, topic: &str) -> Result<(), String> {
    let regress = repository().join("regress");
    let world = topic_world(topic);
    let output = Folder::new();
    let mut command = Command::new(runner.program());
    command
        .arg("--inputdir")
        .arg(&regress)
        .arg("--outputdir")
        .arg(output.path());
    command
        .arg("--bindir")
        .arg(&installation().bindir)
        .args(["--user=postgres", "--use-existing"]);
    command
        .arg(format!("--dbname={}", world.database()))
        .arg("--host")
        .arg(world.postgres.socket_dir());
    command.arg(format!("--port={}", Postgres::PORT)).arg(topic);
    topic_environment(&mut command, &world);
    let ran = command
        .output()
        .map_err(|e| format!("{}: {e}", runner.program().display()))?;
    keep_results(output.path(), &regress.join("results"));
    if ran.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    let differences = fs::read_to_string(output.path().join("regression.diffs")).unwrap_or_default();
    let log = last_lines(&world.postgres.log(), 20);
    Err(format!(
        "{}\n{printed}\n{differences}\nthe end of PostgreSQL's log:\n{log}",
        what_came_instead(&differences)
    ))
}

/// The first lines that were not expected: what a long report is usually read for.
fn what_came_instead(differences: &str) -> String {
    let came = differences
        .lines()
        .filter(|line| line.starts_with('+') && !line.starts_with("+++"));
    came.take(10).collect::<Vec<_>>().join("\n")
}

/// So that a new topic's output can be looked at, and taken as the expected one. The tests do not need it.
fn keep_results(output: &Path, results: &Path) {
    let _ = fs::create_dir_all(results);
    for entry in fs::read_dir(output.join("results"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = fs::copy(entry.path(), results.join(entry.file_name()));
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
